"""What a task and a model may know of a data set: its sizes, and what is annotated."""

from typing import Literal

from slotssm.documents import Config

RGB = tuple[int, int, int]


class FieldSpec(Config):
    """One dataset of a split, without the axis of episodes."""

    dims: tuple[str, ...]
    """Names of the axes, such as (time, height, width, channel)."""
    shape: tuple[int, ...]
    """Their lengths."""
    dtype: str
    """Name of the numpy dtype."""
    kind: Literal["", "numeric", "categorical"] = ""
    """What the values are, where the file says so."""
    unit: str = ""
    """Unit of numbers."""
    categories: tuple[str, ...] = ()
    """Names of the values 0, 1, ... of a categorical field."""
    num_classes: int | None = None
    """Number of classes of a label."""


class DataSpec(Config):
    """All that a task and a model may know of data: read from an episode file, or from the recipe of one."""

    num_frames: int
    """T: frames of an episode."""
    height: int
    """H: height of a frame in pixels."""
    width: int
    """W: width of a frame in pixels."""
    num_channels: int = 3
    """Channels of a frame."""
    palette: tuple[RGB, ...] = ()
    """RGB of the pixel classes, the background first; empty unless every pixel is one of these colours."""
    rule: str = ""
    """Rule of Blinking Color Balls by which the last frame is coloured; empty for other data."""
    patches_per_side: int | None = None
    """P that the file suggests to read its frames by; None for whole frames."""
    fields: dict[str, FieldSpec] = {}
    """Path inside a split (`frames`, `masks`, `objects/position`, ...) to what it holds."""
