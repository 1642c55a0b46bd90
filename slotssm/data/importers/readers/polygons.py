"""Polygons of COCO annotations as masks, pixel for pixel as pycocotools draws them.

Source of the rule: `rleFrPoly` in pycocotools. Corners are rounded to fifths of a pixel, edges are drawn on that grid,
and a column of pixels is entered or left where an edge crosses its middle.
"""

from collections.abc import Sequence

import numpy as np

GRID = 5
"""Steps of the grid per pixel."""


def fill(polygons: Sequence[Sequence[float]], size: tuple[int, int]) -> np.ndarray:
    """The union of polygons as bool [H, W].

    Args:
        polygons: corners of each as x, y, x, y, ... in pixels.
        size: height and width.

    Raises:
        ValueError: a polygon has fewer than three corners, or coordinates that are not numbers near the picture.
    """
    mask = np.zeros(size, bool)
    for polygon in polygons:
        corners = np.asarray(polygon, np.float64)
        if corners.ndim != 1 or len(corners) < 6 or len(corners) % 2:
            raise ValueError(f"a polygon of {corners.size} numbers")
        if not np.isfinite(corners).all() or np.abs(corners).max() > 100 * max(size):
            raise ValueError("a polygon far outside its picture")
        mask |= _fill_one(corners.reshape(-1, 2), size)
    return mask


def _fill_one(corners: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    # towards zero, as a conversion in C
    grid = np.trunc(corners * GRID + 0.5).astype(np.int64)
    lines = [_line(start, end) for start, end in zip(grid, np.roll(grid, -1, axis=0), strict=True)]
    x, y = np.concatenate(lines).T
    crossed = np.flatnonzero(x[1:] != x[:-1]) + 1
    left = np.where(x[crossed] < x[crossed - 1], x[crossed], x[crossed] - 1)
    column = (left + 0.5) / GRID - 0.5
    row = np.ceil(((np.minimum(y[crossed], y[crossed - 1]) + 0.5) / GRID - 0.5).clip(0, height))
    inside = (column == np.floor(column)) & (column >= 0) & (column <= width - 1)
    places = (column[inside] * height + row[inside]).astype(np.int64)
    changes = np.bincount(places, minlength=height * width + 1)[: height * width]
    return (np.cumsum(changes) % 2 == 1).reshape(width, height).T


def _line(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Points of the grid along an edge, int64 [P, 2], both ends included."""
    across = np.abs(end - start)
    axis = 0 if across[0] >= across[1] else 1
    turned = start[axis] > end[axis]
    low, high = (end, start) if turned else (start, end)
    steps = np.arange(across[axis] + 1)
    slope = (high[1 - axis] - low[1 - axis]) / across[axis] if across[axis] else 0.0
    points = np.empty((len(steps), 2), np.int64)
    points[:, axis] = low[axis] + steps
    points[:, 1 - axis] = np.trunc(low[1 - axis] + slope * steps + 0.5)
    return points[::-1] if turned else points
