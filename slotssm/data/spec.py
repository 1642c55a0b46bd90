"""Data specification: the sizes and fields of a data set, which tasks and models are built from."""

import json
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import Field

from slotssm.data.episodes import EpisodeFile
from slotssm.data.layout import PICTURE, Layout
from slotssm.documents import Config, load
from slotssm.errors import InputError

RGB = tuple[int, int, int]
CAMERA = ("camera/position", "camera/rotation", "camera/focal_px")
"""Fields that together determine the projection from the world to pixels."""


class FieldSpec(Config):
    """Specification of one dataset of a split, without the episode axis."""

    dims: tuple[str, ...]
    """Names of the axes, such as (time, height, width, channel)."""
    shape: tuple[int, ...]
    """Lengths of the axes."""
    dtype: str
    """Name of the numpy dtype."""
    kind: Literal["", "numeric", "categorical"] = ""
    """Kind of the values; empty if the file does not say."""
    unit: str = ""
    """Unit of numeric values."""
    range: tuple[float, float] | None = None
    """Smallest and largest possible value, if the file says so; for depth, the measured ones."""
    invalid: Literal["", "nan", "0"] = ""
    """Value that marks missing measurements; empty if there is none."""
    categories: tuple[str, ...] = ()
    """Names of the values 0, 1, ... of a categorical field."""
    num_classes: int | None = None
    """Number of classes of a label, or of categories."""


class DataSpec(Config):
    """Specification of a data set: all that tasks and models depend on; from an episode file or a recipe."""

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
    """P that the file suggests for reading its frames as P x P patches; None for whole frames."""
    fields: dict[str, FieldSpec] = Field(default_factory=dict)
    """Specification of each dataset, by its path inside a split (`frames`, `masks`, `objects/position`, ...)."""

    @property
    def num_objects(self) -> int | None:
        """N: length of the object axis; None if no field has one."""
        sizes = (dict(zip(field.dims, field.shape, strict=True)) for field in self.fields.values())
        return next((size["object"] for size in sizes if "object" in size), None)

    @property
    def depth(self) -> FieldSpec | None:
        """Specification of the depth maps; None if there are none."""
        return self.fields.get("depth")

    @property
    def has_camera(self) -> bool:
        """Whether the file has position, rotation and focal length of the camera for every frame."""
        return all(name in self.fields for name in CAMERA)

    @property
    def labels(self) -> dict[str, int]:
        """Fields with one class per episode (such as `snitch_cell`), and their numbers of classes."""
        return {
            name: field.num_classes
            for name, field in self.fields.items()
            if field.num_classes is not None and not field.dims
        }


def spec_from_layout(layout: Layout, attributes: Mapping[str, Any]) -> DataSpec:
    """The specification of a file with these fields and root attributes, equal to `read_spec` of the file.

    Args:
        layout: fields of the file.
        attributes: further root attributes, such as `palette`.

    Raises:
        InputError: there are neither frames nor masks, or an attribute does not conform to the format.
    """
    fields = {
        name: _field_spec(field.dims, field.shape, np.dtype(field.dtype), field.attrs, name)
        for name, field in sorted(layout.items())
    }
    return _spec(fields, attributes, "this layout")


def read_spec(episodes: EpisodeFile, split: str | None = None) -> DataSpec:
    """The specification of an episode file.

    Args:
        episodes: the file.
        split: which split; None takes the fields that are the same in all splits.

    Raises:
        InputError: there is no such split, or, without `split`, the frames of the splits differ in shape.
    """
    if split is not None and split not in episodes.splits:
        raise InputError(f"{episodes.path} has no split {split!r}; it has {', '.join(episodes.splits)}")
    specs = {name: _split_spec(episodes, name) for name in ([split] if split else episodes.splits)}
    first, *others = specs.values()
    for name, other in specs.items():
        if (other.num_frames, other.height, other.width) != (first.num_frames, first.height, first.width):
            raise InputError(
                f"{episodes.path}: {next(iter(specs))} has {first.num_frames} frames of {first.width} x {first.height} "
                f"px and {name} {other.num_frames} of {other.width} x {other.height} px; name one `split`, or write "
                "them with one shape"
            )
    shared = {name: field for name, field in first.fields.items() if all(o.fields.get(name) == field for o in others)}
    return first.replace(fields=shared)


def _split_spec(episodes: EpisodeFile, split: str) -> DataSpec:
    fields = {}
    for name in episodes.fields(split):
        dataset, place = episodes.dataset(split, name), f"{episodes.path}: {split}/{name}"
        attrs, dims = episodes.field_attrs(split, name), episodes.dims(split, name)
        fields[name] = _field_spec(dims[1:], dataset.shape[1:], dataset.dtype, attrs, place)
    return _spec(fields, episodes.attrs, f"{episodes.path}: {split}")


def _spec(fields: dict[str, FieldSpec], attributes: Mapping[str, Any], place: str) -> DataSpec:
    shown = next((fields[name] for name in ("frames", "masks", "depth") if name in fields), None)
    if shown is None or shown.dims[:3] != PICTURE:
        raise InputError(f"{place} has neither frames nor masks, so the size of its frames is unknown")
    frames = fields.get("frames")
    document: dict[str, Any] = dict(zip(("num_frames", "height", "width"), shown.shape, strict=False))
    if frames is not None:
        document["num_channels"] = frames.shape[3]
    for name in ("rule", "patches_per_side", "palette"):
        if name in attributes:
            value = attributes[name]
            document[name] = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    return load(DataSpec, document, place).replace(fields=fields)


def _field_spec(
    dims: tuple[str, ...], shape: tuple[int, ...], dtype: np.dtype, attrs: Mapping[str, Any], place: str
) -> FieldSpec:
    document: dict[str, Any] = {
        "dims": dims,
        "shape": tuple(int(size) for size in shape),
        "dtype": dtype.name,
        "kind": attrs.get("kind", ""),
        "unit": attrs.get("unit", ""),
    }
    if "categories" in attrs:
        document["categories"] = json.loads(attrs["categories"])
        document["num_classes"] = len(document["categories"])
    if "num_classes" in attrs:
        document["num_classes"] = int(attrs["num_classes"])
    if "range" in attrs:
        document["range"] = np.asarray(attrs["range"], np.float64).tolist()
    if "invalid" in attrs:
        document["invalid"] = "nan" if np.isnan(attrs["invalid"]) else f"{attrs['invalid']:g}"
    return load(FieldSpec, document, place)
