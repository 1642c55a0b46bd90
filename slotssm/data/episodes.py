"""The episode file: the only module that knows how episodes lie in HDF5 (format: docs/data-format.md).

`Layout` says which fields a data set has, `EpisodeWriter` writes them, `EpisodeFile` reads them.
"""

import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np

from slotssm.errors import InputError

try:
    from isal import isal_zlib as deflate  # the same format, much faster; h5py reads it without plugins
except ImportError:
    import zlib as deflate  # type: ignore[no-redef]

FORMAT = "slotssm-episodes"
FORMAT_VERSION = 1
SPLITS = ("train", "val", "test")
COMPRESSION_LEVEL = 1
"""Deflate level."""
CHUNK_BYTES = 1 << 20
"""A chunk holds whole frames of one episode up to about this size before compression."""

Episode = dict[str, np.ndarray]
"""One episode: field name to array, without the episode axis."""


@dataclass(frozen=True)
class Field:
    """One dataset of a split.

    Attributes:
        shape: shape of one episode's part.
        dtype: numpy dtype name.
        image: True for pixel data, which is compressed, one or more chunks an episode; the small object
            fields lie contiguous and uncompressed.
        attrs: HDF5 attributes, such as `kind` with `unit` or `categories`.
    """

    shape: tuple[int, ...]
    dtype: str
    image: bool = False
    attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def chunk_frames(self) -> int:
        """Frames in a chunk (image fields)."""
        frame_bytes = math.prod(self.shape[1:]) * np.dtype(self.dtype).itemsize
        return max(1, min(self.shape[0], CHUNK_BYTES // frame_bytes))

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
            yield start, deflate.compress(chunk.data.cast("B"), COMPRESSION_LEVEL)

    def stored_bytes(self, array: np.ndarray) -> int:
        """Bytes that one episode's array takes in the file."""
        return sum(len(chunk) for _, chunk in self.chunks(array)) if self.image else self.num_bytes


Layout = dict[str, Field]
"""Path inside a split (`frames`, `objects/position`, ...) to its field."""


def numeric(unit: str) -> dict[str, str]:
    """Attributes of a numeric property."""
    return {"kind": "numeric", "unit": unit}


def categorical(categories: Sequence[str]) -> dict[str, str]:
    """Attributes of a categorical property: values are indices into `categories`."""
    return {"kind": "categorical", "categories": json.dumps(list(categories))}


def standard_layout(num_frames: int, height: int, width: int, num_objects: int) -> Layout:
    """The fields that every generated data set has."""
    per_frame = (num_frames, num_objects)
    return {
        "frames": Field((num_frames, height, width, 3), "uint8", image=True),
        "masks": Field((num_frames, height, width), "uint8", image=True),
        "objects/position": Field((*per_frame, 2), "float32", attrs=numeric("px")),
        "objects/velocity": Field((*per_frame, 2), "float32", attrs=numeric("px/frame")),
        "objects/visible": Field(per_frame, "uint16", attrs=numeric("px")),
    }


class _Disk(io.FileIO):
    """The file beneath HDF5, which keeps a failed write to itself until it is asked.

    HDF5 can neither close nor let go of a file that it cannot write, and complains for ever after.
    """

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while rest and self.error is None:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.error = error
        return size

    def check(self) -> None:
        """Raise what a write ran into."""
        if self.error is not None:
            raise self.error


class EpisodeWriter:
    """Writes a new episode file; whoever opens it moves it to its final name once it is complete.

    Args:
        path: file to create.
        attrs: root attributes beyond `format` and `format_version`.
        layout: fields of every split.
        num_episodes: episodes by split.
    """

    def __init__(self, path: Path, attrs: Mapping[str, Any], layout: Layout, num_episodes: Mapping[str, int]) -> None:
        self.layout = layout
        self._disk = _Disk(path, "w+")
        self._file = h5py.File(self._disk, "w", libver=("v110", "v110"))
        self._file.attrs["format"] = FORMAT
        self._file.attrs["format_version"] = FORMAT_VERSION
        for name, value in attrs.items():
            self._file.attrs[name] = value
        for split, count in num_episodes.items():
            for name, spec in layout.items():
                self._create(f"{split}/{name}", spec, count)

    def _create(self, name: str, spec: Field, num_episodes: int) -> None:
        options: dict[str, Any] = {"track_times": False}
        if spec.image:
            options |= {
                "chunks": (1, spec.chunk_frames, *spec.shape[1:]),
                "compression": "gzip",
                "compression_opts": COMPRESSION_LEVEL,
            }
        dataset = self._file.create_dataset(name, (num_episodes, *spec.shape), spec.dtype, **options)
        for key, value in spec.attrs.items():
            dataset.attrs[key] = value

    def write(self, split: str, first: int, episodes: Sequence[Episode]) -> None:
        """Write consecutive episodes, the first of them at index `first`."""
        for name, spec in self.layout.items():
            dataset = self._file[f"{split}/{name}"]
            arrays = [np.ascontiguousarray(episode[name], spec.dtype) for episode in episodes]
            if not spec.image:
                dataset[first : first + len(arrays)] = np.stack(arrays).reshape(len(arrays), *spec.shape)
                continue
            # compressed here rather than in HDF5, whose filter pipeline is slower and holds a global lock
            for index, array in enumerate(arrays, first):
                for start, chunk in spec.chunks(array):
                    dataset.id.write_direct_chunk((index, start, *(0 for _ in array.shape[1:])), chunk)
                self._disk.check()

    def copy(self, split: str, first: int, source: "EpisodeFile") -> None:
        """Copy a whole split of `source` to index `first` on, without decompressing it."""
        for name, spec in self.layout.items():
            theirs, ours = source.dataset(split, name), self._file[f"{split}/{name}"]
            if not spec.image:
                ours[first : first + len(theirs)] = theirs[...]
                continue
            for index in range(len(theirs)):
                for start in range(0, spec.shape[0], spec.chunk_frames):
                    tail = (start, *(0 for _ in spec.shape[1:]))
                    _, chunk = theirs.id.read_direct_chunk((index, *tail))
                    ours.id.write_direct_chunk((first + index, *tail), chunk)
                self._disk.check()

    def close(self) -> None:
        """Finish the file."""
        self._file.close()
        self._disk.close()
        self._disk.check()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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
                "generate it again, or use the slotssm release that wrote it"
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
