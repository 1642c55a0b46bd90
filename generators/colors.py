"""Named colours of generated objects."""

from typing import Literal

from slotssm.data.spec import RGB

COLORS: dict[str, RGB] = {
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
ColorName = Literal["white", "red", "blue", "yellow", "magenta", "cyan", "green", "orange"]
