"""How many training steps a second: the presets for a CPU, beside a plain reference and beside another source tree.

Usage:
    python benchmarks/training.py [--settings NAME,...] [--tree DIR ...] [--threads N] [--repeats R] [--json]

Every variant is two processes that train the same run side by side, each with `--threads` threads, as the cells of a
reproduction or a sweep are. Variants take turns within every repeat, so that a disturbance of the machine meets all of
them; a turn is at least `TURN_S` seconds of steps, and every line is the median over turns. A step is that of the
trainer, from the batch to the updated weights.

`ours` is this source tree in float32, `bf16` the same with `train.precision` bf16. `plain` is the same model with
mamba.py's block (the package mambapy) in place of Mamba and torch's fused attention in place of the kernel for slots.
`--tree DIR` adds another source tree, such as an older commit in a worktree, to compare with.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TURN_S = 2.0
LONG = {"num_frames": 11, "patches_per_side": 16, "size_px": 64}
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "cpu-oc": ("cpu-oc", {}),
    "cpu-bcb L=5": ("cpu-bcb", {"task": {"patches_per_side": 1, "curriculum": []}}),
    "cpu-bcb L=80": ("cpu-bcb", {"task": {"curriculum": []}}),
    "cpu-bcb L=320": ("cpu-bcb", {"task": {"patches_per_side": 8, "curriculum": []}}),
    "cpu-bcb L=2560": ("cpu-bcb", {"data": {"recipe": LONG}, "task": {"curriculum": []}, "train": {"batch_size": 2}}),
    "cpu-balls": ("cpu-balls", {}),
}
"""Preset and changes by name."""
FEW_EPISODES = {"num_train": 64, "num_val": 0, "num_test": 0}
PEERS = 2
"""Processes that train side by side."""


# --- in a process of a variant ------------------------------------------------------------------------------


def serve(setting: str, variant: str, folder: Path) -> None:
    """Take as many steps as each line of the standard input says, and print how long they took."""
    import time

    from slotssm.documents import override
    from slotssm.experiments.datasets import ensure_own_data, spec_of
    from slotssm.experiments.presets import preset
    from slotssm.training.run import RunDirectory
    from slotssm.training.trainer import Trainer

    name, changes = SETTINGS[setting]
    few = {"data": FEW_EPISODES, "train": {"precision": "bf16" if variant == "bf16" else "no"}}
    config = override(override(preset(name), changes, setting), few, setting)
    data = ensure_own_data(config, folder / "data", lambda done, total: None)
    trainer = Trainer(config, spec_of(config.data), data, RunDirectory(folder / f"run-{os.getpid()}"), "cpu")
    if variant == "plain":
        _make_plain(trainer.task)
    else:
        _keep_freed_memory()
    batches = trainer.loader.batches(0)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            trainer._take_step(next(batches)[1])
        print(time.perf_counter() - start, flush=True)
    trainer.loader.close()


def _keep_freed_memory() -> None:
    try:
        from slotssm.training.device import keep_freed_memory
    except ImportError:
        return  # an older tree
    keep_freed_memory()


def _make_plain(task: Any) -> None:
    """Replace every Mamba by mamba.py's block, and the attention kernel by torch's attention."""
    from mambapy.mamba import MambaBlock, MambaConfig
    from torch import nn

    from slotssm.layers import Mamba
    from slotssm.ops import attention

    class Block(nn.Module):
        def __init__(self, ours: Mamba) -> None:
            super().__init__()
            config = MambaConfig(ours.d_model, n_layers=1, d_state=ours.d_state, d_conv=ours.d_conv)
            config.d_inner = ours.d_inner
            self.block = MambaBlock(config)

        def forward(self, u: Any, state: Any = None) -> tuple[Any, Any]:
            return self.block(u), state

    attention.LEAST_ROWS = sys.maxsize
    for module in list(task.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Mamba):
                setattr(module, name, Block(child))


# --- in the process that measures ---------------------------------------------------------------------------


class Variant:
    """Two processes that train side by side."""

    def __init__(self, setting: str, tree: Path, name: str, threads: int, folder: Path) -> None:
        environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, __file__, "--serve", setting, "--variant", name, "--folder", str(folder)]
        self._processes = [
            subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(PEERS)
        ]
        self.steps = 1
        self.turn()
        self.steps = max(1, round(TURN_S / min(self.turn() for _ in range(2))))

    def turn(self) -> float:
        """Seconds that the slower process takes for the steps of a turn."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{self.steps}\n")
            process.stdin.flush()
        times = []
        for process in self._processes:
            assert process.stdout is not None
            times.append(float(process.stdout.readline()))
        return max(times)

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.communicate()


def measure(setting: str, trees: list[Path], threads: int, repeats: int) -> dict[str, float]:
    """Median steps per second and process, by variant."""
    here = Path(__file__).resolve().parents[1]
    with tempfile.TemporaryDirectory() as folder:
        sources = {"ours": here, "bf16": here, "plain": here, **{str(tree): tree.resolve() for tree in trees}}
        variants = {
            name: Variant(setting, tree, name, threads, Path(folder) / str(number))
            for number, (name, tree) in enumerate(sources.items())
        }
        rates: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(repeats):
            for name, variant in variants.items():
                rates[name].append(variant.steps / variant.turn())
        for variant in variants.values():
            variant.close()
    return {name: statistics.median(found) for name, found in rates.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", default=",".join(SETTINGS))
    parser.add_argument("--tree", type=Path, action="append", default=[])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.variant, arguments.folder)
        return
    from slotssm.experiments.measurement.provenance import machine

    found = {}
    for setting in arguments.settings.split(","):
        rates = found[setting] = measure(setting, arguments.tree, arguments.threads, arguments.repeats)
        if not arguments.json:
            others = "   ".join(
                f"{rates['ours'] / rate:.2f} x {name}" for name, rate in rates.items() if name != "ours"
            )
            print(f"{setting:16} {rates['ours']:7.2f} steps/s   {others}", flush=True)
    if arguments.json:
        print(json.dumps({"steps_per_s": found, "machine": machine()}, indent=2))


if __name__ == "__main__":
    main()
