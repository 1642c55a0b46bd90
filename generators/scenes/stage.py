"""A scene: solids, lights and ground, frame by frame."""

from dataclasses import dataclass

import numpy as np

from generators.scenes import solids
from generators.scenes.viewpoint import View, as_stored

MATERIALS = ("rubber", "metal")
"""Names of materials; their order is the code: matt, and shiny with highlights and a mirrored surrounding."""
GROUNDS = ("plain", "gradient", "checker")
"""Names of the grounds; their order is the code."""


@dataclass(frozen=True)
class Solids:
    """N solids in T frames.

    Attributes:
        shape: int64 [N], indices into `solids.SHAPES`.
        radius: float64 [N], world units.
        material: int64 [N], indices into `MATERIALS`.
        rgb: float64 [N, 3] in [0, 1].
        position: float64 [T, N, 3] of their origins, halfway up.
        quaternion: float64 [T, N, 4], (w, x, y, z), which turns the solid's own frame into the world.
    """

    shape: np.ndarray
    radius: np.ndarray
    material: np.ndarray
    rgb: np.ndarray
    position: np.ndarray
    quaternion: np.ndarray


@dataclass(frozen=True)
class Ground:
    """The plane z = 0 and what lies behind its horizon.

    Attributes:
        kind: index into `GROUNDS`.
        colors: float64 [2, 3] in [0, 1], where the pattern is 0 and 1.
        axis: float64 [2], reciprocal world units: direction in which the pattern changes, one period long.
        sky: float64 [3], colour behind the horizon, into which distant ground fades.
    """

    kind: int
    colors: np.ndarray
    axis: np.ndarray
    sky: np.ndarray


@dataclass(frozen=True)
class Lights:
    """Distant lights, each with hard shadows, and light from everywhere.

    Attributes:
        direction: float64 [L, 3], unit vectors towards the lights.
        power: float64 [L].
        ambient: share of light that reaches every surface that faces up.
    """

    direction: np.ndarray
    power: np.ndarray
    ambient: float


@dataclass(frozen=True)
class Scene:
    """Everything that determines the pixels of an episode.

    Attributes:
        solids: the objects.
        view: the camera.
        ground: what they stand on.
        lights: what makes them visible.
        samples_per_side: rays for each pixel side of frames where colours change; 1 is one ray through the centre.
    """

    solids: Solids
    view: View
    ground: Ground
    lights: Lights
    samples_per_side: int = 1


def turned(angle: np.ndarray) -> np.ndarray:
    """Quaternions [..., 4] of turns by an angle about the vertical axis, counter-clockwise from above."""
    quaternion = np.zeros((*np.shape(angle), 4))
    quaternion[..., 0], quaternion[..., 3] = np.cos(np.asarray(angle) / 2), np.sin(np.asarray(angle) / 2)
    return quaternion


def matrices(quaternion: np.ndarray) -> np.ndarray:
    """Rotation matrices [..., 3, 3] of quaternions [..., 4], whose columns are the solid's axes in the world."""
    w, x, y, z = (quaternion / np.sqrt((quaternion**2).sum(axis=-1, keepdims=True))).transpose(
        -1, *range(quaternion.ndim - 1)
    )
    matrix = np.empty((*quaternion.shape[:-1], 3, 3))
    matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 0, 2] = (
        1 - 2 * (y * y + z * z),
        2 * (x * y - w * z),
        2 * (x * z + w * y),
    )
    matrix[..., 1, 0], matrix[..., 1, 1], matrix[..., 1, 2] = (
        2 * (x * y + w * z),
        1 - 2 * (x * x + z * z),
        2 * (y * z - w * x),
    )
    matrix[..., 2, 0], matrix[..., 2, 1], matrix[..., 2, 2] = (
        2 * (x * z - w * y),
        2 * (y * z + w * x),
        1 - 2 * (x * x + y * y),
    )
    return matrix


def light_from(azimuth: np.ndarray, elevation: np.ndarray) -> np.ndarray:
    """Unit vectors [L, 3] towards lights at angles in radians."""
    return np.stack(
        [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)], axis=-1
    )


def stored_solids(solid: Solids) -> Solids:
    """The solids with all numbers as a file stores them, from which their pixels can be made again."""
    return Solids(
        solid.shape,
        as_stored(solid.radius),
        solid.material,
        solid.rgb,
        as_stored(solid.position),
        as_stored(solid.quaternion),
    )


def rest_height(shape: np.ndarray, radius: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Height of the origins of solids that touch the table, however they are tilted.

    Args:
        shape: [N].
        radius: [N].
        turn: [..., N, 3, 3] rotation matrices.

    Returns:
        float64 [..., N].
    """
    row = np.abs(turn[..., 2, :])
    half, tilt = solids.HALF_SIDE * radius, np.sqrt(np.maximum(0.0, 1 - row[..., 2] ** 2))
    box = half * row.sum(axis=-1)
    cylinder = radius * (row[..., 2] + tilt)
    up = turn[..., 2, 2]
    cone = radius * np.maximum(-up, up + tilt)
    return np.choose(shape, [box, np.broadcast_to(radius, box.shape), cylinder, cone, box])
