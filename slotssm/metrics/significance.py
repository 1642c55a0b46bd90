"""Paired comparison of two models on the same episodes: confidence intervals and significance tests."""

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from slotssm.errors import InputError
from slotssm.metrics.scores import CHUNK, interval_of_sums

MAX_EXACT = 20
"""Largest number of differing episodes for which all sign flips are enumerated."""
NUM_FLIPS = 20_000
"""Random sign flips that are drawn otherwise."""
ROUNDING = 1e-12
"""Differences below this share of the largest score count as zero."""


@dataclass(frozen=True)
class PairedTest:
    """Paired test of two models on the same episodes.

    Attributes:
        first: mean of the first model over units.
        second: mean of the second model over units.
        difference: second minus first.
        interval: bootstrap interval of the difference over episodes; None with fewer than two.
        num_episodes: episodes that were scored.
        num_higher: episodes in which the second model scores higher.
        num_lower: episodes in which the second model scores lower.
        p_permutation: two-sided p-value of the permutation test, which swaps the two models at random in each episode.
        permutations: `exact` if all permutations were enumerated, `monte-carlo` for a random sample.
        num_permutations: number of permutations.
        wilcoxon: Wilcoxon signed-rank statistic of the episode differences, the smaller of the two rank sums.
        p_wilcoxon: two-sided p-value of the Wilcoxon test.
    """

    first: float
    second: float
    difference: float
    interval: tuple[float, float] | None
    num_episodes: int
    num_higher: int
    num_lower: int
    p_permutation: float
    permutations: Literal["exact", "monte-carlo"]
    num_permutations: int
    wilcoxon: float
    p_wilcoxon: float


def paired_test(
    first: ArrayLike, second: ArrayLike, seed: int, num_units: ArrayLike | None = None, confidence: float = 0.95
) -> PairedTest | None:
    """Compare two models by their scores on the same episodes.

    Means are over units. Whole episodes are resampled and permuted, since units of one episode are not independent.
    With a random sample of the permutations, the p-value is (hits + 1) / (permutations + 1) (Phipson & Smyth, 2010) and
    never 0. The signed-rank test weights all episodes equally and leaves out those without a difference.

    Args:
        first: [E], mean score of each episode; NaN where nothing was scored.
        second: [E], the same for the second model.
        seed: seed of the bootstrap and of the random permutations.
        num_units: [E], number of units that each mean is over; None for one each.
        confidence: coverage of the interval.

    Returns:
        None if nothing was scored.

    Raises:
        InputError: the models were not scored on the same episodes.
    """
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    units = np.ones(a.shape) if num_units is None else np.asarray(num_units, np.float64)
    known = np.isfinite(a)
    if a.ndim != 1 or not a.shape == b.shape == units.shape or (known != np.isfinite(b)).any():
        raise InputError("paired scores must be [E], one for each episode and NaN in the same episodes")
    a, b, units = a[known], b[known], units[known]
    if not len(a):
        return None
    total = units.sum()
    quantum = ROUNDING * max(np.abs(a).max(), np.abs(b).max()) or 1.0
    steps = np.round((b - a) / quantum)
    sums = np.where(steps == 0, 0, units * (b - a))
    p_permutation, permutations, num_permutations = _exchanged(sums / total, seed)
    statistic, p_wilcoxon = _signed_ranks(steps)
    return PairedTest(
        first=float(a @ units / total),
        second=float(b @ units / total),
        difference=float(sums.sum() / total),
        interval=interval_of_sums(sums, units, seed, confidence),
        num_episodes=len(a),
        num_higher=int((steps > 0).sum()),
        num_lower=int((steps < 0).sum()),
        p_permutation=p_permutation,
        permutations=permutations,
        num_permutations=num_permutations,
        wilcoxon=statistic,
        p_wilcoxon=p_wilcoxon,
    )


def _exchanged(parts: np.ndarray, seed: int) -> tuple[float, Literal["exact", "monte-carlo"], int]:
    """Two-sided p-value of a sum under random sign flips of its parts; the method, and the number of permutations."""
    parts = parts[parts != 0]
    size = np.abs(parts).sum()
    # tolerance, since the order of summation affects rounding
    least = np.abs(parts.sum()) - ROUNDING * size
    if len(parts) <= MAX_EXACT:
        sums = parts[:1]  # the other half of the flips mirrors this one
        for part in parts[1:]:
            sums = np.concatenate([sums + part, sums - part])
        return float(np.mean(np.abs(sums) >= least)) if len(sums) else 1.0, "exact", 2 ** len(parts)
    rng = np.random.default_rng(seed)
    hits, step = 0, max(1, CHUNK // len(parts))
    for start in range(0, NUM_FLIPS, step):
        shape = min(step, NUM_FLIPS - start), -(-len(parts) // 8)
        flips = np.unpackbits(rng.integers(0, 256, shape, np.uint8), axis=1, count=len(parts))
        hits += int((np.abs(2 * (flips @ parts) - parts.sum()) >= least).sum())
    return (hits + 1) / (NUM_FLIPS + 1), "monte-carlo", NUM_FLIPS


def _signed_ranks(differences: np.ndarray) -> tuple[float, float]:
    """Wilcoxon signed-rank statistic and its two-sided p-value, which SciPy computes exactly where possible."""
    from scipy.stats import wilcoxon  # takes a second to load

    moved = differences[differences != 0]
    if not len(moved):
        return 0.0, 1.0
    with warnings.catch_warnings():
        # SciPy warns that the normal approximation, which it uses for ties, is rough with few episodes
        warnings.simplefilter("ignore", UserWarning)
        found = wilcoxon(moved)
    return float(found.statistic), float(found.pvalue)
