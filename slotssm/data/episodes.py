"""Reading episode files (format: docs/data-format.md).

`Layout` describes the fields of a file, `EpisodeWriter` writes them, `EpisodeFile` reads them; import all three from
here.
"""

import json
import weakref
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from slotssm.data.conformance import check_attrs, check_pixels, check_root, check_split, check_splits, read_dims
from slotssm.data.hdf5 import checked, guarded, has_link, is_text, open_plain, undamaged
from slotssm.data.layout import (
    EPISODE,
    KNOWN_DIMS,
    PICTURE,
    Episode,
    Field,
    Layout,
    categorical,
    label,
    numeric,
    standard_layout,
)
from slotssm.data.writer import FORMAT, FORMAT_VERSION, NUM_MASKS, EpisodeWriter, PredictionsWriter
from slotssm.errors import InputError

__all__ = [
    "FORMAT",
    "FORMAT_VERSION",
    "NUM_MASKS",
    "PICTURE",
    "SPLITS",
    "Episode",
    "EpisodeFile",
    "EpisodeWriter",
    "Field",
    "Layout",
    "PredictionsWriter",
    "categorical",
    "label",
    "numeric",
    "standard_layout",
]

SPLITS = ("train", "val", "test")


class EpisodeFile:
    """A validated, read-only episode file.

    Everything except the values is validated when the file is opened.

    Args:
        path: file to open.
        needs_frames: False accepts files without frames, such as predictions and files of true masks.
        needs_format: False accepts files without the attributes of the format, such as predictions of other programs.

    Attributes:
        path: the file.
        attrs: root attributes as plain Python values; palettes and other lists are numpy arrays.
        splits: splits in the file, in the order train, val, test.

    Raises:
        InputError: the file is missing, not HDF5, damaged, or does not conform to docs/data-format.md.
    """

    def __init__(self, path: Path, needs_frames: bool = True, needs_format: bool = True) -> None:
        self.path = Path(path)
        self._datasets: dict[str, dict[str, h5py.Dataset]] = {}
        self._attrs: dict[tuple[str, str], dict[str, Any]] = {}
        self._dims: dict[tuple[str, str], tuple[str, ...]] = {}
        with ExitStack() as stack:
            guarded_file = stack.enter_context(guarded(self.path))
            self.attrs = _attributes(guarded_file, self.path, "its attributes")
            if needs_format:
                check_root(self.attrs, str(self.path))
            with undamaged(self.path):
                self.splits = [split for split in SPLITS if has_link(guarded_file, split)]
            if not self.splits:
                raise InputError(f"{self.path} has no split (train, val or test)")
            for split in self.splits:
                self._scan(guarded_file, split, needs_format)
                if needs_frames and "frames" not in self._datasets[split]:
                    raise InputError(f"{self.path} has no dataset {split}/frames")
            if needs_format:
                check_splits({split: self._sizes(split) for split in self.splits}, str(self.path))
            plain = stack.enter_context(open_plain(self.path))
            with undamaged(self.path):
                for split, datasets in self._datasets.items():
                    # text is read through the guarded file, since it is stored in heaps that may be damaged
                    datasets |= {
                        name: plain[f"{split}/{name}"] for name in datasets if not is_text(datasets[name].dtype)
                    }
            # also at exit, since HDF5 would otherwise call into a finalised interpreter to close `guarded_file`
            self._close = weakref.finalize(self, stack.pop_all().close)

    def _scan(self, guarded_file: h5py.File, split: str, needs_format: bool) -> None:
        """Find and check the datasets of a split."""
        found = checked(guarded_file, self.path, split)
        if not needs_format:
            found = {name: dataset for name, dataset in found.items() if dataset.shape}
        self._datasets[split] = found
        for name, dataset in found.items():
            place = f"{self.path}: {split}/{name}"
            attrs = self._attrs[split, name] = _attributes(dataset, self.path, f"{split}/{name}")
            if not needs_format:
                self._dims[split, name] = _known_dims(attrs, name, dataset.ndim)
                continue
            if dataset.shape is None or dataset.shape == ():
                raise InputError(f"{place} has no episode axis; remove it, or make it a root attribute")
            self._dims[split, name] = read_dims(attrs, dataset.ndim, place)
            check_attrs(attrs, place)
            check_pixels(name, dataset.shape, dataset.dtype, self._dims[split, name], place)
        if needs_format:
            check_split(self._sizes(split), f"{self.path}: {split}")
        elif len({len(dataset) for dataset in found.values()}) > 1:
            raise InputError(f"{self.path}: datasets of split {split} differ in their number of episodes")

    def _sizes(self, split: str) -> dict[str, dict[str, int]]:
        """Lengths of the axes of every dataset."""
        return {
            name: dict(zip(self._dims[split, name], dataset.shape, strict=True))
            for name, dataset in self._datasets[split].items()
        }

    @property
    def config(self) -> dict[str, Any]:
        """The recipe that the file was generated from; empty for other files."""
        with undamaged(self.path, "attribute config"):
            found = json.loads(self.attrs.get("config", "{}"))
            if not isinstance(found, dict):
                raise ValueError("it is not a JSON object")
            return found

    def fields(self, split: str) -> list[str]:
        """Paths of all datasets of a split."""
        return sorted(self._of(split))

    def has(self, split: str, name: str) -> bool:
        """Whether the split has a dataset, or a group of datasets, of this name."""
        return any(found == name or found.startswith(f"{name}/") for found in self._datasets.get(split, {}))

    def dataset(self, split: str, name: str) -> h5py.Dataset:
        """The dataset, for its shape and dtype; `InputError` if it is absent."""
        if name not in self._of(split):
            raise InputError(f"{self.path} has no dataset {split}/{name}; it has {', '.join(self.fields(split))}")
        return self._datasets[split][name]

    def _of(self, split: str) -> dict[str, h5py.Dataset]:
        if split not in self._datasets:
            raise InputError(f"{self.path} has no split {split!r}; it has {', '.join(self.splits)}")
        return self._datasets[split]

    def field_attrs(self, split: str, name: str) -> dict[str, Any]:
        """Attributes of a dataset, as plain Python values."""
        self.dataset(split, name)
        return dict(self._attrs[split, name])

    def dims(self, split: str, name: str) -> tuple[str, ...]:
        """Names of a dataset's axes, `episode` first.

        Without the attribute `dims`, as in predictions, they follow from the name and number of axes, or are named
        after the dataset, such as `flow_1`.
        """
        self.dataset(split, name)
        return self._dims[split, name]

    def axis(self, split: str, name: str, axis: str) -> int | None:
        """Index of the axis of this name; None if the dataset does not have it."""
        dims = self.dims(split, name)
        return dims.index(axis) if axis in dims else None

    def size(self, split: str, name: str, axis: str) -> int | None:
        """Length of the axis of this name; None if the dataset does not have it."""
        place = self.axis(split, name, axis)
        return None if place is None else self.dataset(split, name).shape[place]

    def categories(self, split: str, name: str) -> list[str]:
        """Category names of a categorical property."""
        attrs = self.field_attrs(split, name)
        if "categories" not in attrs:
            raise InputError(f"{self.path}: {split}/{name} has no attribute categories; write it as a JSON list")
        check_attrs(attrs, f"{self.path}: {split}/{name}")
        return list(json.loads(attrs["categories"]))

    def num_episodes(self, split: str) -> int:
        """Number of episodes of a split."""
        return next((len(dataset) for dataset in self._of(split).values()), 0)

    def episode(self, split: str, index: int) -> Episode:
        """All fields of one episode."""
        return {name: self.read(split, name, index) for name in self.fields(split)}

    def read(self, split: str, name: str, where: Any = slice(None)) -> np.ndarray:
        """Read part of a dataset; damaged bytes raise `InputError`."""
        dataset = self.dataset(split, name)
        try:
            return np.asarray(dataset[where])
        except (OSError, RuntimeError, MemoryError, UnicodeError) as error:
            with undamaged(self.path, f"{split}/{name}"):
                raise error

    def close(self) -> None:
        """Close the file."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _attributes(node: Any, path: Path, place: str) -> dict[str, Any]:
    with undamaged(path, place):
        return {name: _plain(value) for name, value in node.attrs.items()}


def _plain(value: Any) -> Any:
    """An HDF5 attribute value as a plain Python value."""
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) and not isinstance(value, np.void) else value


def _known_dims(attrs: dict[str, Any], name: str, num_axes: int) -> tuple[str, ...]:
    """Axes of a dataset in a file that may lack the attribute `dims`."""
    try:
        return read_dims(attrs, num_axes, name)
    except InputError:
        leaf = name.rsplit("/", 1)[-1]
        return KNOWN_DIMS.get((name, num_axes)) or (EPISODE, *(f"{leaf}_{axis}" for axis in range(1, num_axes)))
