"""Which pixels belong to a shape, by the plainest definition: a test of every pixel's centre."""

import math

import numpy as np


def margin(shape: str, x: float, y: float, radius: float, size_px: int) -> np.ndarray:
    """Signed distance of every pixel's centre to the nearest edge, positive inside; float64 [size, size]."""
    centre = np.arange(size_px) + 0.5
    dx, dy = centre[None, :] - x, centre[:, None] - y
    if shape == "circle":
        return radius - np.hypot(dx, dy)
    if shape == "square":
        return radius / math.sqrt(2) - np.maximum(abs(dx), abs(dy))
    # an upright triangle: its three sides lie half a radius from the centre, one of them below it
    normals = [(0.0, 1.0), (math.cos(math.pi / 6), -0.5), (-math.cos(math.pi / 6), -0.5)]
    return radius / 2 - np.max([nx * dx + ny * dy for nx, ny in normals], axis=0)


def area(shape: str, radius: float) -> float:
    """Area of a whole shape in pixels."""
    return {"circle": math.pi, "square": 2.0, "triangle": 3 * math.sqrt(3) / 4}[shape] * radius**2
