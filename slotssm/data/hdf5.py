"""Safe reading of untrusted HDF5 files, which are checked before they are used.

An HDF5 file can refer to other files and declare more values than it stores; a damaged file can make the library
allocate without bound or loop forever. `checked` refuses all of this with a one-line error.
"""

import io
import math
import os
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5l, h5o

from slotssm.errors import InputError

REWRITE = "write or copy it again"
"""The remedy for damage."""
SLACK_BYTES = 64 << 20
"""Allowance for values that were never written, which read as zeros."""
EXPANSION = 1100
"""Largest accepted compression ratio: deflate reaches 1032."""
MOST_OBJECTS, MOST_LINKS = 10_000, 16
"""Limits on the objects below a group, and on chains of soft links."""
NUMPY_SUFFIXES = (".npz", ".npy")
"""Suffixes of NumPy's own files, for which the refusal says how to convert them."""
READABLE = "biufcSO"
"""Kinds of numpy dtypes of numbers and text; of the kind O, only text is readable."""

_HEAP = b"GCOL\x01\0\0\0"
_HEAP_OBJECT = struct.Struct("<HHIQ")


_MISSING_FILTER = re.compile(r"can't open directory|[Rr]equired filter|filter plugin")


@contextmanager
def undamaged(path: Path, place: str = "its structure", remedy: str = REWRITE) -> Iterator[None]:
    """Turn the errors that h5py, numpy and json raise on damaged data into `InputError`."""
    try:
        yield
    except InputError:
        raise
    except RecursionError:
        raise InputError(f"{path} is damaged at {place}: it is nested too deeply; {remedy}") from None
    except MemoryError:
        raise InputError(f"{path} is damaged at {place}: it needs too much memory; {remedy}") from None
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, AttributeError) as error:
        told = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
        reason = (told.splitlines() or [type(error).__name__])[0]
        if _MISSING_FILTER.search(reason):
            raise InputError(
                f"{path}: {place} is compressed with a filter of HDF5 that is not installed; write it with gzip, or "
                "without compression"
            ) from None
        raise InputError(f"{path} is damaged at {place}: {reason}; {remedy}") from None


class GuardedFile(io.FileIO):
    """File object that HDF5 reads from while a file is checked.

    HDF5 traverses a global heap, which stores text attributes, by the object sizes in it: a size of zero, or one that
    overflows, makes it loop forever. Heaps are therefore checked as they are read, and the total number of bytes read
    is limited.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "r")
        self._path, self._size = path, os.fstat(self.fileno()).st_size
        self._budget = 4 * self._size + SLACK_BYTES
        self._checked: set[int] = set()

    def readinto(self, buffer: Any, /) -> int:
        """Read at the current position, and check the heaps in what was read."""
        start = self.tell()
        count = super().readinto(buffer)
        self._budget -= count
        if self._budget < 0:
            raise InputError(f"{self._path} is damaged: reading its structure does not terminate; {REWRITE}")
        # a signature may start in the bytes before
        first = max(0, start - len(_HEAP) + 1)
        content = self._at(first, start + count - first + len(_HEAP) - 1)
        place = content.find(_HEAP)
        while place >= 0:
            self._check_heap(first + place)
            place = content.find(_HEAP, place + 1)
        return count

    def _at(self, start: int, count: int) -> bytes:
        position = self.tell()
        try:
            self.seek(start)
            return self.read(count)
        finally:
            self.seek(position)

    def _check_heap(self, start: int) -> None:
        """Traverse a global heap collection (HDF5 file format specification, III.E) as HDF5 does."""
        if start in self._checked:
            return
        self._checked.add(start)
        header = self._at(start, 16)
        size = int.from_bytes(header[8:16], "little")
        if len(header) < 16 or start + size > self._size:
            return  # HDF5 reports this itself
        content, place = self._at(start, size), 16
        while place + _HEAP_OBJECT.size <= size:
            index, _, _, length = _HEAP_OBJECT.unpack_from(content, place)
            step = length if index == 0 else _HEAP_OBJECT.size + (length + 7) // 8 * 8
            if step == 0 or place + step > size:
                raise InputError(f"{self._path} is damaged at byte {start + place} (global heap); {REWRITE}")
            place += step


@contextmanager
def guarded(path: Path, what: str = "an episode file") -> Iterator[h5py.File]:
    """Open a file to check it; afterwards, `open_plain` reads values faster.

    Args:
        path: the file.
        what: what it should be, for messages.

    Raises:
        InputError: it is missing, not a file, not readable, not HDF5 or truncated.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "not a regular file"
        raise InputError(f"{path} is {kind}, not {what}")
    if path.suffix.lower() in NUMPY_SUFFIXES:
        read = f"numpy.load({path.name!r})" + ("" if path.suffix.lower() == ".npy" else "['masks']")
        raise InputError(
            f"{path} is a NumPy file, not HDF5; a data set is written by slotssm.data.writer.EpisodeWriter, and "
            f"predictions, for example masks, are copied into one: "
            f"h5py.File({path.stem + '.h5'!r}, 'w')['test/masks'] = {read}"
        )
    try:
        stream = GuardedFile(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    with stream:
        try:
            file = h5py.File(stream, "r")
        except (OSError, RuntimeError, ValueError) as error:
            told = (str(error).splitlines() or [type(error).__name__])[0]
            reason = "truncated" if "truncated" in told else "not HDF5" if "signature" in told else ""
            fault = f"is {reason}" if reason else f"cannot be opened ({told})"
            raise _held(path) or InputError(f"{path} {fault}; {REWRITE}") from None
        with file:
            try:
                yield file
            except InputError as error:
                raise _held(path) or error from None


def _held(path: Path) -> InputError | None:
    """The error of a file that another program is writing, which is incomplete rather than damaged."""
    try:
        with h5py.File(path, "r"):
            return None
    except (OSError, RuntimeError, ValueError) as error:
        is_held = "unable to lock file" in str(error)
    return (
        InputError(f"{path} is being written by another program; wait until it has closed the file")
        if is_held
        else None
    )


def open_plain(path: Path) -> h5py.File:
    """Open a checked file; without a lock if the file system does not support locks, or another process holds one."""
    with undamaged(path):
        try:
            return h5py.File(path, "r")
        except OSError:
            return h5py.File(path, "r", locking=False)


def has_link(group: h5py.Group, name: str) -> bool:
    """Whether a group has a link of this name, even a broken one."""
    return bool(group.id.links.exists(name.encode()))


def checked(file: h5py.File, path: Path, group: str) -> dict[str, h5py.Dataset]:
    """All datasets below a group of the root, by their paths inside it.

    Args:
        file: the file, opened by `guarded`.
        path: its path, for messages.
        group: name of the group, which exists.

    Raises:
        InputError: something in the group is not a plain dataset of numbers or text that is completely in the file.
    """
    found: dict[str, h5py.Dataset] = {}
    with undamaged(path, group):
        node = _linked(file, group, path, group)
        if not isinstance(node, h5py.Group):
            raise InputError(f"{path}: {group} is not a group of datasets; {REWRITE}")
        _walk(node, path, group, "", (), found)
    return found


def _walk(
    group: h5py.Group, path: Path, place: str, prefix: str, above: tuple[int, ...], found: dict[str, h5py.Dataset]
) -> None:
    here = h5o.get_info(group.id).addr
    if here in above:
        raise InputError(f"{path}: {place} contains itself; {REWRITE}")
    for key in sorted(group.id):
        name = key.decode()
        inside = f"{place}/{name}"
        with undamaged(path, inside):
            node = _linked(group, name, path, inside)
            if isinstance(node, h5py.Group):
                _walk(node, path, inside, f"{prefix}{name}/", (*above, here), found)
                continue
            if not isinstance(node, h5py.Dataset):
                raise InputError(f"{path}: {inside} is a type, not a dataset; leave it out")
            _check_dataset(node, path, inside)
        found[prefix + name] = node
        if len(found) > MOST_OBJECTS:
            raise InputError(f"{path}: {place} has more than {MOST_OBJECTS} datasets; remove those that are not needed")


def _linked(group: h5py.Group, name: str, path: Path, place: str, num_links: int = 0) -> Any:
    """The target of a link; links to other files are never followed."""
    key = name.encode()
    kind = group.id.links.get_info(key).type
    if kind == h5l.TYPE_HARD:
        return group[f"./{name}"]
    if kind == h5l.TYPE_EXTERNAL:
        raise InputError(f"{path}: {place} is a link into another file; copy what it holds into this one")
    if kind != h5l.TYPE_SOFT:
        raise InputError(f"{path}: {place} is a link of an unknown kind; copy what it holds into this file")
    target = group.id.links.get_val(key).decode()
    if num_links == MOST_LINKS:
        raise InputError(f"{path}: {place} is a link that leads in circles; copy what it holds to its place")
    node = group.file["/"] if target.startswith("/") else group
    for part in (part for part in target.split("/") if part not in ("", ".")):
        if not isinstance(node, h5py.Group) or not has_link(node, part):
            raise InputError(f"{path}: {place} is a link to {target}, which is not there; copy what it should hold")
        node = _linked(node, part, path, place, num_links + 1)
    return node


def _check_dataset(dataset: h5py.Dataset, path: Path, place: str) -> None:
    """Refuse values that are stored elsewhere, are neither numbers nor text, or are missing."""
    options = dataset.id.get_create_plist()
    if options.get_external_count():
        raise InputError(f"{path}: {place} keeps its values in other files; copy them into this one")
    if options.get_layout() == h5d.VIRTUAL:
        raise InputError(f"{path}: {place} is a view of other datasets (virtual); store its values")
    dtype = dataset.dtype
    if dtype.kind not in READABLE or (dtype.kind == "O" and not is_text(dtype)):
        what = "references" if h5py.check_ref_dtype(dtype) is not None else str(dtype)
        raise InputError(f"{path}: {place} holds {what}, neither numbers nor text; leave it out or convert it")
    if not dataset.shape:
        return
    item = dataset.id.get_type().get_size()
    there = min(dataset.id.get_storage_size(), os.path.getsize(path))
    most = there * (EXPANSION if options.get_nfilters() else 1) + SLACK_BYTES
    for size, what in ((dataset.shape, "values"), (dataset.chunks or (), "values a chunk")):
        promised = math.prod(map(int, size)) * item if size else 0
        if promised > most:
            raise InputError(
                f"{path}: {place} promises {promised / 2**20:,.0f} MiB of {what} and the file holds "
                f"{there / 2**20:,.1f} MiB for it; {REWRITE}"
            )


def is_text(dtype: np.dtype) -> bool:
    """Whether values are text, of fixed or of any length."""
    return h5py.check_string_dtype(dtype) is not None
