"""What a metric returns: one value for every unit scored, and how many units could not be scored."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Scores:
    """Values of a metric.

    Attributes:
        values: float64, one for each unit that was scored.
        groups: int, the episode that each value belongs to.
        num_skipped: units that could not be scored and are not in `values`.
        unit: what a value stands for: `video`, `frame`, `clip`, `object` or `episode`.
    """

    values: np.ndarray
    groups: np.ndarray
    num_skipped: int
    unit: str

    @property
    def mean(self) -> float | None:
        """Mean over units; None when nothing could be scored."""
        return float(self.values.mean()) if len(self.values) else None

    @property
    def num_units(self) -> int:
        """Units scored."""
        return len(self.values)

    def interval(self, seed: int, confidence: float = 0.95) -> tuple[float, float] | None:
        """Bootstrap interval of the mean over episodes; None with fewer than two episodes."""
        return bootstrap_interval(self.values, self.groups, seed, confidence)


def bootstrap_interval(
    values: ArrayLike, groups: ArrayLike, seed: int, confidence: float = 0.95, num_resamples: int = 2000
) -> tuple[float, float] | None:
    """Percentile bootstrap of the mean; whole episodes are resampled, since units of one are not independent.

    Args:
        values: [U] one for each unit.
        groups: [U] episode of each unit.
        seed: of the resampling.
        confidence: share of the distribution inside the interval.
        num_resamples: resamples drawn.

    Returns:
        Lower and upper end, or None with fewer than two episodes.
    """
    array = np.asarray(values, np.float64)
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    num_groups = int(index.max()) + 1 if len(index) else 0
    if num_groups < 2:
        return None
    sums, counts = np.bincount(index, array), np.bincount(index)
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), size=num_resamples)
    means = (draws @ sums) / (draws @ counts)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
