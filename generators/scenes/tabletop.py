"""Tabletop scenes: objects slide, collide and come to rest, seen in perspective with exact masks and depth.

Presets stand for MOVi-A (few plain objects, grey ground, one camera), MOVi-B (more shapes, sizes and colours) and video
with a moving camera. Each part of an episode draws from a random stream of its own, so another camera shows the same
motion.
"""

from typing import Any, Literal, Self

import numpy as np
from pydantic import Field as Setting
from pydantic import model_validator

from generators.padding import padded
from generators.physics import directions, place_discs
from generators.scenes import filming, stage
from generators.scenes.looks import draw_ground, draw_lights, draw_view
from generators.scenes.scene_recipe import SCENE_COLORS, SIZES, SceneRecipe, check_numbers
from generators.scenes.sliding import Pieces, Sliding, slide
from generators.scenes.solids import SHAPES, half_height, volume
from slotssm.data.episodes import Episode, Field, Layout, categorical, numeric
from slotssm.data.generator import Generator
from slotssm.registry import register_generator

STREAMS = ("objects", "motion", "ground", "light", "camera")
"""Random streams of an episode, in the order in which they are spawned; new ones must come last."""
HALF_SIDE = 3.0
"""Half the side of the table, in world units."""
MAX_COVERAGE = 0.4
"""Largest share of the table that footprints may cover."""
DENSITY, FRICTION, RESTITUTION = np.array([1.1, 2.7]), np.array([0.8, 0.4]), np.array([0.8, 0.6])
"""By material, rubber and metal; densities and friction as in Kubric's MOVi-A."""
DISTANCE = 9.2
"""Distance of the camera from the middle of the table, at which the whole table is in the frame."""
RESTING = 0.25
"""Probability that an object starts at rest."""
Shape = Literal["cube", "sphere", "cylinder", "cone"]


class TabletopRecipe(SceneRecipe):
    """Objects that slide on a table, collide and come to rest; rendered in perspective."""

    kind: Literal["tabletop"] = "tabletop"
    min_objects: int = Setting(3, ge=0, le=20)
    """Smallest number of objects in an episode; the number is drawn uniformly."""
    max_objects: int = Setting(6, ge=1, le=20)
    """Largest number of objects in an episode (N of the file; episodes with fewer are padded)."""
    shapes: tuple[Shape, ...] = Setting(("cube", "sphere", "cylinder"), min_length=1)
    """Shapes to draw from, uniformly."""
    min_speed: float = Setting(0.08, ge=0, le=1)
    """Lowest initial speed of an object that does not start at rest, in world units per frame."""
    max_speed: float = Setting(0.32, ge=0, le=1)
    """Highest initial speed."""
    camera_distance: float = Setting(DISTANCE, ge=4, le=20)
    """Distance of the camera from the middle of the table, in world units; at 9.2 the whole table is in the frame."""
    gravity: float = Setting(0.014, ge=0, le=1)
    """Gravity in world units per frame²; times the coefficient (0.8 rubber, 0.4 metal) it is the friction's brake."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_numbers(self.min_objects, self.max_objects)
        if self.min_speed > self.max_speed:
            raise ValueError(f"min_speed {self.min_speed:g} exceeds max_speed {self.max_speed:g}")
        largest = max(SIZES[size] for size in self.sizes)
        most = int(MAX_COVERAGE * (2 * HALF_SIDE) ** 2 / (np.pi * largest**2))
        if self.max_objects > most:
            raise ValueError(
                f"{self.max_objects} objects of radius {largest:g} do not fit on the table: at most {most}; use fewer "
                "or smaller sizes"
            )
        return self


TABLETOP_PRESETS: dict[str, dict[str, Any]] = {
    "a": {"sizes": ["medium", "large"], "num_lights": 1},
    "b": {
        "min_objects": 3,
        "max_objects": 8,
        "shapes": ["cube", "sphere", "cylinder", "cone"],
        "colors": [name for name in SCENE_COLORS if name != "gold"],
        "grounds": ["plain", "gradient", "checker"],
        "ground_colors": "any",
        "viewpoints": "any",
    },
    "moving": {
        "max_objects": 8,
        "shapes": ["cube", "sphere", "cylinder", "cone"],
        "grounds": ["gradient", "checker"],
        "ground_colors": "any",
        "cameras": ["orbit", "head"],
        "viewpoints": "any",
    },
}
"""Fields of `TabletopRecipe` by preset: the roles of MOVi-A, of MOVi-B, and of video for depth."""


def layout(recipe: TabletopRecipe) -> Layout:
    """Fields of a tabletop file."""
    num, per_frame = recipe.max_objects, ("time", "object")
    fields = filming.layout(recipe.num_frames, recipe.size_px, num, recipe.colors, recipe.shapes)
    return fields | {
        "objects/world_velocity": Field(
            (*per_frame, "xyz"), (recipe.num_frames, num, 3), "float32", attrs=numeric("world units/frame")
        ),
        "objects/size": Field(("object",), (num,), "uint8", attrs=categorical(recipe.sizes)),
        "objects/mass": Field(("object",), (num,), "float32", attrs=numeric("density 1 x world units^3")),
        "num_objects": Field((), (), "uint8", attrs=numeric("objects")),
    }


def make_episode(recipe: TabletopRecipe, rng: np.random.Generator) -> Episode:
    """Make one episode: a pure function of the recipe and the state of `rng`."""
    streams = dict(zip(STREAMS, rng.spawn(len(STREAMS)), strict=True))
    draw = streams["objects"]
    num = int(draw.integers(recipe.min_objects, recipe.max_objects + 1))
    choices = {name: draw.integers(len(getattr(recipe, name)), size=num) for name in ("shapes", "sizes", "colors")}
    material = np.array([stage.MATERIALS.index(name) for name in recipe.materials])[
        draw.integers(len(recipe.materials), size=num)
    ]
    shape = np.array([SHAPES.index(name) for name in recipe.shapes])[choices["shapes"]]
    radius = np.array([SIZES[name] for name in recipe.sizes])[choices["sizes"]]
    mass = DENSITY[material] * volume(shape, radius)
    pieces = Pieces(shape, radius, mass, FRICTION[material], RESTITUTION[material])
    motion = _move(recipe, streams["motion"], pieces)

    rgb = np.array([SCENE_COLORS[name] for name in recipe.colors])[choices["colors"]] / 255
    quaternion = stage.turned(motion.angle)
    position, velocity = np.empty((recipe.num_frames, num, 3)), np.zeros((recipe.num_frames, num, 3))
    position[..., :2], position[..., 2] = motion.position, half_height(shape, radius)
    velocity[..., :2] = motion.velocity
    scene = stage.Scene(
        stage.stored_solids(stage.Solids(shape, radius, material, rgb.reshape(num, 3), position, quaternion)),
        draw_view(streams["camera"], recipe, recipe.camera_distance),
        draw_ground(streams["ground"], recipe),
        draw_lights(streams["light"], recipe),
        recipe.samples_per_side,
    )
    episode = filming.filmed(scene, recipe.size_px) | {
        "objects/shape": choices["shapes"],
        "objects/color": choices["colors"],
        "objects/size": choices["sizes"],
        "objects/mass": mass,
        "objects/world_velocity": velocity,
        "num_objects": np.array(num),
    }
    return padded(episode, layout(recipe))


def _move(recipe: TabletopRecipe, rng: np.random.Generator, pieces: Pieces) -> Sliding:
    """Draw places and velocities, most of them towards the middle of the table, and let the objects slide."""
    num = len(pieces.radius)
    start = place_discs(rng, pieces.radius, 2 * HALF_SIDE, apart=True) - HALF_SIDE
    towards = rng.uniform(-HALF_SIDE / 2, HALF_SIDE / 2, (num, 2)) - start
    length = np.linalg.norm(towards, axis=-1, keepdims=True)
    heading = np.where(length > 1e-6, towards / np.maximum(length, 1e-6), directions(rng, num))
    speed = rng.uniform(recipe.min_speed, recipe.max_speed, num) * (rng.random(num) >= RESTING)
    angle = rng.uniform(-np.pi, np.pi, num)
    return slide(pieces, start, angle, speed[:, None] * heading, recipe.gravity, HALF_SIDE, recipe.num_frames)


@register_generator("tabletop", TabletopRecipe)
class Tabletop(Generator[TabletopRecipe]):
    """Generator of tabletop scenes."""

    def layout(self) -> Layout:
        """Fields of the file."""
        return layout(self.recipe)

    def make_episode(self, rng: np.random.Generator) -> Episode:
        """Make one episode: a pure function of the recipe and the state of `rng`."""
        return make_episode(self.recipe, rng)

    def file_name(self) -> str:
        """For example tabletop-3-6x128."""
        low, high = self.recipe.min_objects, self.recipe.max_objects
        return f"tabletop-{low if low == high else f'{low}-{high}'}x{self.recipe.size_px}"
