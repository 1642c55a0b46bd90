"""Episode files and predictions files, written with plain h5py as anybody would."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from generators.colors import COLORS
from slotssm.data.episodes import EpisodeFile
from slotssm.evaluation import FileSource, ScoringOptions, evaluate

MOVING, FIXED = ("time", "object"), ("object",)
AXES = {
    "frames": ("time", "height", "width", "channel"),
    "masks": ("time", "height", "width"),
    "depth": ("time", "height", "width"),
}
PALETTE = np.array([(0, 0, 0), *list(COLORS.values())[:6]], np.uint8)


def write(path: Path, split: str = "test", attrs: dict[str, Any] | None = None, **datasets: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs.update(attrs or {})
        for name, values in datasets.items():
            file[f"{split}/{name}"] = values
    return path


def write_truth(path: Path, split: str = "test", palette: bool = False, **datasets: np.ndarray) -> Path:
    attrs = {"format": "slotssm-episodes", "format_version": 2}
    write(path, split, attrs | ({"palette": PALETTE, "rule": "earliest"} if palette else {}), **datasets)
    with h5py.File(path, "r+") as file:
        for name, values in datasets.items():
            name_axes(file[f"{split}/{name}"], axes_of(name, np.ndim(values)))
    return path


def axes_of(name: str, num_axes: int) -> tuple[str, ...]:
    """The first axes of a dataset after the episode's: properties with more than one are taken to change in time."""
    return AXES.get(name, MOVING if num_axes > 2 else FIXED)


def name_axes(dataset: h5py.Dataset, axes: tuple[str, ...]) -> None:
    """Write the attribute `dims`: episode, these axes, and `column` for a further one."""
    named = ("episode", *axes, *(f"column_{index}" for index in range(dataset.ndim)))
    dataset.attrs["dims"] = json.dumps(named[: dataset.ndim])


def loosen(path: Path, split: str = "test") -> Path:
    """Mark the ids in the masks as names within a frame, as importers do."""
    with h5py.File(path, "r+") as file:
        file[f"{split}/masks"].attrs["ids"] = "per-frame"
    return path


def score(
    truth: Path, predictions: Path, *names: str, num_episodes: int | None = None, batch: int = 16, **options: Any
):
    """The results of `evaluate` by metric, `batch` episodes read at a time."""
    read: list[int] = []
    with EpisodeFile(truth, needs_frames=False) as episodes:
        report = evaluate(
            FileSource(predictions, "test"),
            episodes,
            "test",
            names,
            ScoringOptions(**options),
            num_episodes,
            on_progress=lambda done, total: read.append(done),
            batch_episodes=batch,
        )
    assert np.diff(read).tolist()[:1] == [min(batch, read[-1])]
    return {result.metric: result for result in report.results}


def random_masks(num: int = 5, frames: int = 3, size: int = 8, seed: int = 0) -> np.ndarray:
    """uint8 [num, frames, size, size]: background and three objects, all of them present in every frame."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([rng.permuted(np.arange(size * size) % 4) for _ in range(num * frames)])
    return labels.reshape(num, frames, size, size).astype(np.uint8)
