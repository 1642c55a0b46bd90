"""A scene: solids, lights and ground, frame by frame, and the fields of an episode file that describe it."""

import math
from dataclasses import dataclass, field

import numpy as np

from generators.scenes import solids
from generators.scenes.viewpoint import View, as_stored, project
from slotssm.data.episodes import PICTURE, Episode, Field, Layout, categorical, numeric

MATERIALS = ("rubber", "metal")
"""Names of materials; their order is the code: matt, and shiny with highlights and a mirrored surrounding."""
GROUNDS = ("plain", "gradient", "checker")
"""Names of the grounds; their order is the code."""
WORLD_UNIT = "world units"


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
    samples_per_side: int = field(default=1)


def turned(angle: np.ndarray) -> np.ndarray:
    """Quaternions [..., 4] of turns by an angle about the vertical axis, counter-clockwise from above."""
    half = np.asarray(angle) / 2
    zero = np.zeros_like(half)
    return np.stack([np.cos(half), zero, zero, np.sin(half)], axis=-1)


def matrices(quaternion: np.ndarray) -> np.ndarray:
    """Rotation matrices [..., 3, 3] of quaternions [..., 4], whose columns are the solid's axes in the world."""
    w, x, y, z = np.moveaxis(quaternion / np.linalg.norm(quaternion, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def light_from(azimuth: np.ndarray, elevation: np.ndarray) -> np.ndarray:
    """Unit vectors [L, 3] towards lights at angles in radians."""
    return np.stack(
        [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)], axis=-1
    )


def layout(num_frames: int, size_px: int, num_objects: int, colors: tuple[str, ...], shapes: tuple[str, ...]) -> Layout:
    """The fields that every data set of scenes has."""
    per_frame, per_object = ("time", "object"), ("object",)
    moving, num = (num_frames, num_objects), (num_objects,)
    unit = numeric(WORLD_UNIT)
    return {
        "frames": Field((*PICTURE, "channel"), (num_frames, size_px, size_px, 3), "uint8", image=True),
        "masks": Field(PICTURE, (num_frames, size_px, size_px), "uint8", image=True),
        "depth": Field(PICTURE, (num_frames, size_px, size_px), "float32", image=True, attrs=unit | {"invalid": 0.0}),
        "camera/position": Field(("time", "xyz"), (num_frames, 3), "float32", attrs=unit),
        "camera/rotation": Field(
            ("time", "xyz", "axis"), (num_frames, 3, 3), "float32", attrs=numeric("columns right, down, forward")
        ),
        "camera/focal_px": Field(("time",), (num_frames,), "float32", attrs=numeric("px")),
        "objects/position": Field((*per_frame, "xy"), (*moving, 2), "float32", attrs=numeric("px")),
        "objects/world_position": Field((*per_frame, "xyz"), (*moving, 3), "float32", attrs=unit),
        "objects/quaternion": Field((*per_frame, "wxyz"), (*moving, 4), "float32", attrs=numeric("w, x, y, z")),
        "objects/visible": Field(per_frame, moving, "uint16", attrs=numeric("px")),
        "objects/unoccluded": Field(per_frame, moving, "uint16", attrs=numeric("px")),
        "objects/radius": Field(per_object, num, "float32", attrs=unit),
        "objects/shape": Field(per_object, num, "uint8", attrs=categorical(shapes)),
        "objects/color": Field(per_object, num, "uint8", attrs=categorical(colors)),
        "objects/material": Field(per_object, num, "uint8", attrs=categorical(MATERIALS)),
    }


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


def described(scene: Scene, size_px: int) -> Episode:
    """Fields of the objects and the camera that do not depend on pixels, without padding.

    A camera inside or beside an object has no projection of it: the position of an object that is not in front of the
    camera is that of its mirror image behind it, as the formula says.
    """
    solid, view = scene.solids, scene.view
    pixels, _ = project(solid.position, view, size_px, size_px)
    return {
        "camera/position": view.position,
        "camera/rotation": view.rotation,
        "camera/focal_px": view.focal_px,
        "objects/position": pixels,
        "objects/world_position": solid.position,
        "objects/quaternion": solid.quaternion,
        "objects/radius": solid.radius,
        "objects/shape": solid.shape,
        "objects/material": solid.material,
    }


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


def brightest(scene_lights: Lights) -> float:
    """Light on a surface that faces up and is not in shadow, which exposes the ground correctly if it is about 1."""
    return float(scene_lights.ambient + (scene_lights.power * np.maximum(0.0, scene_lights.direction[:, 2])).sum())


def degrees(value: float) -> float:
    """Radians of an angle in degrees."""
    return math.radians(value)
