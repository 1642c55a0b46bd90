"""Recipe of bouncing shapes, and presets of increasing difficulty."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from generators.colors import COLORS, ColorName
from generators.limits import MIN_SPEED_PX_PER_FRAME, check_coverage, check_speed
from slotssm.config import Recipe
from slotssm.data.spec import RGB
from slotssm.documents import nearest
from slotssm.errors import InputError

ShapeName = Literal["circle", "square", "triangle"]
TextureName = Literal["plain", "gradient", "stripes", "checker", "noise"]
MIN_TEXTURED_RADIUS_PX = 3.0
"""Smallest radius of an object with a texture: on smaller ones, patterns are finer than the pixel grid."""
MIN_TEXTURED_SIZE_PX = 16
"""Smallest frame with a background that is not plain, for the same reason."""


class BouncingRecipe(Recipe):
    """Bouncing coloured shapes; collisions are elastic, and every shape collides like its circumscribed disc.

    From `distinct_colors` on, fields are off by default and draw from random streams of their own: switching one on
    does not change the rest of an episode (except the initial positions, for `outside_px`).
    """

    kind: Literal["bouncing"] = "bouncing"
    num_frames: int = Field(30, ge=1, le=10_000)
    """T: frames of an episode."""
    size_px: int = Field(64, ge=8, le=256)
    """Side of the square frame in pixels."""
    min_objects: int = Field(3, ge=0, le=100)
    """Smallest number of objects in an episode; the number is drawn uniformly."""
    max_objects: int = Field(5, ge=1, le=100)
    """Largest number of objects in an episode (N of the file; episodes with fewer are padded)."""
    shapes: tuple[ShapeName, ...] = Field(("circle", "square", "triangle"), min_length=1)
    """Shapes to draw from, uniformly."""
    colors: tuple[ColorName, ...] = Field(("red", "green", "blue", "yellow", "magenta", "cyan"), min_length=1)
    """Colours to draw from, uniformly and independently for each object."""
    radii_px: tuple[float, ...] = Field((6.0, 9.0), min_length=1)
    """Radii of the discs around the shapes: a range of two values, or a list to choose from (`radius_draw`)."""
    radius_draw: Literal["range", "choice"] = "range"
    """Whether `radii_px` is the two ends of a uniform range or a list of choices."""
    mass: Literal["area", "equal"] = "area"
    """Mass of an object: proportional to the area of its disc, or the same for all."""
    min_speed_px_per_frame: float = Field(1.0, ge=0)
    """Lowest initial speed; speed and direction of each object are drawn uniformly."""
    max_speed_px_per_frame: float = Field(3.0, ge=0)
    """Highest initial speed."""
    joint_speed_px_per_frame: float | None = Field(None, ge=0)
    """Joint Euclidean norm of all objects' initial velocities, as in R-NEM's data; None does not rescale them."""
    contact: Literal["collide", "occlude"] = "collide"
    """`collide`: objects bounce off each other and never overlap; `occlude`: they occlude each other in a fixed depth
    order."""
    distinct_colors: bool = False
    """Whether no two objects of an episode share a colour."""
    backgrounds: tuple[TextureName, ...] = Field(("plain",), min_length=1)
    """Backgrounds to draw from, uniformly for each episode, in two random dark colours; `plain` is black."""
    textures: tuple[TextureName, ...] = Field(("plain",), min_length=1)
    """Textures to draw from, uniformly for each object; they darken its colour by up to half and move with it."""
    lighting: float = Field(0.0, ge=0, le=0.9)
    """Largest fraction of brightness that the slowly changing, randomly tinted light removes; 0 is constant light."""
    outside_px: float = Field(0.0, ge=0)
    """Distance of the walls outside the frame, on each side, so that objects leave and return; 0: at its edges."""
    camera_px: float = Field(0.0, ge=0)
    """Largest distance of the camera from the centre of the world along each axis; 0: static camera."""
    camera_speed_px_per_frame: float = Field(1.0, gt=0)
    """Highest speed of the camera along an axis, if `camera_px` is positive."""

    @property
    def world_px(self) -> float:
        """Side of the square box in which objects move; the frame is at its centre."""
        return self.size_px + 2 * self.outside_px

    @property
    def has_flat_colors(self) -> bool:
        """Whether every pixel is black or one of the colours in `color_names`."""
        return {*self.backgrounds, *self.textures} == {"plain"} and self.lighting == 0

    @property
    def color_names(self) -> list[str]:
        """Names of the colours that occur, without duplicates."""
        return list(dict.fromkeys(self.colors))

    @property
    def palette(self) -> list[RGB]:
        """RGB of the pixel classes: black background, then the colours that occur."""
        return [(0, 0, 0), *(COLORS[name] for name in self.color_names)]

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
        check_coverage(crowd, max(self.radii_px), self.size_px, self.outside_px)
        check_speed(max(self.max_speed_px_per_frame, self.joint_speed_px_per_frame or 0), self.size_px)
        return self


def _check_colors(recipe: BouncingRecipe) -> None:
    """Refuse more objects than colours if colours must be distinct."""
    if not recipe.distinct_colors:
        return
    if len(recipe.color_names) < len(recipe.colors):
        raise ValueError("distinct_colors needs colors without duplicates")
    if recipe.max_objects > len(recipe.colors):
        raise ValueError(
            f"distinct_colors: {recipe.max_objects} objects need more than {len(recipe.colors)} colors; "
            "use fewer objects or more colors"
        )


def _check_textures(recipe: BouncingRecipe) -> None:
    """Refuse patterns that are finer than the pixel grid."""
    if set(recipe.textures) != {"plain"} and min(recipe.radii_px) < MIN_TEXTURED_RADIUS_PX:
        raise ValueError(
            f"textures need objects of radius {MIN_TEXTURED_RADIUS_PX:g} px or more, not {min(recipe.radii_px):g} px; "
            "use larger radii_px, a larger size or textures 'plain'"
        )
    if set(recipe.backgrounds) != {"plain"} and recipe.size_px < MIN_TEXTURED_SIZE_PX:
        raise ValueError(
            f"backgrounds need a frame of {MIN_TEXTURED_SIZE_PX} px or more, not {recipe.size_px} px; "
            "use a larger size or backgrounds 'plain'"
        )


def _check_view(recipe: BouncingRecipe) -> None:
    """Refuse margins too narrow for objects to leave the frame, and camera motion that loses them."""
    widest = 2 * max(recipe.radii_px)
    if 0 < recipe.outside_px < widest:
        raise ValueError(
            f"outside_px {recipe.outside_px:g} is too narrow for objects of radius {widest / 2:g} px to leave the "
            f"frame; use 0 or at least {widest:g}"
        )
    if recipe.outside_px > recipe.size_px:
        raise ValueError(
            f"outside_px {recipe.outside_px:g} exceeds size_px {recipe.size_px}, so most objects would be out of "
            "sight; reduce it"
        )
    if recipe.camera_px > recipe.size_px / 2:
        raise ValueError(
            f"camera_px {recipe.camera_px:g} exceeds half of size_px {recipe.size_px}, so the camera would lose the "
            "objects; reduce it"
        )
    if 0 < recipe.camera_px < recipe.camera_speed_px_per_frame:
        raise ValueError(
            f"camera_speed_px_per_frame {recipe.camera_speed_px_per_frame:g} exceeds camera_px {recipe.camera_px:g}, "
            "so the camera would shake; use a lower speed or a larger camera_px"
        )


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

`white-balls` has two radii and masses, as in the paper's video prediction and R-NEM's data: radii 0.8 and 1.0 in a box
of ten units on 64 px, joint velocity norm 0.5 units per frame; masses proportional to the area are our choice. The
others are of increasing difficulty: `easy` has few colliding shapes on black, `medium` has shapes with shared colours
that occlude each other on a gradient in changing light, `hard` adds textures, a moving camera, and objects that leave
and return.
"""


def bouncing_fields(preset: str, num_frames: int, size_px: int) -> dict[str, Any]:
    """Fields of `BouncingRecipe` for a preset, with lengths scaled to the frame.

    Raises:
        InputError: unknown preset.
    """
    if preset not in BOUNCING_PRESETS:
        raise InputError(f"`preset` {preset} is unknown; {nearest(preset, BOUNCING_PRESETS)}")
    scale = size_px / 64
    fields: dict[str, Any] = {"num_frames": num_frames, "size_px": size_px}
    for name, value in BOUNCING_PRESETS[preset].items():
        if name == "radii_px":
            fields[name] = [radius * scale for radius in value]
        else:
            fields[name] = value * scale if name.endswith(("_px", "_px_per_frame")) else value
    return fields
