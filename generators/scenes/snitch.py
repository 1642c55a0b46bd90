"""The hidden snitch: CATER's world (Girdhar and Ramanan 2020), where cones cover objects and move with them.

In the last frame, in which cell of the table is the snitch? It may be in sight, behind something, under cones that have
not moved since, or carried away by them.
"""

from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field as Setting
from pydantic import model_validator

from generators.padding import padded
from generators.scenes import filming, stage
from generators.scenes.choreography import ACTIONS, EDGE, Manners, Play, fits_under, play, scatter
from generators.scenes.looks import draw_ground, draw_lights, draw_view
from generators.scenes.raycaster import render
from generators.scenes.scene_recipe import SCENE_COLORS, SIZES, SceneRecipe, check_numbers
from generators.scenes.solids import CONE, CUBE, CYLINDER, SHAPES, SNITCH, SPHERE
from generators.scenes.viewpoint import View
from slotssm.data.episodes import Episode, Field, Layout, categorical, label, numeric
from slotssm.data.generator import Generator
from slotssm.errors import InputError
from slotssm.grid import ENDINGS, snitch_cell
from slotssm.registry import register_generator

STREAMS = ("objects", "motion", "ground", "light", "camera", "ending")
"""Random streams of an episode, in the order in which they are spawned; new ones must come last."""
DISTANCE = 11.4
"""Distance of the camera from the middle of the table, at which all of it is in the frame."""
SNITCH_RADIUS, SNITCH_SIZE = 0.28, "snitch"
NUM_CELLS = 36
VISIBLE, OCCLUDED, CONTAINED, CARRIED = range(len(ENDINGS))
ATTEMPTS = 3000
"""Motions that are planned until one ends as it was asked for."""


class SnitchRecipe(SceneRecipe):
    """CATER's world: objects rotate, slide, are picked and placed, and cones contain others, also the snitch."""

    kind: Literal["snitch"] = "snitch"
    num_frames: int = Setting(300, ge=1, le=10_000)
    """T: frames of an episode."""
    min_objects: int = Setting(5, ge=0, le=20)
    """Smallest number of objects besides the snitch; the number is drawn uniformly."""
    max_objects: int = Setting(10, ge=1, le=20)
    """Largest number of objects besides the snitch (N - 1 of the file; episodes with fewer are padded)."""
    min_cones: int = Setting(2, ge=0, le=20)
    """Smallest number of cones among them, which are the only containers."""
    max_cones: int = Setting(4, ge=0, le=20)
    """Largest number of cones among them, at most all; the others are cubes, spheres and cylinders."""
    edge: float = Setting(EDGE, ge=1, le=EDGE)
    """Objects stand in [-edge, edge]² with their centres. The cells stay those of the whole table, 1 × 1 each, so that
    with 2 the snitch is always in one of the 4 × 4 cells in the middle."""
    camera_distance: float = Setting(DISTANCE, ge=6, le=30)
    """Distance of the camera from the middle of the table in world units; at 11.4 the whole table is in the frame."""
    slot_frames: int = Setting(30, ge=4, le=1000)
    """Length of a slot, within which every action starts and ends."""
    max_moving: int = Setting(4, ge=1, le=20)
    """Largest number of objects that act in a slot; the number is drawn uniformly from 1."""
    containment: float = Setting(0.6, ge=0, le=1)
    """Probability that an acting cone covers an object, if it can."""
    preference: float = Setting(0.5, ge=0, le=1)
    """Probability that a cone that covers an object chooses the snitch, or the cones over it, if it can."""
    release: float = Setting(0.3, ge=0, le=1)
    """Probability that an acting cone that contains something is picked up and leaves it, instead of sliding along."""
    ending_shares: tuple[float, ...] | None = Setting(None)
    """Shares of episodes whose snitch ends visible, occluded, contained and carried; None takes what happens."""
    min_hidden_frames: int = Setting(0, ge=0, le=10_000)
    """Smallest number of frames for which a snitch that ends contained or carried has been contained."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_numbers(self.min_objects, self.max_objects)
        if self.min_cones > self.max_cones:
            raise ValueError(f"min_cones {self.min_cones} exceeds max_cones {self.max_cones}")
        if self.min_cones > self.min_objects:
            raise ValueError(f"min_cones {self.min_cones} exceeds min_objects {self.min_objects}; cones are objects")
        area = (self.max_objects + 1) * np.pi * max(SIZES[size] for size in self.sizes) ** 2
        if area > 0.55 * (2 * self.edge) ** 2:
            raise ValueError(
                f"{self.max_objects} objects of these sizes leave no room to move; use fewer objects, smaller sizes, "
                "or a larger edge"
            )
        self._check_endings()
        return self

    def _check_endings(self) -> None:
        if self.min_hidden_frames >= self.num_frames > 1:
            raise ValueError(
                f"min_hidden_frames {self.min_hidden_frames} must be below num_frames {self.num_frames}, since every "
                "episode starts with the snitch in the open"
            )
        if self.ending_shares is None:
            return
        shares = self.ending_shares
        if len(shares) != len(ENDINGS) or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise ValueError(
                f"ending_shares must be four shares that add up to 1 ({', '.join(ENDINGS)}), not "
                f"{', '.join(f'{share:g}' for share in shares)}"
            )
        hidden = shares[CONTAINED] + shares[CARRIED]
        can_cover = self.min_cones > 0 and self.containment > 0
        if hidden and not (can_cover and fits_under(np.array([SNITCH]), np.array([SNITCH_RADIUS]), self.largest).any()):
            raise ValueError(
                "ending_shares asks for a contained snitch, which needs min_cones and containment above 0 and sizes "
                "with medium or large"
            )
        if hidden and self.num_frames < self.min_hidden_frames + 8:
            raise ValueError(f"{self.num_frames} frames are too few for a snitch that ends contained; use more frames")

    @property
    def largest(self) -> float:
        """Radius of the largest objects."""
        return max(SIZES[size] for size in self.sizes)


SNITCH_PRESETS: dict[str, dict[str, Any]] = {
    "still": {},
    "moving": {"cameras": ["orbit", "head"]},
    "easy": {"containment": 0.0, "max_cones": 2},
    "hard": {"ending_shares": [0.1, 0.0, 0.3, 0.6], "preference": 0.8, "release": 0.15, "min_hidden_frames": 60},
}
"""Fields of `SnitchRecipe` by preset: a still and a moving camera, nothing contained, and most often carried."""


def layout(recipe: SnitchRecipe) -> Layout:
    """Fields of a snitch file."""
    num, per_frame = recipe.max_objects + 1, ("time", "object")
    colors, sizes = [*recipe.colors, "gold"], [*recipe.sizes, SNITCH_SIZE]
    num_slots = max(1, recipe.num_frames // recipe.slot_frames)
    fields = filming.layout(recipe.num_frames, recipe.size_px, num, colors, SHAPES)
    return fields | {
        "objects/size": Field(("object",), (num,), "uint8", attrs=categorical(sizes)),
        "objects/contained_by": Field(
            per_frame, (recipe.num_frames, num), "uint8", attrs=numeric("0, or 1 + index of the container")
        ),
        "actions": Field(
            ("action", "entry"),
            (num_slots * recipe.max_moving, 4),
            "int32",
            attrs={"categories": categorical(ACTIONS)["categories"]},
        ),
        "snitch_cell": Field((), (), "uint8", attrs=label(NUM_CELLS)),
        "snitch_ending": Field((), (), "uint8", attrs=categorical(ENDINGS)),
        "hidden_frames": Field((), (), "uint16", attrs=numeric("last frames without a pixel of the snitch")),
        "num_containers": Field((), (), "uint8", attrs=numeric("cones over the snitch in the last frame")),
        "num_objects": Field((), (), "uint8", attrs=numeric("objects")),
    }


def make_episode(recipe: SnitchRecipe, rng: np.random.Generator) -> Episode:
    """Make one episode: a pure function of the recipe and the state of `rng`."""
    streams = dict(zip(STREAMS, rng.spawn(len(STREAMS)), strict=True))
    cast, codes = _cast(recipe, streams["objects"])
    view = draw_view(streams["camera"], recipe, recipe.camera_distance)
    ground, lights = draw_ground(streams["ground"], recipe), draw_lights(streams["light"], recipe)
    set_ = stage.Scene(cast, view, ground, lights, recipe.samples_per_side)
    wanted = None
    if recipe.ending_shares is not None:
        shares = np.array(recipe.ending_shares)
        wanted = int(streams["ending"].choice(len(ENDINGS), p=shares / shares.sum()))
    acted = _rehearsed(recipe, streams["motion"], set_, wanted)

    scene = replace(set_, solids=_acting(cast, acted))
    episode = filming.filmed(scene, recipe.size_px)
    place = episode["objects/world_position"][-1, 0]
    hidden = _hidden_frames(episode["objects/visible"][:, 0])
    ending = _ending(acted) or (OCCLUDED if hidden else VISIBLE)
    num_actions = layout(recipe)["actions"].shape[0]
    actions = np.full((num_actions, 4), -1)
    actions[: len(acted.actions)] = acted.actions
    episode |= codes | {
        "objects/contained_by": acted.contained_by,
        "actions": actions,
        "snitch_cell": np.array(snitch_cell(float(place[0]), float(place[1]))),
        "snitch_ending": np.array(ending),
        "hidden_frames": np.array(hidden),
        "num_containers": np.array(len(_covers(acted, -1))),
        "num_objects": np.array(len(cast.shape)),
    }
    return padded(episode, layout(recipe))


def _cast(recipe: SnitchRecipe, rng: np.random.Generator) -> tuple[stage.Solids, Episode]:
    """The snitch and the other objects, not yet in their places, and the codes of their categories."""
    num = int(rng.integers(recipe.min_objects, recipe.max_objects + 1))
    num_cones = int(rng.integers(recipe.min_cones, min(recipe.max_cones, num) + 1))
    shape = np.array([CUBE, SPHERE, CYLINDER])[rng.integers(3, size=num)]
    shape[:num_cones] = CONE
    size = rng.integers(len(recipe.sizes), size=num)
    color, material = rng.integers(len(recipe.colors), size=num), rng.integers(len(recipe.materials), size=num)
    if num_cones:
        # at least one cone can contain the snitch, if the sizes allow that
        able = [
            code
            for code, name in enumerate(recipe.sizes)
            if fits_under(np.array([SNITCH]), np.array([SNITCH_RADIUS]), SIZES[name]).all()
        ]
        size[0] = able[rng.integers(len(able))] if able else size[0]
    codes: Episode = {
        "objects/shape": np.concatenate([[SNITCH], shape]),
        "objects/size": np.concatenate([[len(recipe.sizes)], size]),
        "objects/color": np.concatenate([[len(recipe.colors)], color]),
    }
    radius = np.concatenate([[SNITCH_RADIUS], np.array([SIZES[name] for name in recipe.sizes])[size]])
    materials = np.array([stage.MATERIALS.index(name) for name in recipe.materials])[material]
    rgb = np.array([SCENE_COLORS[name] for name in (*recipe.colors, "gold")])[codes["objects/color"]] / 255
    solids = stage.Solids(
        codes["objects/shape"],
        radius,
        np.concatenate([[stage.MATERIALS.index("metal")], materials]),
        rgb,
        np.zeros((0, num + 1, 3)),
        np.zeros((0, num + 1, 4)),
    )
    return solids, codes


def _rehearsed(recipe: SnitchRecipe, rng: np.random.Generator, scene: stage.Scene, wanted: int | None) -> Play:
    """The first motion that ends as wanted, with the snitch contained for long enough.

    Raises:
        InputError: there was none in many attempts.
    """
    cast = scene.solids
    manners = Manners(
        recipe.slot_frames, recipe.max_moving, recipe.containment, recipe.preference, recipe.release, recipe.edge
    )
    for _ in range(ATTEMPTS):
        place = scatter(rng, cast.radius, recipe.edge)
        acted = play(rng, cast.shape, cast.radius, place, recipe.num_frames, manners)
        found = _ending(acted)
        if found is not None and len(acted.contained_by) - _contained_since(acted) < recipe.min_hidden_frames:
            continue
        if wanted is None:
            return acted
        if found is None and wanted in (VISIBLE, OCCLUDED):
            found = VISIBLE if _is_seen_at_last(scene, acted, recipe.size_px) else OCCLUDED
        if found == wanted:
            return acted
    raise InputError(
        f"no motion in {ATTEMPTS} attempts ends with the snitch {ENDINGS[wanted or 0]}; ask for other ending_shares, "
        "fewer min_hidden_frames, or more frames, cones or containment"
    )


def _acting(cast: stage.Solids, acted: Play) -> stage.Solids:
    return stage.stored_solids(replace(cast, position=acted.position, quaternion=acted.quaternion))


def _is_seen_at_last(scene: stage.Scene, acted: Play, size_px: int) -> bool:
    """Whether the snitch has a visible pixel in the last frame."""
    solids, view = _acting(scene.solids, acted), scene.view
    last = replace(solids, position=solids.position[-1:], quaternion=solids.quaternion[-1:])
    seen_from = View(view.position[-1:], view.rotation[-1:], view.focal_px[-1:])
    return bool(render(replace(scene, solids=last, view=seen_from, samples_per_side=1), size_px, size_px)[3][0, 0])


def _covers(acted: Play, frame: int) -> list[int]:
    """The cones over the snitch, the innermost first."""
    covers, above = [], int(acted.contained_by[frame, 0])
    while above:
        covers.append(above - 1)
        above = int(acted.contained_by[frame, above - 1])
    return covers


def _contained_since(acted: Play) -> int:
    """First of the last frames in all of which the snitch is contained."""
    free = np.flatnonzero(acted.contained_by[:, 0] == 0)
    return int(free[-1]) + 1 if len(free) else 0


def _ending(acted: Play) -> int | None:
    """Whether the snitch ends contained, or carried since it was covered; None if it ends in the open."""
    if not acted.contained_by[-1, 0]:
        return None
    before = acted.position[_contained_since(acted), 0]
    return CARRIED if np.abs(acted.position[-1, 0] - before).max() > 1e-6 else CONTAINED


def _hidden_frames(visible: np.ndarray) -> int:
    """Number of last frames without a visible pixel."""
    seen = np.flatnonzero(visible)
    return len(visible) - 1 - int(seen[-1]) if len(seen) else len(visible)


@register_generator("snitch", SnitchRecipe)
class Snitch(Generator[SnitchRecipe]):
    """Generator of the hidden snitch."""

    def layout(self) -> Layout:
        """Fields of the file."""
        return layout(self.recipe)

    def make_episode(self, rng: np.random.Generator) -> Episode:
        """Make one episode: a pure function of the recipe and the state of `rng`."""
        return make_episode(self.recipe, rng)

    def file_name(self) -> str:
        """For example snitch-300x128."""
        return f"snitch-{self.recipe.num_frames}x{self.recipe.size_px}"
