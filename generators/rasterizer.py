"""Rasterising hard-edged convex shapes row by row: a pixel belongs to a shape if its centre does.

The kernels are serial, so they can be called in worker processes and after a fork.
"""

import math

import numpy as np

from slotssm.compilation import cached_njit

SHAPES = ("circle", "square", "triangle")
"""Shape names; their order is the shape code. Polygons are regular, upright and inscribed in the disc."""


def _polygon(num_corners: int, first_angle: float) -> np.ndarray:
    angle = first_angle + 2 * math.pi * np.arange(num_corners) / num_corners
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


_SQUARE = _polygon(4, math.pi / 4)
_TRIANGLE = _polygon(3, -math.pi / 2)


def rasterize(
    position: np.ndarray, radius: np.ndarray, shape: np.ndarray, color: np.ndarray, size_px: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rasterise objects on black; later ones occlude earlier ones.

    Args:
        position: [T, N, 2] centres in pixels; the pixel in column i and row j has its centre at (i+½, j+½).
        radius: [N] of the disc around each shape.
        shape: [N] codes, indices into `SHAPES`.
        color: uint8 [T, N, 3].
        size_px: side of the frame.

    Returns:
        frames uint8 [T, H, W, 3], masks uint8 [T, H, W] (0, or 1 + object index) and
        visible uint16 [T, N], the pixels of each object that are not covered.
    """
    num_frames, num = position.shape[:2]
    frames = np.zeros((num_frames, size_px, size_px, 3), np.uint8)
    masks = np.zeros((num_frames, size_px, size_px), np.uint8)
    visible = np.zeros((num_frames, num), np.uint16)
    _rasterize(frames, masks, visible, position, radius, shape, color, _SQUARE, _TRIANGLE)
    return frames, masks, visible


@cached_njit()
def _rasterize(
    frames: np.ndarray,
    masks: np.ndarray,
    visible: np.ndarray,
    position: np.ndarray,
    radius: np.ndarray,
    shape: np.ndarray,
    color: np.ndarray,
    square: np.ndarray,
    triangle: np.ndarray,
) -> None:
    num_frames, num = visible.shape
    size = masks.shape[1]
    for t in range(num_frames):
        for n in range(num):
            x, y, r = position[t, n, 0], position[t, n, 1], radius[n]
            red, green, blue = color[t, n, 0], color[t, n, 1], color[t, n, 2]
            for row in range(max(0, math.ceil(y - r - 0.5)), min(size, math.floor(y + r - 0.5) + 1)):
                height = row + 0.5 - y
                if shape[n] == 0:
                    reach = math.sqrt(max(0.0, r * r - height * height))
                    left, right = x - reach, x + reach
                elif shape[n] == 1:
                    left, right = _chord(square, x, r, height)
                else:
                    left, right = _chord(triangle, x, r, height)
                for column in range(max(0, math.ceil(left - 0.5)), min(size, math.floor(right - 0.5) + 1)):
                    below = masks[t, row, column]
                    if below:
                        visible[t, below - 1] -= 1
                    visible[t, n] += 1
                    masks[t, row, column] = n + 1
                    frames[t, row, column, 0] = red
                    frames[t, row, column, 1] = green
                    frames[t, row, column, 2] = blue


@cached_njit()
def _chord(corners: np.ndarray, x: float, radius: float, height: float) -> tuple[float, float]:
    """Ends of the horizontal chord of a convex polygon at `height` below its centre; empty if left > right."""
    left, right = np.inf, -np.inf
    for k in range(len(corners)):
        ax, ay = corners[k, 0] * radius, corners[k, 1] * radius
        bx, by = corners[k - 1, 0] * radius, corners[k - 1, 1] * radius
        if (ay <= height) != (by <= height):
            at = ax + (bx - ax) * (height - ay) / (by - ay)
            left, right = min(left, x + at), max(right, x + at)
    if left > right:
        return 0.0, -1.0
    return left, right
