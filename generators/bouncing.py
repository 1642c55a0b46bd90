"""Bouncing coloured shapes with exact masks: the data set for unsupervised object discovery.

Every shape moves and collides like its circumscribed disc and does not rotate; by default, mass is proportional to the
area of the disc. Backgrounds, textures, lighting and a moving camera are optional; each draws from a random stream of
its own, so that switching one on does not change the others.
"""

from typing import Any

import numpy as np

from generators.bouncing_recipe import BouncingRecipe
from generators.camera import changing_light, pan
from generators.colors import COLORS
from generators.padding import padded
from generators.physics import Motion, directions, place_discs, simulate
from generators.rasterizer import SHAPES, rasterize
from generators.textures import TEXTURES, draw_background, draw_patterns, shade
from slotssm.data.episodes import Episode, Field, Layout, categorical, numeric, standard_layout
from slotssm.data.generator import Generator
from slotssm.registry import register_generator

STREAMS = ("backgrounds", "textures", "lighting", "camera", "colors")
"""Random streams of the optional features, in the order in which they are spawned; new ones must come last."""


def layout(recipe: BouncingRecipe) -> Layout:
    """Fields of a bouncing-shapes file."""
    size, num = recipe.size_px, recipe.max_objects
    fields = {
        **standard_layout(recipe.num_frames, size, size, num),
        "objects/color": Field(("object",), (num,), "uint8", attrs=categorical(recipe.colors)),
        "objects/shape": Field(("object",), (num,), "uint8", attrs=categorical(SHAPES)),
        "objects/radius": Field(("object",), (num,), "float32", attrs=numeric("px")),
        "objects/mass": Field(("object",), (num,), "float32", attrs=numeric("px^2")),
    }
    if recipe.contact == "occlude":
        fields["objects/depth"] = Field(("object",), (num,), "uint8", attrs=numeric("rank, 0 in front"))
    if set(recipe.textures) != {"plain"}:
        fields["objects/texture"] = Field(("object",), (num,), "uint8", attrs=categorical(TEXTURES))
    if set(recipe.backgrounds) != {"plain"}:
        fields["background"] = Field((), (), "uint8", attrs=categorical(TEXTURES))
    if recipe.lighting:
        fields["light"] = Field(
            ("time", "rgb"), (recipe.num_frames, 3), "float32", attrs=numeric("share of red, green, blue")
        )
    if recipe.camera_px:
        fields["camera"] = Field(("time", "xy"), (recipe.num_frames, 2), "float32", attrs=numeric("px"))
    return fields


def attributes(recipe: BouncingRecipe) -> dict[str, Any]:
    """Root attributes of a bouncing-shapes file: the palette if every pixel is one of its colours."""
    return {"palette": np.array(recipe.palette, np.uint8)} if recipe.has_flat_colors else {}


def make_episode(recipe: BouncingRecipe, rng: np.random.Generator) -> Episode:
    """Make one episode: a pure function of the recipe and the state of `rng`."""
    # spawning does not change `rng` but takes time, so it is skipped if no optional feature is on
    switched = recipe.camera_px > 0 or recipe.distinct_colors or not recipe.has_flat_colors
    streams = dict(zip(STREAMS, rng.spawn(len(STREAMS)), strict=True)) if switched else {}
    num = int(rng.integers(recipe.min_objects, recipe.max_objects + 1))
    shape = np.array([SHAPES.index(name) for name in recipe.shapes])[rng.integers(len(recipe.shapes), size=num)]
    color = rng.integers(len(recipe.colors), size=num)
    if recipe.distinct_colors:
        color = streams["colors"].permutation(len(recipe.colors))[:num]
    if recipe.radius_draw == "range":
        radius = rng.uniform(recipe.radii_px[0], recipe.radii_px[1], num)
    else:
        radius = np.array(recipe.radii_px)[rng.integers(len(recipe.radii_px), size=num)]
    mass = np.pi * radius**2 if recipe.mass == "area" else np.ones(num)

    camera = _camera(recipe, streams)
    motion = _seen_from(camera, _move(recipe, rng, radius, mass), recipe.outside_px)
    rgb = np.array([COLORS[name] for name in recipe.colors], np.uint8)[color]
    frames, masks, visible = rasterize(
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
        # later objects occlude earlier ones
        "objects/depth": np.arange(num)[::-1],
        "camera": camera.position,
    }
    if not recipe.has_flat_colors:
        episode |= _shaded(recipe, streams, episode, rgb)
    return padded(episode, layout(recipe))


def _move(recipe: BouncingRecipe, rng: np.random.Generator, radius: np.ndarray, mass: np.ndarray) -> Motion:
    """Draw initial positions and velocities and simulate the motion, in world coordinates."""
    num, collide = len(radius), recipe.contact == "collide"
    start = place_discs(rng, radius, recipe.world_px, apart=collide)
    speed = rng.uniform(recipe.min_speed_px_per_frame, recipe.max_speed_px_per_frame, num)
    velocity = speed[:, None] * directions(rng, num)
    if recipe.joint_speed_px_per_frame is not None:
        norm = np.linalg.norm(velocity)
        velocity *= recipe.joint_speed_px_per_frame / norm if norm > 0 else 1.0
    return simulate(start, velocity, radius, mass, recipe.world_px, recipe.num_frames, collide)


def _camera(recipe: BouncingRecipe, streams: dict[str, np.random.Generator]) -> Motion:
    """Motion of the camera about the centre of the world."""
    if recipe.camera_px:
        return pan(streams["camera"], recipe.num_frames, recipe.camera_px, recipe.camera_speed_px_per_frame)
    return Motion(np.zeros((recipe.num_frames, 2)), np.zeros((recipe.num_frames, 2)))


def _seen_from(camera: Motion, motion: Motion, outside_px: float) -> Motion:
    """Motion in the image: the camera's motion is subtracted from positions and velocities."""
    return Motion(motion.position - outside_px - camera.position[:, None], motion.velocity - camera.velocity[:, None])


def _shaded(
    recipe: BouncingRecipe, streams: dict[str, np.random.Generator], episode: Episode, rgb: np.ndarray
) -> Episode:
    """Frames with background, textures and lighting, and the fields that describe these."""
    textures = draw_patterns(streams["textures"], recipe.textures, 2 * episode["objects/radius"])
    background, background_colors = draw_background(streams["backgrounds"], recipe.backgrounds, recipe.size_px)
    light = changing_light(streams["lighting"], recipe.num_frames, recipe.lighting)
    where = episode["objects/position"], rgb, textures, background, background_colors, episode["camera"], light
    return {
        "frames": shade(episode["masks"], *where),
        "objects/texture": textures.kind,
        "background": background.kind[0],
        "light": light,
    }


@register_generator("bouncing", BouncingRecipe)
class BouncingShapes(Generator[BouncingRecipe]):
    """Generator of bouncing coloured shapes."""

    def layout(self) -> Layout:
        """Fields of the file."""
        return layout(self.recipe)

    def attributes(self) -> dict[str, Any]:
        """The palette, if colours are flat."""
        return attributes(self.recipe)

    def make_episode(self, rng: np.random.Generator) -> Episode:
        """One episode, a pure function of the recipe and the generator's state."""
        return make_episode(self.recipe, rng)

    def file_name(self) -> str:
        """For example bouncing-3-5x64."""
        low, high = self.recipe.min_objects, self.recipe.max_objects
        return f"bouncing-{low if low == high else f'{low}-{high}'}x{self.recipe.size_px}"
