"""The scores that a run logs while it trains."""

from pathlib import Path

from slotssm.data.episodes import EpisodeFile
from slotssm.evaluation.evaluate import evaluate
from slotssm.evaluation.sources import TaskSource
from slotssm.tasks import Recall, Task


def validate(task: Task, data: Path, split: str, num_episodes: int) -> dict[str, float]:
    """Metric names to values over the first episodes of a split; what cannot be scored is left out.

    Errors of roll-outs come with that of repeating the last context frame, which a model must beat.
    """
    names = ["mse"] + (["color-accuracy", "position-iou"] if isinstance(task, Recall) else [])
    with EpisodeFile(data) as truth:
        if task.has_masks and truth.has(split, "masks"):
            names += ["fg-ari", "miou"]
        report = evaluate(TaskSource(task), truth, split, names, num_episodes=num_episodes)
    baselines = {
        f"{result.metric}-repeat-last-frame": result.details["repeat_last_frame"]
        for result in report.results
        if "repeat_last_frame" in result.details
    }
    return report.values() | baselines
