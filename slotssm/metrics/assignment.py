"""One-to-one assignment of objects and slots."""

import numpy as np


def best_assignment(overlaps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs of rows and columns with the largest sum, each row and column in at most one pair.

    Args:
        overlaps: [C, K].

    Returns:
        Indices of the rows, ascending, and of their columns, min(C, K) each.
    """
    from scipy.optimize import linear_sum_assignment  # takes long to load

    rows, columns = linear_sum_assignment(overlaps, maximize=True)
    return rows, columns
