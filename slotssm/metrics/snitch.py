"""Snitch localisation in CATER (task 3): which grid cell of the ground plane holds the snitch in the last frame?"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

FLOOR_EDGE = 3.0
"""The ground plane (CATER's "floor") is [-3, 3) in both directions."""


def snitch_cell(x: float, y: float, cells_per_side: int = 6) -> int:
    """Index of the grid cell of a position, row by row; coordinates are first clipped to the ground plane."""

    def index(coordinate: float) -> int:
        clipped = min(max(coordinate, -FLOOR_EDGE), FLOOR_EDGE)
        # adding the edge before math.floor would round -1e-17 up into the next cell
        scaled = clipped * (cells_per_side / (2 * FLOOR_EDGE)) + (cells_per_side % 2) / 2
        return min(max(math.floor(scaled) + cells_per_side // 2, 0), cells_per_side - 1)

    return cells_per_side * index(y) + index(x)


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
