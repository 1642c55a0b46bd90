"""The best validation of a training: which checkpoint is kept, and when there is nothing left to wait for."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slotssm.config import TrainConfig
from slotssm.data.episodes import EpisodeFile
from slotssm.errors import InputError
from slotssm.evaluation.catalog import METRICS
from slotssm.evaluation.validation import validated_metrics
from slotssm.tasks import Task, refuse_unvalidated


@dataclass
class BestValidation:
    """Follows one metric over the validations of a run; a pure function of the lines of metrics.jsonl.

    Attributes:
        metric: its name; empty follows nothing.
        patience: validations in a row without a better value after which it is over; 0 never is.
        min_improvement: relative change that counts as better for `patience`.
        first_step: validations up to this step do not count for `patience`, since another phase of training follows.
        value: the best value so far; None before the first.
        waited: validations since the last one that counted.
    """

    metric: str
    patience: int = 0
    min_improvement: float = 0.0
    first_step: int = 0
    value: float | None = None
    waited: int = 0
    _counted: float | None = None

    @classmethod
    def of(cls, train: TrainConfig, first_step: int = 0) -> "BestValidation":
        """With the settings of a training, whose last phase begins after `first_step` steps."""
        return cls(train.keep_best, train.patience, train.min_improvement, first_step)

    @property
    def is_over(self) -> bool:
        """Whether the metric has not become better for `patience` validations."""
        return 0 < self.patience <= self.waited

    def improves(self, line: Mapping[str, Any]) -> bool:
        """Take in a line of metrics.jsonl; returns whether it is the best validation so far."""
        value = line.get(self.metric) if self.metric and line["split"] == "val" else None
        if value is None:
            return False
        self.waited += 1
        is_early = line["step"] <= self.first_step
        if self._counted is None or is_early or self._is_clearly_better(value, self._counted):
            self._counted, self.waited = value, 0
        if self.value is not None and not METRICS[self.metric].is_better(value, self.value):
            return False
        self.value = value
        return True

    def _is_clearly_better(self, value: float, than: float) -> bool:
        return METRICS[self.metric].is_better(value, than) and abs(value - than) > self.min_improvement * abs(than)


def check_metric(metric: str, task: Task, data: Path) -> None:
    """Refuse a metric to keep the best by that cannot be validated on an episode file."""
    with EpisodeFile(data) as episodes:
        if "val" not in episodes.splits or not episodes.num_episodes("val"):
            raise InputError(f"train.keep_best {metric} needs validations, and {data} has no episodes in split val")
    refuse_unvalidated(metric, validated_metrics(task, data, "val"))


def warn_of_labels(metric: str) -> None:
    """Warn that a checkpoint is chosen by labels, if its metric uses any; without a metric, nothing is chosen."""
    if metric and METRICS[metric].uses_labels:
        logging.getLogger("slotssm").warning(
            f"train.keep_best {metric} chooses by labels ({', '.join(METRICS[metric].truth)}) of split val: "
            "its scores are not unsupervised"
        )
