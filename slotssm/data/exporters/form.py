"""Common interface of the export formats."""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from slotssm.data.exporters.selection import Selection
from slotssm.errors import InputError

DESCRIPTION = "dataset.json"


@dataclass(frozen=True)
class FormOptions:
    """Options of some formats; None takes the default of the format.

    Attributes:
        frames_as: `npy`, `png` or `mp4`.
        shard_bytes: size of a tar shard above which the next one begins.
    """

    frames_as: str | None = None
    shard_bytes: int | None = None


class Form(Protocol):
    """Writes selected episodes into a folder.

    Args:
        selection: episodes and fields to write.
        folder: an existing, empty folder.
        options: options; those that the format does not have are refused.

    Raises:
        InputError: the format cannot hold these fields, or does not have an option.
    """

    def __init__(self, selection: Selection, folder: Path, options: FormOptions) -> None: ...

    def write(self, split: str) -> Iterator[None]:
        """Write a split, one episode per step."""

    def finish(self) -> None:
        """Write the description, after all splits."""


def choose_frames_as(options: FormOptions, form: str, *known: str) -> str:
    """How frames are stored in this format: the option, or the first of `known`."""
    chosen = options.frames_as or known[0]
    if chosen not in known:
        raise InputError(f"`frames_as` {chosen}: {form} writes frames as {' or '.join(known)}")
    return chosen


def refuse_options(options: FormOptions, form: str, *names: str) -> None:
    """Refuse options of other formats instead of ignoring them."""
    for name in names:
        if getattr(options, name) is not None:
            raise InputError(f"`{name}` does not apply to `form` {form}; leave it out")


def as_npy(array: np.ndarray) -> bytes:
    """An array as the bytes of an .npy file."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=False)
    return stream.getvalue()


def as_json(document: Any) -> str:
    """A document as the text of a JSON file, a list of plain values on one line; NaN and infinity are refused."""
    return _indented(document, "\n") + "\n"


def _indented(value: Any, newline: str) -> str:
    inner = newline + "  "
    if isinstance(value, dict) and value:
        entries = [f"{json.dumps(key)}: {_indented(entry, inner)}" for key, entry in value.items()]
        return "{" + inner + f",{inner}".join(entries) + newline + "}"
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[" + inner + f",{inner}".join(_indented(entry, inner) for entry in value) + newline + "]"
    return json.dumps(value, allow_nan=False)
