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


def top_k_hits(labels: np.ndarray, scores: np.ndarray, k: int) -> np.ndarray:
    """Whether the label of each row is among the k highest scores; ties rank by column.

    Args:
        labels: int [rows].
        scores: [rows, classes].
        k: number of guesses.

    Returns:
        bool [rows].
    """
    best = np.argsort(-np.asarray(scores), axis=1, kind="stable")[:, :k]
    hits: np.ndarray = (best == np.asarray(labels)[:, None]).any(axis=1)
    return hits


def top_k_accuracy(labels: np.ndarray, scores: np.ndarray, k: int) -> float:
    """Share of rows whose label is among the k highest scores; see `top_k_hits`."""
    return float(top_k_hits(labels, scores, k).mean())


def cell_gaps(cells: np.ndarray, others: np.ndarray, cells_per_side: int = 6) -> np.ndarray:
    """L1 distance, in cells, between pairs of cells, int64 [rows]."""
    first, second = np.asarray(cells).astype(np.int64), np.asarray(others).astype(np.int64)
    rows = np.abs(first // cells_per_side - second // cells_per_side)
    columns = np.abs(first % cells_per_side - second % cells_per_side)
    gaps: np.ndarray = rows + columns
    return gaps


def cell_distances(labels: np.ndarray, scores: np.ndarray, cells_per_side: int = 6) -> np.ndarray:
    """L1 distance, in cells, between the true and the highest-scoring cell of each row, int64 [rows]."""
    return cell_gaps(np.asarray(scores).argmax(axis=1), labels, cells_per_side)


def cell_distance(labels: np.ndarray, scores: np.ndarray, cells_per_side: int = 6) -> float:
    """Mean L1 distance, in cells, between the true and the highest-scoring cell."""
    return float(cell_distances(labels, scores, cells_per_side).mean())


def last_seen_cells(world_position: np.ndarray, visible: np.ndarray, cells_per_side: int = 6) -> np.ndarray:
    """Grid cell of the snitch in the last frame in which it has a visible pixel: what memory alone can tell.

    Args:
        world_position: [E, T, 3] or [E, T, 2] of the snitch.
        visible: [E, T], its visible pixels.
        cells_per_side: cells of the grid in each direction.

    Returns:
        int64 [E]; -1 if it is never visible.
    """
    cells = np.full(len(visible), -1)
    for episode, (places, pixels) in enumerate(zip(world_position, visible, strict=True)):
        seen = np.flatnonzero(pixels)
        if len(seen):
            x, y = places[seen[-1], :2].tolist()
            cells[episode] = snitch_cell(x, y, cells_per_side)
    return cells


def majority_share(labels: np.ndarray, k: int = 1) -> float:
    """Share of the k most frequent labels: the top-k accuracy of always giving the same answer."""
    return float(np.sort(np.unique(labels, return_counts=True)[1])[-k:].sum() / len(labels))
