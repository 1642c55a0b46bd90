"""Agreement of predicted and true properties, and data splits that keep each video together.

scikit-learn is loaded by the functions that use it, since it takes as long to load as everything else here.
"""

import numpy as np
from numpy.typing import ArrayLike

ROUNDING = 1e-6
"""A column that varies by less than this share of its largest value is constant up to float32 rounding."""


def r2(true: ArrayLike, pred: ArrayLike) -> float:
    """Coefficient of determination, unweighted mean over columns; arguments are [rows] or [rows, columns]."""
    from sklearn.metrics import r2_score

    return float(r2_score(true, pred, multioutput="uniform_average"))


def r2_by_column(true: ArrayLike, pred: ArrayLike) -> np.ndarray:
    """Coefficient of determination of every column, [columns]; NaN where the truth is constant.

    scikit-learn scores a constant column as 0 or 1, which says nothing about the prediction.

    Args:
        true: [rows, columns].
        pred: [rows, columns].
    """
    from sklearn.metrics import r2_score

    actual, found = np.asarray(true, np.float64), np.asarray(pred, np.float64)
    scores = np.full(actual.shape[1], np.nan)
    if len(actual):
        varies = np.ptp(actual, axis=0) > ROUNDING * np.abs(actual).max(axis=0)
        if varies.any():
            scores[varies] = r2_score(actual[:, varies], found[:, varies], multioutput="raw_values")
    return scores


def r2_interval(
    true: ArrayLike, pred: ArrayLike, groups: ArrayLike, seed: int, confidence: float = 0.95, num_resamples: int = 2000
) -> tuple[float, float] | None:
    """Percentile bootstrap of `r2`; whole videos are resampled, since rows of one video are not independent.

    Resamples in which a column does not vary are left out, because R² is undefined for them.

    Args:
        true: [rows, columns].
        pred: [rows, columns].
        groups: [rows], video of each row.
        seed: seed of the resampling.
        confidence: coverage of the interval.
        num_resamples: number of resamples.

    Returns:
        Lower and upper bound, or None with fewer than two videos.
    """
    actual, found = np.asarray(true, np.float64), np.asarray(pred, np.float64)
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    num_groups = int(index.max()) + 1 if len(index) else 0
    if num_groups < 2:
        return None
    # centred, so that differences of large sums do not lose precision
    centred = actual - actual.mean(axis=0)
    counts = np.bincount(index)[:, None]
    sums, squares, errors = (_sums(values, index) for values in (centred, centred**2, (actual - found) ** 2))
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), size=num_resamples)
    total = draws @ squares - (draws @ sums) ** 2 / (draws @ counts)
    known = (total > ROUNDING**2 * (draws @ squares).max(axis=0)).all(axis=1)
    if not known.any():
        return None
    scores = (1 - (draws @ errors)[known] / total[known]).mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(scores, [tail, 1 - tail])
    return float(low), float(high)


def _sums(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Sums of rows [rows, columns] by group, [groups, columns]."""
    return np.stack([np.bincount(index, column) for column in values.T], axis=1)


def accuracy(true: ArrayLike, pred: ArrayLike) -> float:
    """Share of labels that are equal."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(true, pred))


def balanced_accuracy(true: ArrayLike, pred: ArrayLike) -> float:
    """Recall averaged over the true classes; predicted labels that never occur in the truth do not count as classes.

    scikit-learn's `balanced_accuracy_score`, without its warning about predicted labels that are not in the truth.
    """
    from sklearn.metrics import recall_score

    return float(recall_score(true, pred, labels=np.unique(np.asarray(true)), average="macro", zero_division=0))


def split_by_group(groups: ArrayLike, test_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row indices for training and test, such that no group (video) is in both."""
    from sklearn.model_selection import GroupShuffleSplit

    splitter = GroupShuffleSplit(n_splits=1, test_size=test_fraction, random_state=seed)
    rows = np.asarray(groups)
    train, test = next(splitter.split(rows, groups=rows))
    return train, test
