"""Writing episode files, and files of predictions."""

import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import h5py
import numpy as np

from slotssm.data.layout import CHUNK_BYTES, COMPRESSION_LEVEL, EPISODE, KNOWN_DIMS, Episode, Field, Layout

if TYPE_CHECKING:
    from slotssm.data.episodes import EpisodeFile

FORMAT = "slotssm-episodes"
FORMAT_VERSION = 2
PREDICTIONS_FORMAT = "slotssm-predictions"
NUM_MASKS = "num_masks"
"""Attribute of hard masks in a predictions file: the number of masks, of which each pixel has one."""


class _DeferredErrorFile(io.FileIO):
    """File object under HDF5 that stores a write error until `check` raises it.

    HDF5 cannot close a file after a failed write, and would report errors from then on.
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
        """Raise the error of a failed write, if there was one."""
        if self.error is not None:
            raise self.error


class _NewFile:
    """A new HDF5 file that reports failed writes; the caller moves it to its final name once it is complete.

    Args:
        path: file to create.
        attrs: root attributes.
    """

    def __init__(self, path: Path, attrs: Mapping[str, Any]) -> None:
        self._disk = _DeferredErrorFile(path, "w+")
        self._file = h5py.File(self._disk, "w", libver=("v110", "v110"))
        for name, value in attrs.items():
            self._file.attrs[name] = value

    def close(self) -> None:
        """Finish and close the file."""
        self._file.close()
        self._disk.close()
        self._disk.check()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class EpisodeWriter(_NewFile):
    """Writes a new episode file; the caller moves it to its final name once it is complete.

    Args:
        path: file to create.
        attrs: root attributes other than `format` and `format_version`.
        layout: fields of every split.
        num_episodes: number of episodes by split.
    """

    def __init__(self, path: Path, attrs: Mapping[str, Any], layout: Layout, num_episodes: Mapping[str, int]) -> None:
        super().__init__(path, {"format": FORMAT, "format_version": FORMAT_VERSION, **attrs})
        self.layout = layout
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
                "shuffle": spec.shuffles,
            }
        dataset = self._file.create_dataset(name, (num_episodes, *spec.shape), spec.dtype, **options)
        dataset.attrs["dims"] = json.dumps([EPISODE, *spec.dims])
        for key, value in spec.attrs.items():
            dataset.attrs[key] = value

    def write(self, split: str, first: int, episodes: Sequence[Episode]) -> None:
        """Write consecutive episodes, starting at index `first`."""
        for name, spec in self.layout.items():
            dataset = self._file[f"{split}/{name}"]
            arrays = [np.ascontiguousarray(episode[name], spec.dtype) for episode in episodes]
            if not spec.image:
                dataset[first : first + len(arrays)] = np.stack(arrays).reshape(len(arrays), *spec.shape)
                continue
            # compressed here, since HDF5's filter pipeline is slower and holds a global lock
            for index, array in enumerate(arrays, first):
                for start, chunk in spec.chunks(array):
                    dataset.id.write_direct_chunk((index, start, *(0 for _ in array.shape[1:])), chunk)
                self._disk.check()

    def copy(self, split: str, first: int, source: "EpisodeFile") -> None:
        """Copy a whole split of `source`, starting at index `first`, without decompressing it."""
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


class PredictionsWriter(_NewFile):
    """Writes a new predictions file, whole episodes or the parts of a long one; the caller moves it to its final name.

    Datasets are created by the first outputs of their name. Chunks have whole frames of one episode.

    Args:
        path: file to create.
        split: split of the episodes.
        num_episodes: number of episodes.
        attrs: root attributes other than `format`.
    """

    def __init__(self, path: Path, split: str, num_episodes: int, attrs: Mapping[str, Any]) -> None:
        super().__init__(path, {"format": PREDICTIONS_FORMAT, **attrs})
        self._split, self._num_episodes = split, num_episodes

    def write(self, first: int, outputs: Mapping[str, np.ndarray], start: int = 0) -> None:
        """Write outputs of consecutive episodes.

        Args:
            first: index of the first episode.
            outputs: arrays [E, T, ...] by name; with one or two axes they belong to the episode rather than its frames.
            start: index of the first of these T frames.
        """
        for name, values in outputs.items():
            place = f"{self._split}/{name}"
            dataset = self._file[place] if place in self._file else self._create(place, name, values)
            episodes = slice(first, first + len(values))
            if values.ndim < 3:
                dataset[episodes] = values
                continue
            end = start + values.shape[1]
            if dataset.shape[1] < end:
                dataset.resize(end, axis=1)
            dataset[episodes, start:end] = values
            self._disk.check()

    def _create(self, place: str, name: str, values: np.ndarray) -> h5py.Dataset:
        shape, options = (self._num_episodes, *values.shape[1:]), {}
        if values.ndim > 2:
            frame_bytes = math.prod(values.shape[2:]) * values.dtype.itemsize
            options = {
                "maxshape": (shape[0], None, *shape[2:]),
                "chunks": (1, max(1, min(shape[1], CHUNK_BYTES // frame_bytes)), *shape[2:]),
                "compression": "gzip",
                "compression_opts": COMPRESSION_LEVEL,
                "shuffle": values.dtype.itemsize > 1,
            }
        dataset = self._file.create_dataset(place, shape, values.dtype, track_times=False, **options)
        if (name, values.ndim) in KNOWN_DIMS:
            dataset.attrs["dims"] = json.dumps(KNOWN_DIMS[name, values.ndim])
        return dataset

    def set_attribute(self, name: str, key: str, value: Any) -> None:
        """Set an attribute of an output that has been written."""
        self._file[f"{self._split}/{name}"].attrs[key] = value

    def summary(self) -> dict[str, dict[str, Any]]:
        """Shape and dtype of every output."""
        group = self._file[self._split]
        return {name: {"shape": list(map(int, node.shape)), "dtype": str(node.dtype)} for name, node in group.items()}
