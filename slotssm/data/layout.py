"""Fields of an episode file, with named axes (format: docs/data-format.md)."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from slotssm.errors import InputError

try:
    from isal import isal_zlib as deflate  # the same format, much faster; h5py reads it without plugins
except ImportError:
    import zlib as deflate  # type: ignore[no-redef]

COMPRESSION_LEVEL = 1
"""Deflate level."""
CHUNK_BYTES = 1 << 20
"""A chunk holds whole frames of one episode up to about this size before compression."""

EPISODE = "episode"
PICTURE = ("time", "height", "width")
"""First axes of image fields."""
LEADING_AXES = (*PICTURE, "channel", "object", "action", "slot", "xy", "xyz", "rgb")
"""Names allowed for the axis after the episode axis; further axes of a field may have other names."""

_MOVING = (EPISODE, "time", "object")
_SLOTS = (EPISODE, "time", "slot")
KNOWN_DIMS = {
    ("frames", 5): (EPISODE, *PICTURE, "channel"),
    ("masks", 4): (EPISODE, *PICTURE),
    ("masks", 5): (*_SLOTS, "height", "width"),
    ("depth", 4): (EPISODE, *PICTURE),
    ("slots", 4): (*_SLOTS, "slot_dim"),
    ("attention", 5): (*_SLOTS, "token_row", "token_column"),
    ("slot_frames", 6): (*_SLOTS, "height", "width", "channel"),
    ("classes", 4): (EPISODE, *PICTURE),
    ("logits", 3): (EPISODE, "time", "class"),
    ("objects/position", 4): (*_MOVING, "xy"),
    ("objects/velocity", 4): (*_MOVING, "xy"),
    ("objects/world_position", 4): (*_MOVING, "xyz"),
    ("objects/world_velocity", 4): (*_MOVING, "xyz"),
    ("objects/visible", 3): _MOVING,
    ("objects/unoccluded", 3): _MOVING,
}
"""Axes by name and number of axes: of predictions, and of files without the attribute `dims`."""

Episode = dict[str, np.ndarray]
"""One episode: field name to array, without the episode axis."""


@dataclass(frozen=True)
class Field:
    """One dataset of a split.

    Attributes:
        dims: names of the axes without the episode axis, such as (time, object, xy); `time`, if present, comes first.
        shape: lengths of these axes.
        dtype: numpy dtype name.
        image: True for pixel data, which are compressed in one or more chunks per episode; the small object fields are
            contiguous and uncompressed.
        attrs: HDF5 attributes, such as `kind` with `unit` or `categories`.

    Raises:
        InputError: axes and shape do not belong together, or the first axis is unknown.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    image: bool = False
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if fault := dims_fault((EPISODE, *self.dims), len(self.shape) + 1):
            raise InputError(f"a field of shape {self.shape} cannot have the axes {self.dims}: {fault}")
        if self.image and self.dims[:3] != PICTURE:
            raise InputError(f"an image field has the axes {self.dims}; they must start with {', '.join(PICTURE)}")

    @property
    def chunk_frames(self) -> int:
        """Frames in a chunk (image fields)."""
        frame_bytes = math.prod(self.shape[1:]) * np.dtype(self.dtype).itemsize
        return max(1, min(self.shape[0], CHUNK_BYTES // frame_bytes))

    @property
    def shuffles(self) -> bool:
        """Whether the bytes of a chunk are stored in planes before compression (HDF5's shuffle filter, image fields).

        Neighbouring numbers share their first bytes and differ in the last ones, which compress badly when mixed; and
        the same pixel of the next frame comes within reach of deflate's window.
        """
        return np.dtype(self.dtype).itemsize > 1

    @property
    def num_bytes(self) -> int:
        """Uncompressed bytes of one episode."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def chunks(self, array: np.ndarray) -> Iterator[tuple[int, bytes]]:
        """First frame and compressed bytes of every chunk of one episode's array (image fields)."""
        for start in range(0, len(array), self.chunk_frames):
            chunk = array[start : start + self.chunk_frames]
            if len(chunk) < self.chunk_frames:
                rest = np.zeros((self.chunk_frames - len(chunk), *chunk.shape[1:]), chunk.dtype)
                chunk = np.concatenate([chunk, rest])
            plain = (
                chunk.view(np.uint8).reshape(-1, chunk.itemsize).T.tobytes() if self.shuffles else chunk.data.cast("B")
            )
            yield start, deflate.compress(plain, COMPRESSION_LEVEL)

    def stored_bytes(self, array: np.ndarray) -> int:
        """Size of one episode's array in the file, in bytes."""
        return sum(len(chunk) for _, chunk in self.chunks(array)) if self.image else self.num_bytes


Layout = dict[str, Field]
"""Path inside a split (`frames`, `objects/position`, ...) to its field."""


def dims_fault(dims: Sequence[str], num_axes: int) -> str:
    """What is wrong with the names of a dataset's axes, including the episode axis; empty if they are valid."""
    if len(dims) != num_axes:
        return f"{len(dims)} names for {num_axes} axes"
    if not dims or dims[0] != EPISODE:
        return f"the first axis must be {EPISODE!r}"
    if len(set(dims)) < len(dims):
        return "names must differ"
    if not all(name.isidentifier() for name in dims):
        return "names must be words of letters, digits and _"
    if len(dims) > 1 and dims[1] not in LEADING_AXES:
        return f"{dims[1]!r} is unknown as the axis after {EPISODE!r}; known are {', '.join(LEADING_AXES)}"
    if "time" in dims[2:]:
        return f"'time' must come right after {EPISODE!r}"
    return ""


def numeric(unit: str) -> dict[str, str]:
    """Attributes of a numeric property."""
    return {"kind": "numeric", "unit": unit}


def categorical(categories: Sequence[str]) -> dict[str, str]:
    """Attributes of a categorical property: values are indices into `categories`."""
    return {"kind": "categorical", "categories": json.dumps(list(categories))}


def label(num_classes: int) -> dict[str, Any]:
    """Attributes of a label: values are classes from 0 to `num_classes` - 1, without names."""
    return {"kind": "categorical", "num_classes": num_classes}


def standard_layout(num_frames: int, height: int, width: int, num_objects: int) -> Layout:
    """The fields that every generated 2-D data set has."""
    objects, per_frame = ("time", "object"), (num_frames, num_objects)
    return {
        "frames": Field((*PICTURE, "channel"), (num_frames, height, width, 3), "uint8", image=True),
        "masks": Field(PICTURE, (num_frames, height, width), "uint8", image=True),
        "objects/position": Field((*objects, "xy"), (*per_frame, 2), "float32", attrs=numeric("px")),
        "objects/velocity": Field((*objects, "xy"), (*per_frame, 2), "float32", attrs=numeric("px/frame")),
        "objects/visible": Field(objects, per_frame, "uint16", attrs=numeric("px")),
    }
