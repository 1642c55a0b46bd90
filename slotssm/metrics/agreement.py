"""Agreement of predicted with true properties, and splits that keep a video together."""

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import GroupShuffleSplit


def r2(true: ArrayLike, pred: ArrayLike) -> float:
    """Coefficient of determination, the plain mean over columns; arguments are [rows] or [rows, columns]."""
    return float(r2_score(true, pred, multioutput="uniform_average"))


def accuracy(true: ArrayLike, pred: ArrayLike) -> float:
    """Share of equal labels."""
    return float(accuracy_score(true, pred))


def split_by_group(groups: ArrayLike, test_fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row indices for training and test such that no group (video) is in both."""
    splitter = GroupShuffleSplit(n_splits=1, test_size=test_fraction, random_state=seed)
    rows = np.asarray(groups)
    train, test = next(splitter.split(rows, groups=rows))
    return train, test
