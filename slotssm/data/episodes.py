"""The episode file, read (format: docs/data-format.md).

`Layout` says which fields a data set has, `EpisodeWriter` writes them, `EpisodeFile` reads them; all three are meant to
be imported from here.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from slotssm.data.layout import (
    EPISODE,
    PICTURE,
    Episode,
    Field,
    Layout,
    categorical,
    dims_fault,
    label,
    numeric,
    standard_layout,
)
from slotssm.data.writer import FORMAT, FORMAT_VERSION, EpisodeWriter
from slotssm.errors import InputError

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "PICTURE",
    "SPLITS",
    "Episode",
    "EpisodeFile",
    "EpisodeWriter",
    "Field",
    "Layout",
    "categorical",
    "label",
    "numeric",
    "standard_layout",
]

SPLITS = ("train", "val", "test")

_MOVING = (EPISODE, "time", "object")
_KNOWN = {
    ("frames", 5): (EPISODE, *PICTURE, "channel"),
    ("masks", 4): (EPISODE, *PICTURE),
    ("masks", 5): (EPISODE, "time", "slot", "height", "width"),
    ("depth", 4): (EPISODE, *PICTURE),
    ("slots", 4): (EPISODE, "time", "slot", "slot_dim"),
    ("logits", 3): (EPISODE, "time", "class"),
    ("objects/position", 4): (*_MOVING, "xy"),
    ("objects/velocity", 4): (*_MOVING, "xy"),
    ("objects/world_position", 4): (*_MOVING, "xyz"),
    ("objects/world_velocity", 4): (*_MOVING, "xyz"),
    ("objects/visible", 3): _MOVING,
    ("objects/unoccluded", 3): _MOVING,
}
"""Axes by name and rank, for files that need not name them."""


class EpisodeFile:
    """A validated, read-only view of an episode file.

    Args:
        path: file to open.
        needs_frames: False accepts files of masks or slots alone, as predictions and bare truth files are.
        needs_format: False accepts files without the root attributes, as anybody's predictions are.

    Raises:
        InputError: the file is missing, not HDF5, damaged, or of another format or version.
    """

    def __init__(self, path: Path, needs_frames: bool = True, needs_format: bool = True) -> None:
        self.path = path
        self._file = _open(path)
        try:
            with _undamaged(path):
                self.attrs: dict[str, Any] = {name: _plain(value) for name, value in self._file.attrs.items()}
                self._check(needs_frames, needs_format)
        except BaseException:
            self._file.close()
            raise

    def _check(self, needs_frames: bool, needs_format: bool) -> None:
        found = self.attrs.get("format")
        if found != FORMAT and needs_format:
            raise InputError(f"{self.path} is no episode file: its attribute 'format' is {found!r}, not {FORMAT!r}")
        version = self.attrs.get("format_version")
        if version != FORMAT_VERSION and needs_format:
            raise InputError(
                f"{self.path} has format version {version!r}; this program reads version {FORMAT_VERSION}: "
                "generate or import it again, or use the slotssm release that wrote it"
            )
        if not self.splits:
            raise InputError(f"{self.path} holds no split (train, val or test)")
        for split in self.splits:
            if not isinstance(self._file[split], h5py.Group):
                raise InputError(f"{self.path}: {split} is not a group of datasets")
            lengths = {name: len(self.dataset(split, name)) for name in self.fields(split)}
            if needs_frames and "frames" not in lengths:
                raise InputError(f"{self.path} has no dataset {split}/frames")
            if len(set(lengths.values())) > 1:
                raise InputError(f"{self.path}: datasets of split {split} differ in their number of episodes")

    @property
    def splits(self) -> list[str]:
        """Splits that the file holds, in the order train, val, test."""
        return [split for split in SPLITS if split in self._file]

    @property
    def config(self) -> dict[str, Any]:
        """The recipe that the file was generated from; empty for files from elsewhere."""
        with _undamaged(self.path, "attribute config"):
            return json.loads(self.attrs.get("config", "{}"))

    def fields(self, split: str) -> list[str]:
        """Paths of all datasets of a split."""
        names: list[str] = []
        self._file[split].visititems(
            lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) and node.shape else None
        )
        return sorted(names)

    def has(self, split: str, name: str) -> bool:
        """Whether the split has this dataset."""
        return f"{split}/{name}" in self._file

    def dataset(self, split: str, name: str) -> h5py.Dataset:
        """The dataset itself, for slicing; `InputError` if it is absent."""
        if split not in self._file:
            raise InputError(f"{self.path} has no split {split!r}; it has {', '.join(self.splits)}")
        if not self.has(split, name):
            raise InputError(f"{self.path} has no dataset {split}/{name}; it has {', '.join(self.fields(split))}")
        return self._file[f"{split}/{name}"]

    def field_attrs(self, split: str, name: str) -> dict[str, Any]:
        """Attributes of a dataset, decoded."""
        with _undamaged(self.path, f"{split}/{name}"):
            return {key: _plain(value) for key, value in self.dataset(split, name).attrs.items()}

    def dims(self, split: str, name: str) -> tuple[str, ...]:
        """Names of a dataset's axes, `episode` first.

        Where the file does not say, as predictions need not, they are known by name and rank, or else called after
        the dataset: `flow_1`.
        """
        dataset = self.dataset(split, name)
        if "dims" in dataset.attrs:
            named = tuple(json.loads(self.field_attrs(split, name)["dims"]))
            if not dims_fault(named, dataset.ndim):
                return named
        leaf = name.rsplit("/", 1)[-1]
        known = _KNOWN.get((name, dataset.ndim))
        return known or (EPISODE, *(f"{leaf}_{axis}" for axis in range(1, dataset.ndim)))

    def axis(self, split: str, name: str, axis: str) -> int | None:
        """Position of the axis of this name; None if the dataset has none."""
        dims = self.dims(split, name)
        return dims.index(axis) if axis in dims else None

    def size(self, split: str, name: str, axis: str) -> int | None:
        """Length of the axis of this name; None if the dataset has none."""
        place = self.axis(split, name, axis)
        return None if place is None else self.dataset(split, name).shape[place]

    def categories(self, split: str, name: str) -> list[str]:
        """Category names of a categorical property."""
        return json.loads(self.field_attrs(split, name)["categories"])

    def num_episodes(self, split: str) -> int:
        """Episodes of a split."""
        names = self.fields(split) if split in self._file else []
        return len(self.dataset(split, names[0] if names else "frames"))

    def episode(self, split: str, index: int) -> Episode:
        """All fields of one episode."""
        return {name: self.read(split, name, index) for name in self.fields(split)}

    def read(self, split: str, name: str, where: Any = slice(None)) -> np.ndarray:
        """Part of a dataset, with a clear error where the stored bytes are damaged."""
        dataset = self.dataset(split, name)
        try:
            return np.asarray(dataset[where])
        except OSError as error:
            raise InputError(
                f"{self.path} is damaged at {split}/{name}: {str(error).splitlines()[0]}; generate it again"
            ) from None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def _undamaged(path: Path, place: str = "its structure") -> Iterator[None]:
    """Turn what h5py and json raise on damaged bytes into `InputError`."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} is damaged at {place}: {reason}; generate it again") from None


def _open(path: Path) -> h5py.File:
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if path.is_dir():
        raise InputError(f"{path} is a folder, not an episode file")
    try:
        return h5py.File(path, "r")
    except PermissionError:
        raise InputError(f"{path} may not be read: permission denied") from None
    except OSError as error:
        reason = "truncated" if "truncated" in str(error) else "not HDF5" if "signature" in str(error) else ""
        fault = f"is {reason}" if reason else f"cannot be opened ({str(error).splitlines()[0]})"
        raise InputError(f"{path} {fault}; generate or copy it again") from None


def _plain(value: Any) -> Any:
    """HDF5 attribute values as plain Python ones."""
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value
