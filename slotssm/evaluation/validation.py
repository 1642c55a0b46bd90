"""The scores that a run logs while it trains."""

from pathlib import Path

from slotssm.data.episodes import EpisodeFile
from slotssm.evaluation.evaluate import evaluate
from slotssm.evaluation.sources import TaskSource
from slotssm.tasks import Recall, Task


def validate(task: Task, data: Path, split: str, num_episodes: int) -> dict[str, float]:
    """Metric names to values over the first episodes of a split; what cannot be scored is left out."""
    with EpisodeFile(data) as truth:
        if isinstance(task, Recall):
            names = ["mse", "color-accuracy", "position-iou"]
        else:
            names = ["mse"] + (["fg-ari", "miou"] if truth.has(split, "masks") else [])
        return evaluate(TaskSource(task), truth, split, names, num_episodes=num_episodes).values()
