"""Validation scores that a run logs during training."""

from pathlib import Path

import numpy as np

from slotssm.data.episodes import EpisodeFile
from slotssm.evaluation.evaluate import (
    BATCH_EPISODES,
    WHOLE,
    Division,
    evaluate,
    has_per_frame_ids,
    possible_metrics,
)
from slotssm.evaluation.options import ScoringOptions
from slotssm.evaluation.sources import TaskSource
from slotssm.tasks import Task

BASELINES = ("repeat_last_frame", "mean_depth")
"""Details of results that are logged with them."""
MEAN_IMAGE = "mse-mean-image"
"""Name of the error of the mean-image baseline."""


def validated_metrics(task: Task, data: Path, split: str) -> list[str]:
    """Metrics that `validate` computes for a task on a split."""
    with EpisodeFile(data) as truth:
        possible = possible_metrics(TaskSource(task), truth, split)
    return [name for name in task.validated if name in possible]


def validate(
    task: Task, data: Path, split: str, num_episodes: int, batch_episodes: int, division: Division = WHOLE
) -> dict[str, float]:
    """Metric values by name over the first episodes of a split; metrics that cannot be scored are left out.

    Errors come with a baseline that a model must beat: for roll-outs, repeating the last context frame; for
    reconstructions, predicting the mean image; for depth, the mean-depth image. Segmentation is scored per video, or
    per frame if ids in the true masks identify objects within a frame only.

    Args:
        task: the task to validate.
        data: episode file.
        split: split to score.
        num_episodes: largest number of episodes, from the first on.
        batch_episodes: episodes that are predicted at a time.
        division: the processes that share the episodes; all get the same values.
    """
    with EpisodeFile(data) as truth:
        source, options = TaskSource(task), ScoringOptions(per_frame=has_per_frame_ids(truth, split))
        possible = possible_metrics(source, truth, split)
        names = [name for name in task.validated if name in possible]
        if not names:
            return {}
        batch_episodes = min(batch_episodes, BATCH_EPISODES)
        report = evaluate(
            source, truth, split, names, options, num_episodes, batch_episodes=batch_episodes, division=division
        )
        baselines = {}
        if task.is_collapsed_at_mean_image:
            baselines[MEAN_IMAGE] = mean_image_error(truth, split, num_episodes)
    baselines |= {
        f"{result.metric}-{baseline.replace('_', '-')}": result.details[baseline]
        for result in report.results
        for baseline in BASELINES
        if baseline in result.details
    }
    return report.values() | baselines


def mean_image_error(truth: EpisodeFile, split: str, num_episodes: int) -> float:
    """Mean squared error of predicting the mean of all frames of the first episodes, pixels in [0, 1]."""
    frames = truth.dataset(split, "frames")
    count = min(num_episodes, len(frames))
    total, squares = np.zeros(frames.shape[2:]), np.zeros(frames.shape[2:])
    for index in range(count):
        video = truth.read(split, "frames", index) / 255
        total += video.sum(axis=0)
        squares += np.square(video).sum(axis=0)
    num_frames = count * frames.shape[1]
    return float((squares / num_frames - np.square(total / num_frames)).mean())
