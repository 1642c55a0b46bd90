"""What all data sets of scenes have in common: looks, ground, light and camera."""

from typing import Any, Literal, Self, get_args

from pydantic import Field, model_validator

from slotssm.config import Recipe
from slotssm.data.spec import RGB
from slotssm.documents import nearest
from slotssm.errors import InputError

SceneColor = Literal["gray", "red", "blue", "green", "brown", "purple", "cyan", "yellow", "orange", "pink", "white"]
SCENE_COLORS: dict[str, RGB] = {
    "gray": (110, 110, 110),
    "red": (190, 38, 38),
    "blue": (42, 75, 215),
    "green": (29, 125, 35),
    "brown": (139, 80, 30),
    "purple": (135, 45, 195),
    "cyan": (41, 200, 205),
    "yellow": (240, 222, 50),
    "orange": (240, 130, 30),
    "pink": (240, 120, 170),
    "white": (225, 225, 225),
    "gold": (222, 172, 40),
}
"""Colour names to RGB, CLEVR's eight and a few more; `gold` belongs to the snitch alone."""
MaterialName = Literal["rubber", "metal"]
GroundName = Literal["plain", "gradient", "checker"]
CameraName = Literal["still", "orbit", "head"]
SizeName = Literal["small", "medium", "large"]
SIZES: dict[str, float] = {"small": 0.3, "medium": 0.5, "large": 0.75}
"""Radius of the cylinder around an object, in world units, by the name of its size."""
CLEVR_COLORS: tuple[SceneColor, ...] = get_args(SceneColor)[:8]


class SceneRecipe(Recipe):
    """Rendered objects on a table: everything that their data sets share."""

    num_frames: int = Field(24, ge=1, le=10_000)
    """T: frames of an episode."""
    size_px: int = Field(128, ge=16, le=256)
    """Side of the square frame in pixels."""
    sizes: tuple[SizeName, ...] = Field(("small", "medium", "large"), min_length=1)
    """Sizes to draw from, uniformly: radii of 0.3, 0.5 and 0.75 world units."""
    colors: tuple[SceneColor, ...] = Field(CLEVR_COLORS, min_length=1)
    """Colours to draw from, uniformly."""
    materials: tuple[MaterialName, ...] = Field(("rubber", "metal"), min_length=1)
    """Materials to draw from, uniformly: matt rubber, shiny metal."""
    grounds: tuple[GroundName, ...] = Field(("plain",), min_length=1)
    """Patterns of the ground to draw from, uniformly for each episode."""
    ground_colors: Literal["gray", "any"] = "gray"
    """Whether the ground is gray, or has one (`plain`) or two random muted colours."""
    num_lights: int = Field(2, ge=1, le=2)
    """Lights with hard shadows: a strong one, and with 2 a weak one from another side."""
    cameras: tuple[CameraName, ...] = Field(("still",), min_length=1)
    """Cameras to draw from, uniformly for each episode: at rest, circling, or held by a person who looks around."""
    viewpoints: Literal["fixed", "any"] = "fixed"
    """Whether the camera starts at the same place in all episodes, or on any side and at different heights."""
    samples_per_side: int = Field(1, ge=1, le=8)
    """Antialiasing of `frames`: pixels where colours change are the mean of so many rays squared; 1 is off."""

    @model_validator(mode="after")
    def _check_lists(self) -> Self:
        for name in ("sizes", "colors", "materials", "grounds", "cameras"):
            values = getattr(self, name)
            if len(set(values)) < len(values):
                raise ValueError(f"{name} has duplicates; name each once")
        return self


def check_numbers(low: int, high: int) -> None:
    """Refuse an empty range of numbers of objects."""
    if low > high:
        raise ValueError(f"min_objects {low} exceeds max_objects {high}")


def preset_fields(presets: dict[str, dict[str, Any]], preset: str) -> dict[str, Any]:
    """Fields of a recipe for a preset.

    Raises:
        InputError: unknown preset.
    """
    if preset not in presets:
        raise InputError(f"`preset` {preset} is unknown; {nearest(preset, presets)}")
    return dict(presets[preset])
