"""The camera of Kubric's scenes: its pose in every frame, and depth along its axis.

Source: `kubric/core/cameras.py` in google-research/kubric. Focal length and sensor width are in mm; the camera looks
along its negative z-axis with y up, and quaternions (w, x, y, z) turn its axes into those of the world.
"""

import numpy as np

from slotssm.data.episodes import Episode, Field, Layout, numeric


def fields(num_frames: int) -> Layout:
    """Fields of the camera."""
    return {
        "camera/position": Field(("time", "xyz"), (num_frames, 3), "float32", attrs=numeric("world units")),
        "camera/rotation": Field(("time", "xyz", "axis"), (num_frames, 3, 3), "float32", attrs=numeric("1")),
        "camera/focal_px": Field(("time",), (num_frames,), "float32", attrs=numeric("px")),
    }


def focal_px(focal_mm: float, sensor_mm: float, width: int) -> float:
    """Focal length of frames of this width, in pixels."""
    if not (focal_mm > 0 and sensor_mm > 0):
        raise ValueError(f"a focal length of {focal_mm} mm and a sensor of {sensor_mm} mm")
    return float(focal_mm / sensor_mm * width)


def pose(position: np.ndarray, turn: np.ndarray, focal: float) -> Episode:
    """Position, rotation and focal length in every frame.

    Args:
        position: [T, 3].
        turn: quaternions [T, 4], of any length but 0.
        focal: focal length in the written frames in pixels.
    """
    norm = np.linalg.norm(turn, axis=1)
    if not (norm > 0).all():
        raise ValueError("a camera without a rotation")
    w, x, y, z = (turn / norm[:, None]).T
    right = [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)]
    up = [2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)]
    backward = [2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)]
    return {
        "camera/position": position,
        "camera/rotation": np.stack([np.array(right).T, -np.array(up).T, -np.array(backward).T], axis=-1),
        "camera/focal_px": np.full(len(position), focal),
    }


def along_axis(distance: np.ndarray, focal: float) -> np.ndarray:
    """Depth along the camera's axis from the distance to its centre.

    Args:
        distance: float32 [T, H, W], at the centres of pixels.
        focal: focal length in pixels.
    """
    height, width = distance.shape[1:]
    x = (np.arange(width) + 0.5 - width / 2) / focal
    y = (np.arange(height) + 0.5 - height / 2) / focal
    return (distance / np.sqrt(1 + x**2 + y[:, None] ** 2)).astype(np.float32)
