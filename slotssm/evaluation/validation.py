"""The scores that a run logs while it trains."""

from pathlib import Path

import numpy as np

from slotssm.data.episodes import EpisodeFile
from slotssm.evaluation.evaluate import BATCH_EPISODES, evaluate, has_per_frame_ids, possible_metrics
from slotssm.evaluation.options import ScoringOptions
from slotssm.evaluation.sources import TaskSource
from slotssm.tasks import Task

MEAN_IMAGE = "mse-mean-image"
"""Name of the error of painting the mean image."""


def validate(task: Task, data: Path, split: str, num_episodes: int, batch_episodes: int) -> dict[str, float]:
    """Metric names to values over the first episodes of a split; what cannot be scored is left out.

    Errors come with those that a model must beat: of roll-outs with that of repeating the last context frame, of
    reconstructions with that of painting the mean image. Segmentation is scored per video, and per frame where ids in
    the true masks name objects within a frame only.

    Args:
        task: what is validated.
        data: episode file.
        split: which split.
        num_episodes: at most so many episodes, from the first on.
        batch_episodes: how many are predicted at a time.
    """
    with EpisodeFile(data) as truth:
        source, options = TaskSource(task), ScoringOptions(per_frame=has_per_frame_ids(truth, split))
        possible = possible_metrics(source, truth, split)
        names = [name for name in task.validated if name in possible]
        if not names:
            return {}
        batch_episodes = min(batch_episodes, BATCH_EPISODES)
        report = evaluate(source, truth, split, names, options, num_episodes, batch_episodes=batch_episodes)
        floors = {}
        if task.is_collapsed_at_mean_image:
            floors = {MEAN_IMAGE: mean_image_error(truth, split, num_episodes)}
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
