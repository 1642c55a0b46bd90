"""The scores that a run logs while it trains."""

from pathlib import Path

import numpy as np

from slotssm.data.episodes import EpisodeFile
from slotssm.evaluation.evaluate import evaluate, ids_change
from slotssm.evaluation.options import ScoringOptions
from slotssm.evaluation.sources import TaskSource
from slotssm.tasks import Recall, Reconstruct, Task

MEAN_IMAGE = "mse-mean-image"
"""Name of the error of painting the mean image."""


def validate(task: Task, data: Path, split: str, num_episodes: int) -> dict[str, float]:
    """Metric names to values over the first episodes of a split; what cannot be scored is left out.

    Errors come with those that a model must beat: of roll-outs with that of repeating the last context frame, of
    reconstructions with that of painting the mean image. Segmentation is scored per video, and per frame where ids in
    the true masks name objects within a frame only.
    """
    names = ["mse"] + (["color-accuracy", "position-iou"] if isinstance(task, Recall) else [])
    with EpisodeFile(data) as truth:
        if task.has_masks and truth.has(split, "masks"):
            names += ["fg-ari", "miou"]
        options = ScoringOptions(per_frame=ids_change(truth, split))
        report = evaluate(TaskSource(task), truth, split, names, options, num_episodes)
        floors = {MEAN_IMAGE: mean_image_error(truth, split, num_episodes)} if isinstance(task, Reconstruct) else {}
    baselines = {
        f"{result.metric}-repeat-last-frame": result.details["repeat_last_frame"]
        for result in report.results
        if "repeat_last_frame" in result.details
    }
    return report.values() | baselines | floors


def mean_image_error(truth: EpisodeFile, split: str, num_episodes: int) -> float:
    """Squared error of the mean of all frames of the first episodes, for each of them, pixels in [0, 1]."""
    frames = truth.dataset(split, "frames")
    count = min(num_episodes, len(frames))
    total, squares = np.zeros(frames.shape[2:]), np.zeros(frames.shape[2:])
    for index in range(count):
        video = truth.read(split, "frames", index) / 255
        total += video.sum(axis=0)
        squares += np.square(video).sum(axis=0)
    num_frames = count * frames.shape[1]
    return float((squares / num_frames - np.square(total / num_frames)).mean())
