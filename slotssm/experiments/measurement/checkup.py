"""Checks that everything slotssm needs works on this machine (`slotssm doctor`)."""

import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

import torch


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        name: what was checked.
        ok: whether it works.
        detail: version or device, or the error.
    """

    name: str
    ok: bool
    detail: str


def check_machine() -> list[Finding]:
    """Run all checks; failures are reported, not raised."""
    checks: dict[str, Callable[[], str]] = {
        "versions": _versions,
        "processors": _processors,
        "accelerator": _accelerator,
        "fused scan": _fused_scan,
        "generator": _generator,
        "video encoder": _video_encoder,
    }
    return [_run(name, check) for name, check in checks.items()]


def _run(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, check())
    except Exception as error:
        return Finding(name, False, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


def _versions() -> str:
    names = ("slotssm", "torch", "numpy", "numba", "h5py", "pymunk")
    return ", ".join([f"python {platform.python_version()}", *(f"{name} {version(name)}" for name in names)])


def _processors() -> str:
    return f"{os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads, {platform.machine()}"


def _accelerator() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return "mps" if torch.backends.mps.is_available() else "none; everything runs on the CPU"


def _fused_scan() -> str:
    """Compile the fused kernel and compare it with the reference."""
    from slotssm.ops import selective_scan

    generator = torch.Generator().manual_seed(0)
    x, dt, B, C = (torch.rand(2, 33, width, generator=generator) for width in (8, 8, 4, 4))
    A = -torch.rand(8, 4, generator=generator)
    ours, truth = (selective_scan(x, dt, A, B, C, backend=backend) for backend in ("fused", "reference"))
    assert isinstance(ours, torch.Tensor)
    assert isinstance(truth, torch.Tensor)
    error = float((ours - truth).abs().max())
    if error > 1e-5:
        raise ArithmeticError(f"fused and reference scan differ by {error:.1e}")
    return f"agrees with the reference to {error:.1e}"


def _generator() -> str:
    from generators.bouncing_recipe import BouncingRecipe
    from generators.catalog import make_episode

    episode = make_episode(BouncingRecipe(num_frames=4), seed=0, split="train", index=0)
    return f"made {len(episode['frames'])} frames"


def _video_encoder() -> str:
    from imageio_ffmpeg import get_ffmpeg_version

    from slotssm.ffmpeg import executable

    executable()
    return f"ffmpeg {get_ffmpeg_version()}"
