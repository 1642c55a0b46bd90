"""The fields of an episode file that a rendered scene fills."""

from collections.abc import Sequence

from generators.scenes.raycaster import render
from generators.scenes.stage import MATERIALS, Scene
from generators.scenes.viewpoint import project
from slotssm.data.episodes import PICTURE, Episode, Field, Layout, categorical, numeric

WORLD_UNIT = "world units"


def layout(num_frames: int, size_px: int, num_objects: int, colors: Sequence[str], shapes: Sequence[str]) -> Layout:
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


def filmed(scene: Scene, size_px: int) -> Episode:
    """Render a scene, and describe its objects and camera; without padding.

    The projected position of an object behind the camera is that of its mirror image, as the formula says.
    """
    frames, masks, depth, visible, unoccluded = render(scene, size_px, size_px)
    solid, view = scene.solids, scene.view
    return {
        "frames": frames,
        "masks": masks,
        "depth": depth,
        "camera/position": view.position,
        "camera/rotation": view.rotation,
        "camera/focal_px": view.focal_px,
        "objects/position": project(solid.position, view, size_px, size_px)[0],
        "objects/world_position": solid.position,
        "objects/quaternion": solid.quaternion,
        "objects/visible": visible,
        "objects/unoccluded": unoccluded,
        "objects/radius": solid.radius,
        "objects/material": solid.material,
    }
