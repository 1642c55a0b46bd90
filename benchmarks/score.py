"""How fast FG-ARI is computed, beside scikit-learn in a loop and one-hot matrices.

Usage:
    python benchmarks/score.py [--videos V] [--frames T] [--size PX] [--loop-videos V] [--repeats R] [--json]

Masks are moving discs; the prediction lies a few pixels off, with two pixels of a hundred anything at all. All ways
score the same masks, and before anything is timed they must agree to 1e-9. Ways take turns within every repeat, and
each line is the median of R repeats. `scikit-learn` calls adjusted_rand_score for every frame, on the first
--loop-videos alone, and its time is scaled to all of them. `one-hot` multiplies one-hot matrices in torch, video by
video, as code bases in jax and torch do (SAVi's `adjusted_rand_index`). `all conventions` is what
`slotssm eval --conventions all` computes once it has the masks: four scores under every convention. Memory is the
highest rise of the process's resident memory while a way runs (Linux only); the masks themselves are there already.
"""

import argparse
import inspect
import json
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import adjusted_rand_score

from slotssm.evaluation.conventions import CONVENTIONS
from slotssm.experiments.measurement.provenance import machine
from slotssm.metrics import ari, contingency, fg_ari, mbo, miou

OBJECTS, SLOTS = 6, 8
PEER = "scikit-learn, per frame"
TARGET = 20
"""Times as fast as scikit-learn, per frame, that the project asks of itself."""
STATM = Path("/proc/self/statm")
SAMPLE_EVERY_S = 2e-3


def moving_discs(num: int, frames: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """True and predicted masks, uint8 [num, frames, size, size]."""
    rng = np.random.default_rng(0)
    grid = np.arange(size, dtype=np.float32)
    true = np.zeros((num, frames, size, size), np.uint8)
    for video in true:
        places, ways = rng.uniform(0, size, (OBJECTS, 2)), rng.uniform(-2, 2, (OBJECTS, 2))
        radii = rng.uniform(size / 16, size / 6, OBJECTS)
        for t, frame in enumerate(video):
            for number, (place, way, radius) in enumerate(zip(places, ways, radii, strict=True), 1):
                x, y = place + t * way
                frame[(grid[None] - x) ** 2 + (grid[:, None] - y) ** 2 < radius**2] = number
    pred = np.roll(true, 3, axis=3)
    noisy = rng.integers(0, pred.size, pred.size // 50)
    pred.reshape(-1)[noisy] = rng.integers(0, SLOTS, len(noisy), dtype=np.uint8)
    return true, pred


# --- the peers --------------------------------------------------------------------------------------------


def by_scikit_learn(true: np.ndarray, pred: np.ndarray) -> list[float]:
    """FG-ARI of every frame that has a foreground."""
    frames = zip(true.reshape(-1, *true.shape[2:]), pred.reshape(-1, *pred.shape[2:]), strict=True)
    return [adjusted_rand_score(t[t > 0], p[t > 0]) for t, p in frames if (t > 0).any()]


def by_one_hot(true: np.ndarray, pred: np.ndarray, per_frame: bool) -> list[float]:
    """FG-ARI from products of one-hot matrices, restated from the formula; units without foreground left out."""
    found: list[float] = []
    for t, p in zip(true, pred, strict=True):
        units = len(t) if per_frame else 1
        objects = F.one_hot(torch.from_numpy(t).long(), OBJECTS + 1)[..., 1:].float().reshape(units, -1, OBJECTS)
        slots = F.one_hot(torch.from_numpy(p).long(), SLOTS).float().reshape(units, -1, SLOTS)
        table = torch.einsum("upc,upk->uck", objects, slots).double()
        rows, columns, total = table.sum(2), table.sum(1), table.sum((1, 2))
        both = (table * (table - 1)).sum((1, 2))
        a, b = (rows * (rows - 1)).sum(1), (columns * (columns - 1)).sum(1)
        expected = a * b / (total * (total - 1)).clamp(min=1)
        largest = (a + b) / 2
        index = torch.where(largest == expected, 1.0, (both - expected) / (largest - expected))
        found += index[total > 0].tolist()
    return found


# --- measuring --------------------------------------------------------------------------------------------


class Watch:
    """Time and highest resident memory of what runs inside."""

    def __enter__(self) -> "Watch":
        self.rise_bytes = 0
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample, args=(self._resident(),))
        if STATM.exists():
            self._sampler.start()
        self._began = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._began
        self._ended.set()
        if self._sampler.ident is not None:
            self._sampler.join()

    def _sample(self, before: int) -> None:
        while not self._ended.wait(SAMPLE_EVERY_S):
            self.rise_bytes = max(self.rise_bytes, self._resident() - before)

    @staticmethod
    def _resident() -> int:
        return int(STATM.read_text().split()[1]) * 4096 if STATM.exists() else 0


def every_convention(true: np.ndarray, pred: np.ndarray) -> None:
    """Four scores under every convention, from tables that are counted once."""
    tables = contingency(true, pred)
    for changes in CONVENTIONS.values():
        for score in (fg_ari, ari, miou, mbo):
            known = inspect.signature(score).parameters
            score(tables, **{name: value for name, value in changes.items() if name in known})


def check(true: np.ndarray, pred: np.ndarray) -> None:
    """All ways must agree before any is timed."""
    frames, videos = fg_ari(true, pred, per_frame=True).values, fg_ari(true, pred).values
    np.testing.assert_allclose(frames, by_scikit_learn(true, pred), rtol=0, atol=1e-9)
    np.testing.assert_allclose(frames, by_one_hot(true, pred, True), rtol=0, atol=1e-9)
    np.testing.assert_allclose(videos, by_one_hot(true, pred, False), rtol=0, atol=1e-9)


def measure(true: np.ndarray, pred: np.ndarray, num_looped: int, repeats: int) -> dict[str, dict[str, float]]:
    """Median seconds for all videos, and the highest rise of memory, of every way."""
    few = true[:num_looped], pred[:num_looped]
    check(*few)
    scale = len(true) / len(few[0])
    jobs: dict[str, tuple[Callable[[], object], float]] = {
        "ours, per frame": (lambda: fg_ari(true, pred, per_frame=True), 1),
        "ours, per video": (lambda: fg_ari(true, pred), 1),
        "ours, all conventions": (lambda: every_convention(true, pred), 1),
        "one-hot, per frame": (lambda: by_one_hot(true, pred, True), 1),
        "one-hot, per video": (lambda: by_one_hot(true, pred, False), 1),
        PEER: (lambda: by_scikit_learn(*few), scale),
    }
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    rises = dict.fromkeys(jobs, 0)
    for _ in range(repeats):
        for name, (job, times) in jobs.items():
            with Watch() as watch:
                job()
            seconds[name].append(times * watch.seconds)
            rises[name] = max(rises[name], watch.rise_bytes)
    return {name: {"seconds": statistics.median(seconds[name]), "rise_bytes": rises[name]} for name in jobs}


def report(found: dict[str, dict[str, float]], true: np.ndarray, num_looped: int, repeats: int) -> str:
    """The table that a person reads."""
    facts, peer = machine(), found[PEER]["seconds"]
    shape = " x ".join(map(str, true.shape))
    reached = peer / found["ours, per frame"]["seconds"]
    rows = [
        f"{name:26}{each['seconds']:>10.2f}{peer / each['seconds']:>18.1f}{each['rise_bytes'] / 2**20:>14.0f}"
        for name, each in found.items()
    ]
    return "\n".join(
        [
            f"{facts['cpu']}, {facts['threads']} threads, torch {facts['torch']}",
            f"FG-ARI of {shape} masks, {OBJECTS} objects, {SLOTS} slots; median of {repeats}; scikit-learn on "
            f"{num_looped} videos, scaled",
            "",
            f"{'':26}{'seconds':>10}{'x scikit-learn':>18}{'memory, MiB':>14}",
            *rows,
            "",
            f"asked for: {TARGET} times scikit-learn per frame; reached: {'yes' if reached >= TARGET else 'no'}",
        ]
    )


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--videos", type=int, default=1000)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--size", type=int, default=128, help="pixels a side")
    parser.add_argument("--loop-videos", type=int, default=20, help="videos that scikit-learn scores")
    parser.add_argument("--repeats", type=int, default=3, help="repeats to take the median of")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    arguments = parser.parse_args()
    true, pred = moving_discs(arguments.videos, arguments.frames, arguments.size)
    num_looped = min(arguments.loop_videos, arguments.videos)
    found = measure(true, pred, num_looped, arguments.repeats)
    if not arguments.json:
        print(report(found, true, num_looped, arguments.repeats))
        return
    ratios = {name: found[PEER]["seconds"] / each["seconds"] for name, each in found.items()}
    facts = {"machine": machine(), "shape": true.shape, "scikit_learn_videos": num_looped, "repeats": arguments.repeats}
    print(json.dumps(facts | {"ways": found, "times_scikit_learn": ratios}, indent=2))


if __name__ == "__main__":
    main()
