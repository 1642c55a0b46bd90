"""Return value of metrics: one value for every scored unit, and the number of units that could not be scored."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Scores:
    """Values of a metric.

    Attributes:
        values: float64, one for each scored unit.
        groups: int, episode of each value.
        num_skipped: units that could not be scored and are not in `values`.
        unit: kind of unit: `video`, `frame`, `clip`, `object` or `episode`.
    """

    values: np.ndarray
    groups: np.ndarray
    num_skipped: int
    unit: str

    @property
    def mean(self) -> float | None:
        """Mean over units; None if nothing could be scored."""
        return float(self.values.mean()) if len(self.values) else None

    @property
    def num_units(self) -> int:
        """Units scored."""
        return len(self.values)

    def by_episode(self, num_episodes: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean value of each episode (NaN if nothing was scored), and its number of values; both [E]."""
        counts = np.bincount(self.groups, minlength=num_episodes)
        sums = np.bincount(self.groups, self.values, minlength=num_episodes)
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan), counts

    def interval(self, seed: int, confidence: float = 0.95) -> tuple[float, float] | None:
        """Bootstrap interval of the mean, resampling episodes; None with fewer than two episodes."""
        return bootstrap_interval(self.values, self.groups, seed, confidence)


def bootstrap_interval(
    values: ArrayLike, groups: ArrayLike, seed: int, confidence: float = 0.95, num_resamples: int = 2000
) -> tuple[float, float] | None:
    """Percentile bootstrap of the mean; whole episodes are resampled, since units of one episode are not independent.

    Args:
        values: [U], one for each unit.
        groups: [U], episode of each unit.
        seed: seed of the resampling.
        confidence: coverage of the interval.
        num_resamples: number of resamples.

    Returns:
        Lower and upper bound, or None with fewer than two episodes.
    """
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.bincount(index, np.asarray(values, np.float64))
    return interval_of_sums(sums, np.bincount(index), seed, confidence, num_resamples)


CHUNK = 1 << 22
"""Largest number of random numbers that are drawn at a time."""


def interval_of_sums(
    sums: np.ndarray, counts: np.ndarray, seed: int, confidence: float = 0.95, num_resamples: int = 2000
) -> tuple[float, float] | None:
    """`bootstrap_interval` from the sum of each episode's values [E] and their number [E]."""
    num_groups = len(sums)
    if num_groups < 2:
        return None
    rng = np.random.default_rng(seed)
    means = np.empty(num_resamples)
    step = max(1, CHUNK // num_groups)
    for start in range(0, num_resamples, step):
        size = min(step, num_resamples - start)
        draws = rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), size=size)
        means[start : start + size] = (draws @ sums) / (draws @ counts)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)
