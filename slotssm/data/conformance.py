"""Checks of attributes and datasets against the format (docs/data-format.md), each with a one-line error."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from slotssm.data.layout import EPISODE, PICTURE, dims_fault
from slotssm.data.writer import FORMAT, FORMAT_VERSION, PREDICTIONS_FORMAT
from slotssm.errors import InputError

ROOT_TYPES: dict[str, type] = {
    "generator": str,
    "config": str,
    "seed": int,
    "versions": str,
    "rule": str,
    "patches_per_side": int,
    "sequence_length": int,
}
"""Optional root attributes and their types."""
PIXELS = ("frames", "masks", "depth")
"""Fields of pixels, which must have the same size."""


def check_root(attrs: Mapping[str, Any], path: str) -> None:
    """Refuse another format, another version, or root attributes of a wrong type."""
    found, version = attrs.get("format"), attrs.get("format_version")
    if not isinstance(found, str) or found != FORMAT:
        if isinstance(found, str) and found == PREDICTIONS_FORMAT:
            raise InputError(
                f"{path} is a predictions file, not an episode file; `slotssm eval` scores it, as its `predictions`"
            )
        raise InputError(f"{path} is not an episode file: its attribute 'format' is {found!r}, not {FORMAT!r}")
    if not _is(version, int):
        raise InputError(
            f"{path}: its attribute format_version must be the integer {FORMAT_VERSION}, but is {version!r}; "
            "generate or import it again"
        )
    if version != FORMAT_VERSION:
        raise InputError(
            f"{path} has format version {version}; this program reads version {FORMAT_VERSION}: generate or import it "
            "again, or use the slotssm release that wrote it"
        )
    for name, kind in ROOT_TYPES.items():
        if name in attrs and not _is(attrs[name], kind):
            wanted = {str: "text", int: "an integer"}[kind]
            raise InputError(
                f"{path}: its attribute {name} must be {wanted}, but is {_shown(attrs[name])}; generate or import "
                "it again"
            )
    palette = attrs.get("palette")
    if "palette" in attrs and not (
        isinstance(palette, np.ndarray) and palette.dtype == np.uint8 and palette.shape[1:] == (3,) and len(palette)
    ):
        raise InputError(f"{path}: its attribute palette must be uint8 [C, 3], but is {_shown(palette)}; correct it")


def read_dims(attrs: Mapping[str, Any], num_axes: int, place: str) -> tuple[str, ...]:
    """The names of a dataset's axes, from its attribute `dims`."""
    if "dims" not in attrs:
        raise InputError(
            f"{place} has no attribute dims, which names its {num_axes} axes: write it as a JSON list that starts with "
            f'"{EPISODE}"'
        )
    dims = _texts(attrs["dims"])
    fault = "it is not a JSON list of text" if dims is None else dims_fault(dims, num_axes)
    if fault or dims is None:
        raise InputError(f"{place}: its attribute dims is wrong ({fault}); write it again")
    return tuple(dims)


def check_attrs(attrs: Mapping[str, Any], place: str) -> None:
    """Refuse attributes of a dataset that do not conform to the format."""
    kind = attrs.get("kind", "numeric")
    if kind not in ("categorical", "numeric") if isinstance(kind, str) else True:
        raise InputError(f"{place} is of kind {_shown(kind)}; it must be categorical or numeric")
    for name in ("unit", "ids"):
        if name in attrs and not isinstance(attrs[name], str):
            raise InputError(f"{place}: its attribute {name} must be text, but is {_shown(attrs[name])}; correct it")
    if "categories" in attrs and _texts(attrs["categories"]) is None:
        raise InputError(f"{place}: its attribute categories must be a JSON list of text; write it again")
    if "num_classes" in attrs and not (_is(attrs["num_classes"], int) and attrs["num_classes"] > 0):
        raise InputError(f"{place}: its attribute num_classes must be a positive integer; correct it")
    limits = np.asarray(attrs.get("range", (0, 0)))
    if limits.shape != (2,) or limits.dtype.kind not in "iuf" or not np.isfinite(limits).all():
        raise InputError(f"{place}: its attribute range must be two numbers; correct it")
    invalid = attrs.get("invalid", 0)
    if not isinstance(invalid, int | float) or not (invalid == 0 or np.isnan(invalid)):
        raise InputError(f"{place}: its attribute invalid must be 0 or NaN, but is {_shown(invalid)}; correct it")


def check_pixels(name: str, shape: tuple[int, ...], dtype: np.dtype, dims: tuple[str, ...], place: str) -> None:
    """Refuse frames, masks and depth whose type or axes do not conform to the format."""
    wanted = {
        "frames": ("uint8", (*PICTURE, "channel")),
        "masks": ("uint8", PICTURE),
        "depth": ("float32", PICTURE),
    }.get(name)
    if wanted is None:
        return
    kind, axes = wanted
    fault = _frames_fault(shape, dtype) if name == "frames" else _maps_fault(shape, dtype, kind)
    if not fault and dims[1:] != axes:
        fault = f"its attribute dims says {', '.join(dims)}"
    if not fault and 0 in shape[1:]:
        fault = "it has no pixels"
    if fault:
        channels = ", 3" if name == "frames" else ""
        raise InputError(f"{place} is {dtype} {[*shape]}, not {kind} [E, T, H, W{channels}]: {fault}")


def _frames_fault(shape: tuple[int, ...], dtype: np.dtype) -> str:
    if len(shape) == 5 and shape[4] != 3 and shape[2] == 3:
        return "move the channels to the end"
    if len(shape) == 4 or (len(shape) == 5 and shape[4] == 1):
        return "repeat the grey values as red, green and blue"
    if len(shape) == 5 and shape[4] == 4:
        return "blend them with a background and remove the fourth channel"
    if len(shape) != 5 or shape[4] != 3:
        return "write them with these axes"
    if dtype.kind == "f":
        return "scale them to integers from 0 to 255"
    return "" if dtype == np.uint8 else "convert them"


def _maps_fault(shape: tuple[int, ...], dtype: np.dtype, kind: str) -> str:
    if len(shape) == 5:
        return "reduce the channels of objects or slots to one label map (argmax)"
    if len(shape) != 4:
        return "write them with these axes"
    if dtype == np.dtype(kind) and dtype.isnative:
        return ""
    return "write the ids as bytes: 0 background, 1 to 254 objects, 255 ignore" if kind == "uint8" else "convert them"


def check_split(sizes: Mapping[str, Mapping[str, int]], place: str) -> None:
    """Refuse datasets of one split with different numbers of episodes or frames, and pixel fields of different size.

    Args:
        sizes: for each dataset, the lengths of its axes.
        place: file and split, for messages.
    """
    if len({size[EPISODE] for size in sizes.values()}) > 1:
        raise InputError(f"{place}: its datasets differ in their number of episodes; write them again")
    for axis in PICTURE:
        lengths = {
            name: size[axis] for name, size in sizes.items() if axis in size and (axis == "time" or name in PIXELS)
        }
        if len(set(lengths.values())) > 1:
            told = ", ".join(f"{name} {length}" for name, length in sorted(lengths.items()))
            raise InputError(f"{place}: its datasets differ in their axis {axis} ({told}); write them again")


def check_splits(sizes: Mapping[str, Mapping[str, Mapping[str, int]]], path: str) -> None:
    """Refuse splits whose frames, masks or depth differ in number of frames or in size."""
    for name in PIXELS:
        shapes = {split: fields[name] for split, fields in sizes.items() if name in fields}
        known = {tuple(size[axis] for axis in PICTURE) for size in shapes.values()}
        if len(known) > 1:
            told = ", ".join(
                f"{split} {size['time']} of {size['width']} x {size['height']} px" for split, size in shapes.items()
            )
            raise InputError(f"{path}: splits differ in number or size of their {name} ({told}); write one file each")


def _texts(value: Any) -> Sequence[str] | None:
    """A JSON list of strings; None if it is something else."""
    if not isinstance(value, str):
        return None
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) and all(isinstance(text, str) for text in found) else None


def _is(value: Any, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    """The value of an attribute, for a message."""
    text = f"{value.dtype} {[*value.shape]}" if isinstance(value, np.ndarray) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
