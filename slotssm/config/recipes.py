"""What a data set is made of: recipes of the generators, and how many episodes of one."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from slotssm.documents import Config

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

MAX_COVERAGE = 0.45
"""Share of the frame that discs may cover: random placement without overlap jams at about 0.547."""
MIN_SPEED_PX_PER_FRAME = 1e-6
"""Slower motion cannot be told from rest, and cannot be scaled to a joint speed without loss."""


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
    """Bouncing coloured shapes on black; every collision is elastic and every shape collides as its disc."""

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
        crowd = self.max_objects if self.contact == "collide" else 1
        _check_room(crowd, max(self.radii_px), self.size_px)
        _check_speed(max(self.max_speed_px_per_frame, self.joint_speed_px_per_frame or 0), self.size_px)
        return self


def _check_room(num_discs: int, radius_px: float, size_px: int) -> None:
    """Refuse more discs than fit without overlap into the square (to the limit of random placement)."""
    most = int(MAX_COVERAGE * size_px**2 / (math.pi * radius_px**2))
    if 2 * radius_px > size_px * 0.9:
        raise ValueError(f"radius {radius_px:g} px is too large for a frame of {size_px} px")
    if num_discs > most and num_discs > 1:
        raise ValueError(
            f"{num_discs} objects of radius {radius_px:g} px do not fit into {size_px} px: at most {most}; "
            "take fewer, smaller ones or a larger size"
        )


def _check_speed(speed_px_per_frame: float, size_px: int) -> None:
    if speed_px_per_frame > size_px / 2:
        raise ValueError(f"a speed of {speed_px_per_frame:g} px/frame crosses half the frame at once")


Recipe = Annotated[BCBRecipe | BouncingRecipe, Field(discriminator="kind")]


class DataConfig(Config):
    """A generated data set: the recipe, how many episodes of it, and the seed."""

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
