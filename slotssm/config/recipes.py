"""What a data set is made of: recipes of the generators, and how many episodes of one."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from slotssm.documents import Config
from slotssm.errors import InputError

RGB = tuple[int, int, int]
PAINTS: dict[str, RGB] = {
    "white": (255, 255, 255),
    "red": (255, 0, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "magenta": (255, 0, 255),
    "cyan": (0, 255, 255),
    "green": (0, 255, 0),
    "orange": (255, 128, 0),
}
"""Colour names to RGB; the first six are those of Blinking Color Balls, in the order of its pixel classes."""
PaintName = Literal["white", "red", "blue", "yellow", "magenta", "cyan", "green", "orange"]
ShapeName = Literal["circle", "square", "triangle"]
TextureName = Literal["plain", "gradient", "stripes", "checker", "noise"]

MAX_COVERAGE = 0.45
"""Share of the frame that discs may cover: random placement without overlap jams at about 0.547."""
MIN_SPEED_PX_PER_FRAME = 1e-6
"""Slower motion cannot be told from rest, and cannot be scaled to a joint speed without loss."""
MIN_TEXTURED_RADIUS_PX = 3.0
"""Smallest radius of an object with a texture: on smaller ones a pattern is finer than pixels."""
MIN_TEXTURED_SIZE_PX = 16
"""Smallest frame with a background that is not plain, for the same reason."""


class BCBRecipe(Config):
    """Blinking Color Balls: everything that decides the content of its episodes (paper, section 7.2)."""

    kind: Literal["bcb"] = "bcb"
    rule: Literal["earliest", "frequent"] = "earliest"
    """Colour of a ball in the target: the first one it got, or the one it got most often."""
    num_frames: int = Field(6, ge=2, le=1000)
    """T: context frames plus the target, which is the last frame."""
    patches_per_side: int = Field(4, ge=1)
    """P: each context frame is read as P x P patches, one a step; 1 reads whole frames."""
    num_balls: int = Field(4, ge=1, le=100)
    """Balls in every episode."""
    size_px: int = Field(64, ge=8, le=256)
    """Side of the square frame in pixels."""
    radius_px: float = Field(5.68, gt=0)
    """Radius of every ball in pixels (measured in the authors' figures)."""
    speed_px_per_frame: float = Field(3.0, ge=0)
    """Speed of every ball in the first frame; collisions redistribute it, its root mean square stays."""
    num_colors: int = Field(5, ge=1, le=5)
    """How many of the five non-white colours are drawn from, in palette order."""

    @property
    def paints(self) -> list[str]:
        """White and the blinking colours; their order is the colour code."""
        return list(PAINTS)[: 1 + self.num_colors]

    @property
    def palette(self) -> list[RGB]:
        """RGB of the pixel classes: black background, white, then the blinking colours."""
        return [(0, 0, 0), *(PAINTS[name] for name in self.paints)]

    @property
    def sequence_length(self) -> int:
        """L = (T - 1) * P * P steps."""
        return (self.num_frames - 1) * self.patches_per_side**2

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.size_px % self.patches_per_side:
            raise ValueError(f"patches_per_side {self.patches_per_side} does not divide size_px {self.size_px}")
        _check_room(self.num_balls, self.radius_px, self.size_px)
        _check_speed(self.speed_px_per_frame, self.size_px)
        return self


class BouncingRecipe(Config):
    """Bouncing coloured shapes; every collision is elastic and every shape collides as its disc.

    From `distinct_colors` on, each field is off by default and draws from a random stream of its own: switching it on
    changes nothing else of an episode (but where objects start, for `outside_px`). While off, these fields are left
    out of saved recipes, so that recipes, hashes and file names from before they existed stay as they were.
    """

    kind: Literal["bouncing"] = "bouncing"
    num_frames: int = Field(30, ge=1, le=10_000)
    """T: frames of an episode."""
    size_px: int = Field(64, ge=8, le=256)
    """Side of the square frame in pixels."""
    min_objects: int = Field(3, ge=0, le=100)
    """Fewest objects of an episode; the number is drawn uniformly."""
    max_objects: int = Field(5, ge=1, le=100)
    """Most objects of an episode (N of the file; episodes with fewer are padded)."""
    shapes: tuple[ShapeName, ...] = Field(("circle", "square", "triangle"), min_length=1)
    """Shapes to draw from, uniformly."""
    colors: tuple[PaintName, ...] = Field(("red", "green", "blue", "yellow", "magenta", "cyan"), min_length=1)
    """Colours to draw from, uniformly and independently for each object."""
    radii_px: tuple[float, ...] = Field((6.0, 9.0), min_length=1)
    """Radii of the discs around the shapes: a range of two values, or a list to choose from (`radius_draw`)."""
    radius_draw: Literal["range", "choice"] = "range"
    """Whether `radii_px` is the two ends of a uniform range or a list of choices."""
    mass: Literal["area", "equal"] = "area"
    """Mass of an object: proportional to the area of its disc, or the same for all."""
    min_speed_px_per_frame: float = Field(1.0, ge=0)
    """Lowest first speed; the speed of each object is uniform, its direction too."""
    max_speed_px_per_frame: float = Field(3.0, ge=0)
    """Highest first speed."""
    joint_speed_px_per_frame: float | None = Field(None, ge=0)
    """Euclidean norm of all objects' first velocities together, as in R-NEM's data; None leaves them as drawn."""
    contact: Literal["collide", "occlude"] = "collide"
    """`collide`: objects bounce off each other and never overlap; `occlude`: they pass in fixed depth order."""
    distinct_colors: bool = False
    """Whether no two objects of an episode share a colour."""
    backgrounds: tuple[TextureName, ...] = Field(("plain",), min_length=1)
    """Backgrounds to draw from, uniformly for each episode, in two random dark colours; `plain` is black."""
    textures: tuple[TextureName, ...] = Field(("plain",), min_length=1)
    """Textures to draw from, uniformly for each object; they darken its colour by up to a half and move with it."""
    lighting: float = Field(0.0, ge=0, le=0.9)
    """Largest share of brightness that the light takes away, slowly and in a random tint; 0 is constant light."""
    outside_px: float = Field(0.0, ge=0)
    """How far beyond the frame the walls stand, at each side, so that objects leave and return; 0: at its edges."""
    camera_px: float = Field(0.0, ge=0)
    """How far the view strays from the middle of the world, along each axis; 0 stands still."""
    camera_speed_px_per_frame: float = Field(1.0, gt=0)
    """Highest speed of the view along an axis, when `camera_px` lets it move."""

    @property
    def world_px(self) -> float:
        """Side of the square box in which objects move; the frame lies in its middle."""
        return self.size_px + 2 * self.outside_px

    @property
    def has_flat_colors(self) -> bool:
        """Whether every pixel is black or one of the colours of `paints`."""
        return {*self.backgrounds, *self.textures} == {"plain"} and self.lighting == 0

    @property
    def paints(self) -> list[str]:
        """The colours that occur, each once."""
        return list(dict.fromkeys(self.colors))

    @property
    def palette(self) -> list[RGB]:
        """RGB of the pixel classes: black background, then the colours that occur."""
        return [(0, 0, 0), *(PAINTS[name] for name in self.paints)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.min_objects > self.max_objects:
            raise ValueError(f"min_objects {self.min_objects} exceeds max_objects {self.max_objects}")
        if self.min_speed_px_per_frame > self.max_speed_px_per_frame:
            raise ValueError("min_speed_px_per_frame exceeds max_speed_px_per_frame")
        if 0 < self.max_speed_px_per_frame < MIN_SPEED_PX_PER_FRAME:
            raise ValueError(f"max_speed_px_per_frame must be 0 or at least {MIN_SPEED_PX_PER_FRAME:g}")
        if min(self.radii_px) <= 0:
            raise ValueError("radii_px must be positive")
        if self.radius_draw == "range" and (len(self.radii_px) != 2 or self.radii_px[0] > self.radii_px[1]):
            raise ValueError("radii_px must be two ascending values when radius_draw is 'range'")
        _check_colors(self)
        _check_textures(self)
        _check_view(self)
        crowd = self.max_objects if self.contact == "collide" else 1
        _check_room(crowd, max(self.radii_px), self.size_px, self.outside_px)
        _check_speed(max(self.max_speed_px_per_frame, self.joint_speed_px_per_frame or 0), self.size_px)
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_off(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = type(self).model_fields
        off = {name for name in SWITCHES if getattr(self, name) == fields[name].default}
        return {name: value for name, value in handler(self).items() if name not in off}


SWITCHES = (
    "distinct_colors",
    "backgrounds",
    "textures",
    "lighting",
    "outside_px",
    "camera_px",
    "camera_speed_px_per_frame",
)
"""Fields of `BouncingRecipe` that a saved recipe leaves out while they are off."""


def _check_colors(recipe: BouncingRecipe) -> None:
    """Refuse more objects than there are colours to tell them apart by."""
    if not recipe.distinct_colors:
        return
    if len(recipe.paints) < len(recipe.colors):
        raise ValueError("distinct_colors needs every one of colors once")
    if recipe.max_objects > len(recipe.colors):
        raise ValueError(
            f"distinct_colors: {recipe.max_objects} objects cannot all differ in {len(recipe.colors)} colors; "
            "take fewer objects or more colors"
        )


def _check_textures(recipe: BouncingRecipe) -> None:
    """Refuse patterns that pixels cannot show."""
    if set(recipe.textures) != {"plain"} and min(recipe.radii_px) < MIN_TEXTURED_RADIUS_PX:
        raise ValueError(
            f"textures need objects of radius {MIN_TEXTURED_RADIUS_PX:g} px or more, not {min(recipe.radii_px):g} px; "
            "take larger radii_px, a larger size or textures 'plain'"
        )
    if set(recipe.backgrounds) != {"plain"} and recipe.size_px < MIN_TEXTURED_SIZE_PX:
        raise ValueError(
            f"backgrounds need a frame of {MIN_TEXTURED_SIZE_PX} px or more, not {recipe.size_px} px; "
            "take a larger size or backgrounds 'plain'"
        )


def _check_view(recipe: BouncingRecipe) -> None:
    """Refuse a world that objects cannot leave by, and a view that loses them."""
    widest = 2 * max(recipe.radii_px)
    if 0 < recipe.outside_px < widest:
        raise ValueError(
            f"outside_px {recipe.outside_px:g} is too narrow for objects of radius {widest / 2:g} px to leave the "
            f"frame; take 0 or at least {widest:g}"
        )
    if recipe.outside_px > recipe.size_px:
        raise ValueError(
            f"outside_px {recipe.outside_px:g} exceeds size_px {recipe.size_px}, so that most objects would be out of "
            "sight; take less"
        )
    if recipe.camera_px > recipe.size_px / 2:
        raise ValueError(
            f"camera_px {recipe.camera_px:g} exceeds half of size_px {recipe.size_px}, so that the view would lose the "
            "objects; take less"
        )
    if 0 < recipe.camera_px < recipe.camera_speed_px_per_frame:
        raise ValueError(
            f"camera_speed_px_per_frame {recipe.camera_speed_px_per_frame:g} exceeds camera_px {recipe.camera_px:g}, "
            "so that the view would shake; take less speed or a larger camera_px"
        )


def _check_room(num_discs: int, radius_px: float, size_px: int, outside_px: float = 0) -> None:
    """Refuse more discs than fit without overlap into the square (to the limit of random placement)."""
    world_px = size_px + 2 * outside_px
    most = int(MAX_COVERAGE * world_px**2 / (math.pi * radius_px**2))
    if 2 * radius_px > size_px * 0.9:
        raise ValueError(f"radius {radius_px:g} px is too large for a frame of {size_px} px")
    if num_discs > most and num_discs > 1:
        raise ValueError(
            f"{num_discs} objects of radius {radius_px:g} px do not fit into {world_px:g} px: at most {most}; "
            "take fewer, smaller ones or a larger size"
        )


def _check_speed(speed_px_per_frame: float, size_px: int) -> None:
    if speed_px_per_frame > size_px / 2:
        raise ValueError(f"a speed of {speed_px_per_frame:g} px/frame crosses half the frame at once")


BOUNCING_PRESETS: dict[str, dict[str, Any]] = {
    "white-balls": {
        "min_objects": 4,
        "max_objects": 4,
        "shapes": ["circle"],
        "colors": ["white"],
        "radii_px": [5.12, 6.4],
        "radius_draw": "choice",
        "joint_speed_px_per_frame": 3.2,
    },
    "easy": {
        "min_objects": 3,
        "max_objects": 3,
        "distinct_colors": True,
        "radii_px": [8.0, 11.0],
        "min_speed_px_per_frame": 0.8,
        "max_speed_px_per_frame": 2.0,
    },
    "medium": {
        "min_objects": 3,
        "max_objects": 5,
        "colors": ["red", "green", "blue", "yellow"],
        "radii_px": [7.0, 10.0],
        "min_speed_px_per_frame": 0.8,
        "max_speed_px_per_frame": 2.0,
        "contact": "occlude",
        "backgrounds": ["gradient"],
        "lighting": 0.3,
    },
    "hard": {
        "min_objects": 3,
        "max_objects": 6,
        "colors": ["red", "green", "blue", "yellow"],
        "radii_px": [8.0, 11.0],
        "min_speed_px_per_frame": 0.8,
        "max_speed_px_per_frame": 2.4,
        "contact": "occlude",
        "backgrounds": ["stripes", "checker", "noise"],
        "textures": ["stripes", "checker", "noise"],
        "lighting": 0.5,
        "outside_px": 24.0,
        "camera_px": 8.0,
        "camera_speed_px_per_frame": 1.0,
    },
}
"""Fields of `BouncingRecipe` by preset, with lengths for a frame of 64 px.

`white-balls` are of two radii and masses, after the paper's video prediction and R-NEM's data: 0.8 and 1.0 of a box of
ten units on 64 px, joint velocity norm 0.5 units a frame; masses follow the area [our choice]. The others grow harder:
`easy` are few colliding shapes on black, `medium` has shapes of common colours that hide each other on a gradient in
changing light, `hard` adds textures, a moving view and objects that leave and return.
"""


def bouncing_fields(preset: str, num_frames: int, size_px: int) -> dict[str, Any]:
    """Fields of `BouncingRecipe` of a preset, its lengths scaled to the frame.

    Raises:
        InputError: unknown preset.
    """
    if preset not in BOUNCING_PRESETS:
        raise InputError(f"--preset {preset} is unknown; there are {', '.join(BOUNCING_PRESETS)}")
    scale = size_px / 64
    fields: dict[str, Any] = {"num_frames": num_frames, "size_px": size_px}
    for name, value in BOUNCING_PRESETS[preset].items():
        if name == "radii_px":
            fields[name] = [radius * scale for radius in value]
        else:
            fields[name] = value * scale if name.endswith(("_px", "_px_per_frame")) else value
    return fields


class FileRecipe(Config):
    """Videos from elsewhere, as `slotssm import` writes them: known by their shape, not by how to make them."""

    kind: Literal["file"] = "file"
    source: str = ""
    """What the videos are: the attribute `generator` of their file, such as `movi`."""
    num_frames: int = Field(ge=1)
    """T: frames of an episode."""
    size_px: int = Field(ge=1)
    """Side of the square frame in pixels."""

    @property
    def paints(self) -> list[str]:
        """No colours are known."""
        return []

    @property
    def palette(self) -> list[RGB]:
        """No pixel classes are known."""
        return []


Recipe = Annotated[BCBRecipe | BouncingRecipe | FileRecipe, Field(discriminator="kind")]


class DataConfig(Config):
    """A data set: the recipe, how many episodes of it, and the seed."""

    recipe: Recipe
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of the data; 0 is a seed like any other."""
    num_train: int = Field(1000, ge=0)
    """Episodes in the split `train`; 0 leaves the split out."""
    num_val: int = Field(100, ge=0)
    """Episodes in the split `val`; 0 leaves the split out."""
    num_test: int = Field(100, ge=0)
    """Episodes in the split `test`; 0 leaves the split out."""

    @property
    def num_episodes(self) -> dict[str, int]:
        """Episodes by split, without the empty ones."""
        counts = {"train": self.num_train, "val": self.num_val, "test": self.num_test}
        return {split: count for split, count in counts.items() if count}
