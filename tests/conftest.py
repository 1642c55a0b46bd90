"""Shared fixtures; annotations of tensors are checked while the tests run."""

import os
import signal

import pytest
from jaxtyping import install_import_hook

# shapes and dtypes in signatures become assertions, before anything of the package is imported;
# numba's kernels are left alone, since it cannot cache wrapped functions
CHECKED = ["slotssm.layers", "slotssm.models", "slotssm.tasks"]
CHECKED += [
    f"slotssm.ops.{name}" for name in ("selective_scan", "reference", "ssd", "diagonal", "state_passing", "convolution")
]
install_import_hook(CHECKED, "beartype.beartype")

# one process a core, one thread a process: threads of several processes would slow each other down, and their number
# changes the rounding of what tests compare
os.environ.setdefault("OMP_NUM_THREADS", "1")

# a shell has its background jobs ignore Ctrl-C, and the programs that the tests start would inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _reproducible() -> None:
    """Every test starts from the same torch seed."""
    import torch

    torch.manual_seed(0)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Environment of subprocesses: one thread, plain output, tracebacks off."""
    settings = {"OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "160"}
    return {**{k: v for k, v in os.environ.items() if k != "SLOTSSM_DEBUG"}, **settings}


@pytest.fixture
def axes(monkeypatch):
    """The axes of every figure that is written."""
    from matplotlib.figure import Figure

    kept, save = [], Figure.savefig

    def keep(figure, *arguments, **options):
        kept.extend(axis for axis in figure.axes if axis not in kept)
        return save(figure, *arguments, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    return kept
