"""Whether everything works on this GPU, and how fast: one script, a few minutes, JSON and a table for docs/gpu.md.

Usage:
    python benchmarks/gpu_check.py [--device cuda] [--quick] [--json FILE]

Checks come first: kernels against the reference, sequences against steps, twenty training steps of every task in
float32 and bfloat16, and a resumed run. Then it measures scans side by side, and training steps of the paper's presets.
With `--device cpu --quick` the script itself is tried where there is no GPU.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slotssm.config import RunConfig
from slotssm.documents import override, parse_assignments
from slotssm.errors import InputError
from slotssm.experiments.datasets import ensure_own_data, spec_of
from slotssm.experiments.measurement.provenance import machine
from slotssm.experiments.presets import preset
from slotssm.experiments.runs import resume_run, start_run
from slotssm.layers import Mamba
from slotssm.ops import selective_scan
from slotssm.ops.backends import BACKENDS
from slotssm.training.device import numerics
from slotssm.training.run import RunDirectory, read_lines
from slotssm.training.trainer import Trainer

SHAPES = [(128 * 6, 80, 80, 16), (128 * 6, 640, 80, 16), (8 * 6, 2560, 80, 16)]
"""Batch times slots, steps L, inner channels E, states N."""
QUICK_SHAPES = [(6, 40, 20, 16)]
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
STEPS = 20


def arguments_of(shape: tuple[int, int, int, int], device: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Arguments of a scan as a Mamba layer makes them, each with a gradient."""
    batch, length, channels, states = shape
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    moving = {
        "x": normal(batch, length, channels),
        "dt": normal(batch, length, channels) - 3,
        "B": normal(batch, length, states),
        "C": normal(batch, length, states),
        "z": normal(batch, length, channels),
    }
    rates = -torch.arange(1, states + 1).float().repeat(channels, 1)
    fixed = {"A": rates, "D": torch.ones(channels), "delta_bias": torch.zeros(channels)}
    found = {name: value.to(device, dtype) for name, value in moving.items()}
    found |= {name: value.to(device) for name, value in fixed.items()}
    return {name: value.requires_grad_() for name, value in found.items()}


def forward_backward(arguments: dict[str, Tensor], backend: str) -> list[Tensor]:
    """The outputs of a scan and the gradients of a function of them."""
    y = selective_scan(**arguments, delta_softplus=True, backend=backend)
    return [y, *torch.autograd.grad(y.float().square().mean(), list(arguments.values()))]


def usable(device: str) -> list[str]:
    """Backends that serve a device, without the reference."""
    found = []
    for name in BACKENDS:
        try:
            selective_scan(**arguments_of((1, 2, 2, 2), device, torch.float32), backend=name)
        except (InputError, RuntimeError):
            continue
        found.append(name)
    return [name for name in found if name != "reference"]


def check_kernels(device: str) -> dict[str, Any]:
    """Largest relative error of every backend against the reference in float64."""
    found: dict[str, Any] = {}
    for dtype, tolerance in TOLERANCES.items():
        arguments = arguments_of((3, 70, 33, 16), device, dtype)
        exact = {name: value.detach().double().requires_grad_() for name, value in arguments.items()}
        expected = forward_backward(exact, "reference")
        for backend in usable(device):
            pairs = zip(forward_backward(arguments, backend), expected, strict=True)
            error = max(
                float((a.detach().double() - b.detach()).abs().max() / b.detach().abs().max()) for a, b in pairs
            )
            assert error < tolerance, f"{backend} in {dtype} differs from the reference by {error:.2g}"
            found[f"{backend} {str(dtype).removeprefix('torch.')}"] = error
    return found


def check_steps(device: str) -> float:
    """Largest difference between a sequence and the steps of a Mamba layer."""
    torch.manual_seed(0)
    layer, x = Mamba(48).to(device), torch.randn(4, 30, 48, device=device)
    with torch.no_grad():
        whole, _ = layer(x)
        first, state = layer(x[:, :10])
        parts = [first]
        for t in range(10, 30):
            y, state = layer.step(x[:, t], state)
            parts.append(y[:, None])
    error = float((torch.cat(parts, 1) - whole).abs().max())
    assert error < 1e-3, f"steps differ from the sequence by {error:.2g}"
    return error


def check_training(device: str, folder: Path) -> dict[str, float]:
    """Last loss of a few steps of every task in both precisions, each of them also resumed in the middle."""
    found = {}
    for name in ("tiny-oc", "tiny-bcb", "tiny-balls"):
        for precision in ("no", "bf16"):
            settings = [f"train.num_steps={STEPS}", f"train.precision={precision}", "train.log_every_steps=1"]
            settings += ["train.checkpoint_every_steps=10", f"train.eval_every_steps={STEPS}"]
            config = override(preset(name), parse_assignments(settings), "gpu check")
            data = ensure_own_data(config, folder)
            run = RunDirectory(folder / f"{name}-{precision}")
            start_run(config, spec_of(config.data), data, run, device, lambda report: None)
            losses = [line["loss"] for line in read_lines(run.metrics) if line["split"] == "train"]
            (run.checkpoints / f"step-{STEPS:08d}").rename(folder / f"whole-{name}-{precision}")
            resume_run(run, device, lambda report: None, data)
            again = [line["loss"] for line in read_lines(run.metrics) if line["split"] == "train"]
            difference = max(abs(a - b) / abs(a) for a, b in zip(losses, again, strict=True))
            assert difference < 0.05, f"{name} {precision} resumed differs by {difference:.2g}"
            found[f"{name} {precision}"] = losses[-1]
    return found


# --- measurements -----------------------------------------------------------------------------------------


def seconds_of(work: Callable[[], Any], device: str, repeats: int) -> float:
    """Median seconds of a function, after one call off the clock."""
    work()
    times = []
    for _ in range(repeats):
        synchronize(device)
        began = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - began)
    return sorted(times)[len(times) // 2]


def synchronize(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def copying(device: str, numel: int) -> float:
    """Bytes a second that are read and written by copying."""
    source = torch.ones(numel, device=device)
    target = torch.empty_like(source)
    return 8 * numel / seconds_of(lambda: target.copy_(source), device, 5)


def measure_scans(device: str, quick: bool) -> list[dict[str, Any]]:
    """Forward and backward of each backend, with the share of the bandwidth that its inputs and outputs need."""
    bandwidth = copying(device, 2**20 if quick else 2**27)
    rows = []
    for shape in QUICK_SHAPES if quick else SHAPES:
        arguments = arguments_of(shape, device, torch.float32)
        # inputs, outputs and gradients, each once
        num_bytes = 4 * (2 * sum(value.numel() for value in arguments.values()) + 2 * arguments["x"].numel())
        for backend in usable(device):
            seconds = seconds_of(lambda a=arguments, b=backend: forward_backward(a, b), device, 3 if quick else 5)
            rows.append(
                {"shape": shape, "backend": backend, "seconds": seconds, "bandwidth": num_bytes / seconds / bandwidth}
            )
    return rows


def measured_runs(quick: bool) -> dict[str, RunConfig]:
    """The paper's presets at their lengths, with enough data for a few batches."""
    few = ["data.num_train=256", "data.num_val=0", "data.num_test=0", "train.eval_every_steps=0"]
    if quick:
        return {"tiny-bcb": override(preset("tiny-bcb"), parse_assignments(["train.eval_every_steps=0"]), "gpu check")}
    runs = {}
    for length, patches, batch in ((80, 4, 128), (640, 8, 128), (2560, 16, 16)):
        frames = length // patches**2 + 1
        settings = [*few, f"data.recipe.num_frames={frames}", f"data.recipe.patches_per_side={patches}"]
        settings += [f"train.batch_size={batch}"]
        runs[f"paper-bcb, L = {length}, batch {batch}"] = override(
            preset("paper-bcb"), parse_assignments(settings), "gpu check"
        )
    runs["paper-oc, batch 32"] = override(preset("paper-oc"), parse_assignments(few), "gpu check")
    return runs


def measure_training(device: str, folder: Path, quick: bool) -> list[dict[str, Any]]:
    """Seconds, memory and waiting for data of training steps."""
    rows = []
    for name, config in measured_runs(quick).items():
        for precision in ("no", "bf16"):
            chosen = override(config, {"train": {"precision": precision}}, "gpu check")
            data = ensure_own_data(chosen, folder)
            trainer = Trainer(chosen, spec_of(chosen.data), data, RunDirectory(folder / "unused"), device)
            waited, count = 0.0, 3 if quick else 8
            if device == "cuda":
                torch.cuda.reset_peak_memory_stats()
            with trainer.loader, numerics(chosen.train, device):
                batches = trainer.loader.batches(0)
                for _ in range(2):
                    trainer._take_step(next(batches)[1])
                synchronize(device)
                began = time.perf_counter()
                for _ in range(count):
                    asked = time.perf_counter()
                    batch = next(batches)[1]
                    waited += time.perf_counter() - asked
                    trainer._take_step(batch)
                synchronize(device)
                seconds = (time.perf_counter() - began) / count
            frames = (chosen.train.clip_len or trainer.spec.num_frames) * chosen.train.batch_size
            rows.append(
                {
                    "run": name,
                    "precision": precision,
                    "seconds": seconds,
                    "frames_per_s": frames / seconds,
                    "waiting": waited / count / seconds,
                    "memory_gib": torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None,
                }
            )
    return rows


def table(found: dict[str, Any]) -> str:
    """The measurements as tables for docs/gpu.md."""
    lines = [
        f"{found['device']}, torch {torch.__version__}",
        "",
        "| scan (batch, L, E, N) | backend | forward + backward | bandwidth |",
    ]
    lines += ["|---|---|---|---|"]
    for row in found["scans"]:
        shown = f"{1e3 * row['seconds']:.2f} ms | {row['bandwidth']:.0%}"
        lines.append(f"| {tuple(row['shape'])} | `{row['backend']}` | {shown} |")
    lines += [
        "",
        "| training step | precision | time | frames a second | waiting for data | memory |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["training"]:
        memory = "–" if row["memory_gib"] is None else f"{row['memory_gib']:.1f} GiB"
        shown = f"{1e3 * row['seconds']:.0f} ms | {row['frames_per_s']:,.0f} | {row['waiting']:.0%} | {memory}"
        lines.append(f"| {row['run']} | {row['precision']} | {shown} |")
    return "\n".join(lines)


def main() -> int:
    """Check, measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("skipped: torch finds no CUDA GPU here")
        return 0
    device, began = options.device, time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        found: dict[str, Any] = {
            "device": torch.cuda.get_device_name() if device == "cuda" else "CPU",
            "machine": machine(),
            "kernels": check_kernels(device),
            "steps": check_steps(device),
            "losses": check_training(device, folder),
            "scans": measure_scans(device, options.quick),
            "training": measure_training(device, folder, options.quick),
        }
    found["seconds"] = time.perf_counter() - began
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    for name, error in found["kernels"].items():
        print(f"{name:<24} differs from the reference by {error:.1e}")
    print(f"{'sequence and steps':<24} differ by {found['steps']:.1e}")
    print(table(found))
    print(f"all checks passed in {found['seconds']:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
