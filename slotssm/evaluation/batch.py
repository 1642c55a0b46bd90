"""What a metric is, and what it scores: the truth and the predictions of a batch of episodes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from slotssm import metrics
from slotssm.evaluation.options import ScoringOptions
from slotssm.evaluation.sources import Predicted
from slotssm.metrics import MeanDepth, Scores, Tables

RULE = "rule"
"""In `Metric.truth`: the metric is only defined for Blinking Color Balls."""


@dataclass(frozen=True)
class Truth:
    """The truth of consecutive episodes.

    Attributes:
        fields: the fields that the metrics need, by name: `frames` uint8 [E, T, H, W, 3], `masks` uint8 [E, T, H, W].
        palette: uint8 [C, 3] if every pixel has one of these colours, else None.
        rule: colour rule of Blinking Color Balls; empty for other data.
        mean_depth: the mean-depth image, if a metric of depth is computed.
    """

    fields: Mapping[str, np.ndarray]
    palette: np.ndarray | None = None
    rule: str = ""
    mean_depth: MeanDepth | None = None

    def __getitem__(self, name: str) -> np.ndarray:
        return self.fields[name]


@dataclass(frozen=True)
class Batch:
    """Truth and predictions of consecutive episodes."""

    truth: Truth
    predicted: Predicted

    @cached_property
    def tables(self) -> list[Tables]:
        """Contingency tables of the masks, computed once for all metrics and conventions.

        Predicted masks of fewer frames than the truth are those of its last frames.
        """
        predicted = self.predicted["masks"]
        return metrics.contingency(self.truth["masks"][:, -predicted.shape[1] :], predicted)


@dataclass(frozen=True)
class BatchScores:
    """Scores of one batch of episodes.

    Attributes:
        scores: values of the metric.
        details: further values to report, each [E, ...].
    """

    scores: Scores
    details: dict[str, np.ndarray] = field(default_factory=dict)


def mean_details(details: dict[str, np.ndarray]) -> dict[str, Any]:
    """Mean of every detail over episodes."""
    return {name: values.mean(axis=0).tolist() for name, values in details.items()}


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        truth: true fields that it needs.
        predicted: predicted outputs that it reads.
        options: scoring options that affect it, or turn it into another metric.
        score: scores a batch; None if all episodes are needed at once (`slotssm.evaluation.probes`).
        min_side_px: shortest side of a frame for which it is defined.
        by_default: False if it is only computed when named.
        needs_stable_ids: whether object ids must be stable over time (for segmentation scores: unless frames are
            scored separately).
        lower_is_better: whether a lower value is better, as of errors.
        conclude: turns the details [E, ...] of all episodes into reported values.
        optional: further true fields that it reads if there are any.
    """

    truth: tuple[str, ...]
    predicted: tuple[str, ...]
    options: tuple[str, ...]
    score: Callable[[Batch, ScoringOptions], BatchScores] | None
    min_side_px: int = 1
    by_default: bool = True
    needs_stable_ids: bool = False
    lower_is_better: bool = False
    conclude: Callable[[dict[str, np.ndarray]], dict[str, Any]] = mean_details
    optional: tuple[str, ...] = ()

    @property
    def uses_labels(self) -> bool:
        """Whether it reads more of the truth than frames and depth, which are what models without labels learn from."""
        return bool(set(self.truth) - {"frames", "depth", RULE})

    def is_better(self, value: float, other: float) -> bool:
        """Whether a value is better than another one."""
        return value < other if self.lower_is_better else value > other


def by_episode(values: np.ndarray, unit: str = "episode") -> Scores:
    """Scores from one value per episode; NaN marks episodes that could not be scored."""
    known = np.isfinite(values)
    return Scores(values[known], np.flatnonzero(known), int((~known).sum()), unit)
