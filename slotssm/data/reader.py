"""Reading parts of episodes, from any thread and in any process.

HDF5 has a global lock, and h5py holds the GIL while it waits. Datasets with the storage that this package writes
(deflated chunks of whole frames of one episode, shuffled if numbers have several bytes) are therefore read without
HDF5: the locations of the chunks are looked up once, then they are read and inflated outside both locks. All other
datasets are sliced by h5py, with the same results.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from slotssm.data.episodes import EpisodeFile
from slotssm.errors import InputError

try:
    from isal import isal_zlib as deflate
except ImportError:
    import zlib as deflate  # type: ignore[no-redef]

DEFLATE_ERROR: Any = deflate.error

CACHE_BYTES = 2 << 30
"""Size of the cache of fields that stay in memory once they have been read; the smallest fields come first."""
GROUP_BYTES = 1 << 20
"""Cached fields that are sliced by h5py are read in groups of episodes of about this size."""
DEFLATE, SHUFFLE = 1, 2
"""HDF5's ids of the filters."""
WIDENED: dict[np.dtype, np.dtype] = {np.dtype(np.uint16): np.dtype(np.int32), np.dtype(np.uint32): np.dtype(np.int64)}
"""Types with little support in torch, and the wider types that they are converted to."""


@dataclass(frozen=True)
class StoredField:
    """Shape and type of a dataset in the file.

    Attributes:
        shape: shape, including the episode axis.
        stored: dtype in the file.
        time_axis: index of the time axis in `shape`; None if there is none.
    """

    shape: tuple[int, ...]
    stored: np.dtype
    time_axis: int | None

    @property
    def dtype(self) -> np.dtype:
        """Dtype after reading: the stored one in native byte order, uint16 widened to int32 and uint32 to int64."""
        native: Any = self.stored.newbyteorder("=")
        return WIDENED.get(native, native)

    @property
    def num_bytes(self) -> int:
        """Size of the whole dataset in bytes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.stored.itemsize

    def part_shape(self, num_frames: int) -> tuple[int, ...]:
        """Shape of a part of one episode with this many frames."""
        shape = list(self.shape)
        if self.time_axis is not None:
            shape[self.time_axis] = num_frames
        return tuple(shape[1:])


class Reader:
    """Reads parts of the episodes of one split.

    It is thread-safe, and can be pickled or used after a fork: every process opens the file at its first read.

    Args:
        path: episode file; a relative path is resolved immediately.
        split: which split.
        fields: datasets to read.
        cache_bytes: limit on the memory of cached fields. Values are read at their first use.

    Attributes:
        num_episodes: number of episodes of the split.
        num_frames: frames of an episode; 1 if no field has a time axis.
        fields: shape and type of the datasets, by name.

    Raises:
        InputError: the file, the split or a field is missing or wrong.
    """

    def __init__(self, path: str | Path, split: str, fields: Sequence[str], *, cache_bytes: int = CACHE_BYTES) -> None:
        self.path, self.split = Path(os.path.abspath(path)), split
        self._opened: _Opened | None = None
        self._closed = False
        with EpisodeFile(Path(path), needs_frames="frames" in fields) as file:
            self.attrs = file.attrs
            self.fields = {name: _stored(file, split, name) for name in fields}
            self.num_episodes = file.num_episodes(split)
            self.num_frames = self._count_frames()
        self._cache_bytes = cache_bytes
        self._caches = self._make_caches()

    def _count_frames(self) -> int:
        # all fields of a split have the same number, which is checked when the file is opened
        lengths = (field.shape[field.time_axis] for field in self.fields.values() if field.time_axis is not None)
        return next(lengths, 1)

    def _make_caches(self) -> dict[str, "_FieldCache"]:
        cache, left = {}, self._cache_bytes
        for name, field in sorted(self.fields.items(), key=lambda item: item[1].num_bytes):
            left -= field.num_bytes
            if left >= 0:
                cache[name] = _FieldCache(field)
        return cache

    def read(self, name: str, episode: int, frames: np.ndarray, out: np.ndarray) -> None:
        """Read a part of one episode.

        Args:
            name: which field.
            episode: which episode, from 0.
            frames: ascending frames to take, int [T']; ignored by fields without a time axis.
            out: written to, of shape `part_shape(T')`.

        Raises:
            InputError: the stored bytes are damaged.
        """
        opened = self._open()
        if out.size == 0:
            return
        chunks = opened.chunks.get(name)
        if chunks is None:
            self._slice(opened, name, episode, frames, out)
            return
        for block, rows, places in _by_block(frames, chunks.num_frames):
            out[rows] = self._block(opened, name, episode, block)[places]

    def _block(self, opened: "_Opened", name: str, episode: int, block: int) -> np.ndarray:
        """The frames of one chunk, without the padding of the last one."""
        chunks = opened.chunks[name]
        where = (episode, slice(block * chunks.num_frames, (block + 1) * chunks.num_frames))
        cache = self._caches.get(name)
        if cache is not None and (kept := cache.get(where, (episode, block))) is not None:
            return kept
        array = chunks.read(episode, block)
        if array is None:
            # a chunk that was never written, or a damaged one, for which HDF5 raises the error
            array = opened.file.read(self.split, name, where)
        if cache is not None:
            cache.put(where, (episode, block), array)
        return array

    def _slice(self, opened: "_Opened", name: str, episode: int, frames: np.ndarray, out: np.ndarray) -> None:
        """Implementation of `read` for datasets with other storage."""
        field, cache = self.fields[name], self._caches.get(name)
        if cache is not None:
            group, rest = divmod(episode, cache.group)
            where = (slice(group * cache.group, (group + 1) * cache.group),)
            episodes = cache.get(where, (group,))
            if episodes is None:
                episodes = opened.file.read(self.split, name, where)
                cache.put(where, (group,), episodes)
            array, first = episodes[rest], 0
        else:
            first = int(frames[0]) if field.time_axis is not None else 0
            before = (slice(None),) * ((field.time_axis or 1) - 1)
            span = () if field.time_axis is None else (*before, slice(first, int(frames[-1]) + 1))
            array = opened.file.read(self.split, name, (episode, *span))
        if field.time_axis is not None:
            array = np.take(array, frames - first, axis=field.time_axis - 1)
        out[...] = array

    def open(self) -> None:
        """Open the file in this process, unless it is open."""
        self._open()

    def _open(self) -> "_Opened":
        if self._closed:
            raise ValueError(f"{self.path}: the reader is closed")
        # HDF5 is not fork-safe, so a child opens the file itself. Two threads that do so at once do no harm
        opened = self._opened
        if opened is None or opened.process != os.getpid():
            opened = self._opened = _Opened(self)
        return opened

    def close(self) -> None:
        """Close the file and clear the cache; no thread may be reading."""
        self._closed = True
        self._caches = {}
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None, "_caches": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._caches = {} if self._closed else self._make_caches()


class _Opened:
    """The open file of one process."""

    def __init__(self, reader: Reader) -> None:
        self.process = os.getpid()
        self.file = EpisodeFile(reader.path, needs_frames=False)
        self.chunks: dict[str, _Chunks] = {}
        for name, field in reader.fields.items():
            chunks = _Chunks.of(self.file.dataset(reader.split, name), field)
            if chunks is not None:
                self.chunks[name] = chunks

    def close(self) -> None:
        for chunks in self.chunks.values():
            chunks.close()
        self.file.close()


class _Chunks:
    """Locations of a dataset's chunks, each of which has whole frames of one episode, deflated, shuffled or not."""

    def __init__(self, handle: int, field: StoredField, num_frames: int, index: np.ndarray, filters: list[int]) -> None:
        self.num_frames = num_frames
        """Frames in a chunk."""
        self._field, self._index, self._filters = field, index, filters
        # a separate descriptor of the file that HDF5 has open, even if the path has been replaced
        self._handle = os.dup(handle)
        self._num_bytes = num_frames * int(np.prod(field.shape[2:], dtype=np.int64)) * field.stored.itemsize

    @classmethod
    def of(cls, dataset: Any, field: StoredField) -> "_Chunks | None":
        """None if the dataset has another storage, or if this platform cannot read chunks without HDF5."""
        shape, chunks = field.shape, dataset.chunks
        if not hasattr(os, "pread") or not hasattr(dataset.id, "chunk_iter") or field.time_axis != 1 or not chunks:
            return None
        filters = _filters(dataset, field)
        if chunks[0] != 1 or chunks[2:] != shape[2:] or filters is None or 0 in shape:
            return None
        # byte offset, stored bytes (0: never written), and a bit for each filter that was skipped
        index = np.zeros((shape[0], -(-shape[1] // chunks[1]), 3), np.int64)

        def note(chunk: Any) -> None:
            episode, frame = chunk.chunk_offset[:2]
            index[episode, frame // chunks[1]] = chunk.byte_offset, chunk.size, chunk.filter_mask

        try:
            dataset.id.chunk_iter(note)
            found = cls(dataset.file.id.get_vfd_handle(), field, chunks[1], index, filters)
        except (OSError, RuntimeError, ValueError, NotImplementedError):
            return None
        if not found._agrees(dataset):
            found.close()
            return None
        return found

    def _agrees(self, dataset: Any) -> bool:
        """Whether HDF5 reads the same bytes of the first chunk; it would not with an unusual file driver."""
        written = np.argwhere(self._index[..., 1])
        if len(written) == 0:
            return True
        episode, block = (int(place) for place in written[0])
        offset = (episode, block * self.num_frames, *(0 for _ in self._field.shape[2:]))
        try:
            return bytes(dataset.id.read_direct_chunk(offset)[1]) == self._raw(episode, block)
        except (OSError, RuntimeError):
            return False

    def _raw(self, episode: int, block: int) -> bytes:
        start, size, _ = self._index[episode, block].tolist()
        return os.pread(self._handle, size, start)

    def read(self, episode: int, block: int) -> np.ndarray | None:
        """The frames of a chunk [n, ...]; None if it cannot be read for any reason."""
        try:
            raw = self._raw(episode, block)
            if len(raw) == 0:
                return None
            applied = [
                id_ for place, id_ in enumerate(self._filters) if not self._index[episode, block, 2] >> place & 1
            ]
            if DEFLATE in applied:
                raw = deflate.decompress(raw, bufsize=self._num_bytes)
        except (OSError, DEFLATE_ERROR):
            return None
        if len(raw) != self._num_bytes:
            return None
        shape, size = self._field.shape, self._field.stored.itemsize
        if SHUFFLE in applied:
            raw = np.frombuffer(raw, np.uint8).reshape(size, -1).T.tobytes()
        frames = np.frombuffer(raw, self._field.stored).reshape(self.num_frames, *shape[2:])
        return frames[: shape[1] - block * self.num_frames]

    def close(self) -> None:
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1

    def __del__(self) -> None:
        # not set if `dup` failed
        if getattr(self, "_handle", -1) >= 0:
            self.close()


class _FieldCache:
    """A dataset that is cached in memory as it is read."""

    def __init__(self, field: StoredField) -> None:
        self.group = max(1, GROUP_BYTES * field.shape[0] // max(1, field.num_bytes))
        """Number of episodes that are read at a time if the dataset is sliced by h5py."""
        # the operating system allocates the memory when it is written to
        self._array = np.empty(field.shape, field.stored)
        self._filled: set[tuple[int, ...]] = set()

    def get(self, where: tuple[Any, ...], key: tuple[int, ...]) -> np.ndarray | None:
        """The cached values; None if there are none."""
        return self._array[where] if key in self._filled else None

    def put(self, where: tuple[Any, ...], key: tuple[int, ...], values: np.ndarray) -> None:
        """Cache values; two threads may write the same values."""
        self._array[where] = values
        self._filled.add(key)


def _stored(file: EpisodeFile, split: str, name: str) -> StoredField:
    dataset = file.dataset(split, name)
    if dataset.dtype.kind not in "biuf":
        raise InputError(f"{file.path}: {split}/{name} is not numeric, so it cannot be a tensor")
    return StoredField(dataset.shape, dataset.dtype, file.axis(split, name, "time"))


def _filters(dataset: Any, field: StoredField) -> list[int] | None:
    """Filters of a dataset in the order of writing; None if chunks are not the deflated, perhaps shuffled, values."""
    plan, stored = dataset.id.get_create_plist(), dataset.id.get_type()
    filters = [plan.get_filter(place)[0] for place in range(plan.get_nfilters())]
    if filters not in ([DEFLATE], [SHUFFLE, DEFLATE]) or field.stored.kind not in "iuf":
        return None
    # packed numbers are left to HDF5; so are booleans, which are stored as an enumeration
    is_plain = stored.get_precision() == 8 * field.stored.itemsize == 8 * stored.get_size()
    return filters if is_plain else None


def _by_block(frames: np.ndarray, num_frames: int) -> Iterator[tuple[int, slice, Any]]:
    """For each chunk with some of the frames: its index, the output rows, and the positions in the chunk."""
    blocks = frames // num_frames
    edges = [0, *(np.flatnonzero(np.diff(blocks)) + 1).tolist(), len(frames)]
    for first, last in pairwise(edges):
        if first == last:
            continue
        block = int(blocks[first])
        places = frames[first:last] - block * num_frames
        start, stop = int(places[0]), int(places[-1]) + 1
        # a slice avoids the copy that an index array makes
        yield block, slice(first, last), slice(start, stop) if stop - start == len(places) else places
