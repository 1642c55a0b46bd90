"""Snitch localisation in CATER (task 3): which grid cell of the ground plane holds the snitch in the last frame?"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from slotssm.grid import snitch_cell


def snitch_label(scene: Mapping[str, Any], cells_per_side: int = 6) -> int:
    """Grid cell of the snitch (shape `spl`) in the last frame of a CATER scene description."""
    snitch = next(thing for thing in scene["objects"] if thing["shape"] == "spl")
    last = max(snitch["locations"], key=int)
    x, y = snitch["locations"][last][:2]
    return snitch_cell(x, y, cells_per_side)


def top_k_accuracy(labels: np.ndarray, scores: np.ndarray, k: int) -> float:
    """Share of rows whose label is among the k highest scores; ties rank by column.

    Args:
        labels: int [rows].
        scores: [rows, classes].
        k: number of guesses.
    """
    best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return float((best == np.asarray(labels)[:, None]).any(axis=1).mean())


def cell_distance(labels: np.ndarray, scores: np.ndarray, cells_per_side: int = 6) -> float:
    """Mean L1 distance, in cells, between the true and the highest-scoring cell."""
    guess, truth = scores.argmax(axis=1), np.asarray(labels)
    rows = np.abs(guess // cells_per_side - truth // cells_per_side)
    columns = np.abs(guess % cells_per_side - truth % cells_per_side)
    return float((rows + columns).mean())
