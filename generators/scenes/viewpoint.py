"""Cameras: where they are, where they look, and where they show a point of the world.

The world is right-handed with z up, and the table is the plane z = 0. The columns of a camera's rotation are its axes
right, down and forward in the world; the pixel in column i and row j has its centre at (i + ½, j + ½).
"""

import math
from dataclasses import dataclass

import numpy as np

SWAY_PERIODS_FRAMES = (30.0, 90.0)
"""Range of the periods of a head's motion, in frames."""


@dataclass(frozen=True)
class View:
    """A camera in every frame; the values are representable in float32, as they are stored.

    Attributes:
        position: float64 [T, 3], world units.
        rotation: float64 [T, 3, 3], columns right, down, forward.
        focal_px: float64 [T].
    """

    position: np.ndarray
    rotation: np.ndarray
    focal_px: np.ndarray


def as_stored(values: np.ndarray) -> np.ndarray:
    """Round to float32, so that what is stored is what was rendered, bit by bit."""
    return np.asarray(values, np.float32).astype(np.float64)


def looking_at(position: np.ndarray, target: np.ndarray, focal_px: float, roll: np.ndarray | float = 0.0) -> View:
    """Cameras that look at points, upright or rolled.

    Args:
        position: [T, 3].
        target: [T, 3] or [3], shown in the middle of the frame; never straight above or below the camera.
        focal_px: focal length in pixels.
        roll: [T] or number, turn about the camera's axis in radians, clockwise as the camera sees it.
    """
    forward = np.asarray(target, np.float64) - position
    forward /= np.linalg.norm(forward, axis=-1, keepdims=True)
    right = np.stack([forward[:, 1], -forward[:, 0], np.zeros(len(forward))], axis=-1)
    right /= np.linalg.norm(right, axis=-1, keepdims=True)
    down = np.cross(forward, right)
    cos, sin = (np.broadcast_to(part, len(position))[:, None] for part in (np.cos(roll), np.sin(roll)))
    rotation = np.stack([cos * right + sin * down, cos * down - sin * right, forward], axis=-1)
    return View(as_stored(position), as_stored(rotation), as_stored(np.full(len(position), focal_px)))


def project(points: np.ndarray, view: View, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Where points of the world appear: (W/2 + f·x/z, H/2 + f·y/z) with (x, y, z) = Rᵀ(p - position).

    Args:
        points: [T, N, 3] in the world.
        view: camera of every frame.
        height: H in pixels.
        width: W in pixels.

    Returns:
        Pixels [T, N, 2], and depths z [T, N] along the camera's axis.
    """
    seen = (points - view.position[:, None]) @ view.rotation
    depth = seen[..., 2:]
    return np.array([width / 2, height / 2]) + view.focal_px[:, None, None] * seen[..., :2] / depth, depth[..., 0]


def on_sphere(distance: np.ndarray | float, azimuth: np.ndarray, elevation: np.ndarray | float) -> np.ndarray:
    """Points [T, 3] around the origin, angles in radians: azimuth from x to y, elevation above the table."""
    level = distance * np.cos(elevation)
    height = np.broadcast_to(distance * np.sin(elevation), np.shape(azimuth))
    return np.stack([level * np.cos(azimuth), level * np.sin(azimuth), height], axis=-1)


def swaying(rng: np.random.Generator, num_frames: int, num_axes: int) -> np.ndarray:
    """Smooth aimless motion as of a person's head: two sines of random period and phase for each axis.

    Returns:
        float64 [T, `num_axes`] in [-1, 1].
    """
    period = rng.uniform(*SWAY_PERIODS_FRAMES, (2, num_axes))
    phase = rng.uniform(0, 2 * math.pi, (2, num_axes))
    weight = np.array([0.65, 0.35])[:, None]
    angle = 2 * math.pi * np.arange(num_frames)[:, None, None] / period + phase
    return (weight * np.sin(angle)).sum(axis=1)
