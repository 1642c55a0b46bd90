"""Bouncing coloured shapes with exact masks: the data set on which objects are to be found without labels.

Every shape moves and collides as the disc around it and does not turn; mass is proportional to the disc's
area unless the recipe says otherwise.
"""

from typing import Any

import numpy as np

from generators.physics import directions, place_discs, simulate
from generators.rasterizer import SHAPES, paint
from slotssm.config import PAINTS, BouncingRecipe
from slotssm.data.episodes import Episode, Field, Layout, categorical, numeric, standard_layout
from slotssm.errors import InputError

WHITE_BALLS: dict[str, Any] = {
    "min_objects": 4,
    "max_objects": 4,
    "shapes": ["circle"],
    "colors": ["white"],
    "radii_px": [5.12, 6.4],
    "radius_draw": "choice",
    "joint_speed_px_per_frame": 3.2,
}
"""White balls of two radii and masses, after the paper's video prediction and R-NEM's data: 0.8 and 1.0 of a
box of ten units on 64 pixels, joint velocity norm 0.5 units a frame. Masses follow the area [our choice]."""
PRESETS: dict[str, dict[str, Any]] = {"white-balls": WHITE_BALLS}


def layout(recipe: BouncingRecipe) -> Layout:
    """Fields of a bouncing-shapes file."""
    size, num = recipe.size_px, recipe.max_objects
    fields = {
        **standard_layout(recipe.num_frames, size, size, num),
        "objects/color": Field((num,), "uint8", attrs=categorical(recipe.colors)),
        "objects/shape": Field((num,), "uint8", attrs=categorical(SHAPES)),
        "objects/radius": Field((num,), "float32", attrs=numeric("px")),
        "objects/mass": Field((num,), "float32", attrs=numeric("px^2")),
    }
    if recipe.contact == "occlude":
        fields["objects/depth"] = Field((num,), "uint8", attrs=numeric("rank, 0 in front"))
    return fields


def attributes(recipe: BouncingRecipe) -> dict[str, Any]:
    """Root attributes of a bouncing-shapes file: none beyond those that every file has."""
    return {}


def make_episode(recipe: BouncingRecipe, rng: np.random.Generator) -> Episode:
    """One episode, a pure function of the recipe and the generator's state."""
    num = int(rng.integers(recipe.min_objects, recipe.max_objects + 1))
    shape = np.array([SHAPES.index(name) for name in recipe.shapes])[rng.integers(len(recipe.shapes), size=num)]
    color = rng.integers(len(recipe.colors), size=num)
    if recipe.radius_draw == "range":
        radius = rng.uniform(recipe.radii_px[0], recipe.radii_px[1], num)
    else:
        radius = np.array(recipe.radii_px)[rng.integers(len(recipe.radii_px), size=num)]
    mass = np.pi * radius**2 if recipe.mass == "area" else np.ones(num)
    collide = recipe.contact == "collide"
    start = place_discs(rng, radius, recipe.size_px, apart=collide)
    speed = rng.uniform(recipe.min_speed_px_per_frame, recipe.max_speed_px_per_frame, num)
    velocity = speed[:, None] * directions(rng, num)
    if recipe.joint_speed_px_per_frame is not None:
        norm = np.linalg.norm(velocity)
        velocity *= recipe.joint_speed_px_per_frame / norm if norm > 0 else 1.0

    motion = simulate(start, velocity, radius, mass, recipe.size_px, recipe.num_frames, collide)
    rgb = np.array([PAINTS[name] for name in recipe.colors], np.uint8)[color]
    frames, masks, visible = paint(
        motion.position, radius, shape, np.broadcast_to(rgb, (recipe.num_frames, num, 3)), recipe.size_px
    )
    episode = {
        "frames": frames,
        "masks": masks,
        "objects/position": motion.position,
        "objects/velocity": motion.velocity,
        "objects/visible": visible,
        "objects/color": color,
        "objects/shape": shape,
        "objects/radius": radius,
        "objects/mass": mass,
    }
    if not collide:
        # later objects are painted over earlier ones
        episode["objects/depth"] = np.arange(num)[::-1]
    return {name: _padded(array, name, recipe.max_objects) for name, array in episode.items()}


def _padded(array: np.ndarray, name: str, num_objects: int) -> np.ndarray:
    """Fill the object axis up to `num_objects` with zeros; `visible` = 0 marks the padding."""
    axis = 1 if name in ("objects/position", "objects/velocity", "objects/visible") else 0
    if not name.startswith("objects/") or array.shape[axis] == num_objects:
        return array
    missing = [(0, 0)] * array.ndim
    missing[axis] = (0, num_objects - array.shape[axis])
    return np.pad(array, missing)


def recipe_for_preset(name: str, num_frames: int, size_px: int) -> dict[str, Any]:
    """Recipe fields of a preset; its lengths are for 64 pixels and scale with the frame.

    Raises:
        InputError: unknown preset.
    """
    if name not in PRESETS:
        raise InputError(f"--preset {name} is unknown; there are {', '.join(PRESETS)}")
    scale = size_px / 64
    recipe = dict(PRESETS[name])
    recipe["radii_px"] = [radius * scale for radius in recipe["radii_px"]]
    recipe["joint_speed_px_per_frame"] *= scale
    return {**recipe, "num_frames": num_frames, "size_px": size_px}
