"""How long a training step waits for its batch: read when asked for, ahead in threads, or ahead in processes.

Usage:
    python benchmarks/feeding.py [--episodes N] [--steps N] [--repeats R] [--device cpu|cuda] [--channels C] [--json]

The data are those of the preset paper-oc: `hard`, 24 frames of 128 x 128; a batch is 32 clips of 16 frames. Nothing
stays resident, as with a file that is larger than memory, and what the system has cached of the file is dropped
before each line where it lets us. A step is a stand-in: a convolution over all frames of the batch, forward and
backward. Every line is the median of R repeats, and the lines of one repeat follow each other, so that a disturbance
of the machine meets all of them.

`h5py when asked` is how batches were read before there was a loader: clip by clip through h5py and HDF5's own filter,
then stacked. Threads are those of `Loader`; processes are a `DataLoader` whose workers read the same batches.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from generators.bouncing_recipe import BouncingRecipe, bouncing_fields
from generators.writer import generate
from slotssm.config import RecipeData
from slotssm.data.clips import Clips, Phase, episode_order
from slotssm.data.loader import Loader
from slotssm.experiments.measurement.provenance import machine

BATCH_SIZE, CLIP_LEN, NUM_FRAMES, SIZE_PX = 32, 16, 24, 128
CLIPS = Clips.contiguous(CLIP_LEN)
WARM_UP = 2
"""Steps at the start of each line that are not counted."""
LIMIT = 0.05
"""Share of a step that the project lets itself wait at most."""

Batches = Iterator[dict[str, Tensor]]


# --- ways of reading --------------------------------------------------------------------------------------


def read_with_h5py(path: Path) -> Batches:
    """One clip after the other, when the batch is asked for."""
    with h5py.File(path) as file:
        frames = file["train/frames"]
        step = 0
        while True:
            rows = []
            for draw in range(step * BATCH_SIZE, (step + 1) * BATCH_SIZE):
                epoch, position = divmod(draw, len(frames))
                first = int(CLIPS.frames(NUM_FRAMES, 0, epoch, position)[0])
                rows.append(frames[int(episode_order(0, epoch, len(frames))[position]), first : first + CLIP_LEN])
            yield {"frames": torch.from_numpy(np.stack(rows))}
            step += 1


def make_loader(path: Path, workers: int, pin: bool = False) -> Loader:
    """The loader of this package."""
    options = {"phases": [Phase(BATCH_SIZE, CLIPS)], "seed": 0, "pin": pin, "cache_bytes": 0}
    return Loader(path, "train", ("frames",), workers=workers, **options)


def read_with_threads(path: Path, workers: int, pin: bool) -> Batches:
    """Ahead, in threads of this process; 0 reads when asked."""
    with make_loader(path, workers, pin) as loader:
        for _, batch in loader.batches():
            yield batch


class _Steps(Dataset[dict[str, Tensor]]):
    """The batches of a loader by their step."""

    def __init__(self, loader: Loader, num_steps: int) -> None:
        self._loader, self._num_steps = loader, num_steps

    def __len__(self) -> int:
        return self._num_steps

    def __getitem__(self, step: int) -> dict[str, Tensor]:
        return self._loader.batch(step)


def read_with_processes(path: Path, workers: int, num_steps: int, pin: bool) -> Batches:
    """Ahead, in worker processes that pass the batches on in shared memory."""
    steps = _Steps(make_loader(path, 0), num_steps)
    # as many batches ahead as the loader has
    ahead = max(1, 4 // workers)
    yield from DataLoader(
        steps,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=ahead,
        multiprocessing_context="fork",
        pin_memory=pin,
    )


# --- measuring --------------------------------------------------------------------------------------------


def make_step(device: str, channels: int) -> Callable[[dict[str, Tensor]], None]:
    """A stand-in for an optimiser step."""
    layer = torch.nn.Conv2d(3, channels, 8, stride=4, padding=2).to(device)

    def step(batch: dict[str, Tensor]) -> None:
        frames = batch["frames"].to(device, non_blocking=True).flatten(0, 1).movedim(-1, 1).float() / 255
        layer.zero_grad()
        layer(frames).square().mean().backward()
        # as training does, which looks at the loss of every step
        float(layer.bias.grad.sum())

    return step


def measure_line(batches: Batches, step: Callable[[dict[str, Tensor]], None], num_steps: int) -> dict[str, float]:
    """Seconds until the first batch, and of waiting and of computing in each later step."""
    waits, computes = [], []
    for _ in range(WARM_UP + num_steps):
        begin = time.perf_counter()
        batch = next(batches)
        ready = time.perf_counter()
        step(batch)
        waits.append(ready - begin)
        computes.append(time.perf_counter() - ready)
    wait, compute = (sum(seconds[WARM_UP:]) / num_steps for seconds in (waits, computes))
    return {"first_s": waits[0], "wait_s": wait, "compute_s": compute, "step_s": wait + compute}


def forget(path: Path) -> None:
    """Have the system drop what it has cached of a file."""
    if hasattr(os, "posix_fadvise"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(arguments: argparse.Namespace, path: Path) -> dict[str, dict[str, float]]:
    """Medians of every line."""
    step, num_steps, pin = make_step(arguments.device, arguments.channels), arguments.steps, arguments.device != "cpu"
    total = WARM_UP + num_steps
    ways: dict[str, Callable[[], Batches]] = {
        "h5py when asked": lambda: read_with_h5py(path),
        "loader when asked": lambda: read_with_threads(path, 0, pin),
        "loader, 1 thread": lambda: read_with_threads(path, 1, pin),
        "loader, 2 threads": lambda: read_with_threads(path, 2, pin),
        "loader, 4 threads": lambda: read_with_threads(path, 4, pin),
        "1 process": lambda: read_with_processes(path, 1, total, pin),
        "2 processes": lambda: read_with_processes(path, 2, total, pin),
    }
    results: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for _ in range(arguments.repeats):
        for name, read in ways.items():
            forget(path)
            batches = read()
            results[name].append(measure_line(batches, step, num_steps))
            batches.close()
    medians = {
        name: {key: statistics.median(line[key] for line in lines) for key in lines[0]}
        for name, lines in results.items()
    }
    return {name: {**line, "share_waiting": line["wait_s"] / line["step_s"]} for name, line in medians.items()}


def report(lines: dict[str, dict[str, float]], arguments: argparse.Namespace, file_bytes: int) -> str:
    """The table that a person reads."""
    facts = machine()
    best = min(lines, key=lambda name: lines[name]["step_s"])
    return "\n".join(
        [
            f"{facts['cpu']}, {facts['cores']} cores, Python {facts['python']}; steps on {arguments.device}",
            f"{arguments.episodes} episodes ({file_bytes / 2**20:.0f} MiB), batches of {BATCH_SIZE} clips of "
            f"{CLIP_LEN} frames, {SIZE_PX} x {SIZE_PX}; {arguments.steps} steps, median of {arguments.repeats}",
            "",
            f"{'':20}{'first batch':>14}{'waiting':>12}{'computing':>12}{'step':>12}{'share':>10}",
            *(
                f"{name:20}{line['first_s'] * 1e3:>11.1f} ms{line['wait_s'] * 1e3:>9.1f} ms"
                f"{line['compute_s'] * 1e3:>9.1f} ms{line['step_s'] * 1e3:>9.1f} ms{line['share_waiting']:>10.1%}"
                for name, line in lines.items()
            ),
            "",
            f"shortest steps: {best}; asked for: less than {LIMIT:.0%} of a step waiting",
        ]
    )


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--episodes", type=int, default=512, help="episodes of the file")
    parser.add_argument("--steps", type=int, default=8, help="steps of each line")
    parser.add_argument("--repeats", type=int, default=2, help="repeats to take the median of")
    parser.add_argument("--channels", type=int, default=16, help="channels of the convolution: how long a step takes")
    parser.add_argument("--device", default="cpu", help="where the steps are computed")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    arguments = parser.parse_args()
    recipe = BouncingRecipe.model_validate(bouncing_fields("hard", num_frames=NUM_FRAMES, size_px=SIZE_PX))
    with tempfile.TemporaryDirectory(prefix="bench-", dir=".") as folder:
        path = Path(folder) / "data.h5"
        generate(RecipeData(recipe=recipe, num_train=arguments.episodes, num_val=0, num_test=0), path)
        file_bytes = path.stat().st_size
        lines = measure(arguments, path)
    if not arguments.json:
        print(report(lines, arguments, file_bytes))
        return
    settings = {"batch_size": BATCH_SIZE, "clip_len": CLIP_LEN, "num_frames": NUM_FRAMES, "size_px": SIZE_PX}
    document = {"machine": machine(), **vars(arguments), **settings, "file_bytes": file_bytes, "lines": lines}
    del document["json"]
    print(json.dumps(document, indent=2))


# worker processes import this file anew
if __name__ == "__main__":
    main()
