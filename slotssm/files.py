"""Files that are either complete or absent: atomic writes, locks, and checks made before any work starts."""

import errno
import hashlib
import json
import logging
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from slotssm.errors import BusyError, InputError

_log = logging.getLogger("slotssm")

_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})
_NO_LOCKS = _UNSUPPORTED | {errno.ENOLCK}
_NO_FOLDER_SYNC = _UNSUPPORTED | {errno.EACCES, errno.EPERM, errno.EBADF}
_FULL = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})
_ONLY_WRITE_ERRORS = _FULL | {errno.EROFS, errno.EFBIG}
"""Errors that only a write can raise."""
_NEVER_WRITE_ERRORS = (ConnectionError, ChildProcessError, InterruptedError, TimeoutError)

_LONGEST_NAME = 255
"""Longest file name in bytes on all common file systems."""
_numbers = count()
_temporaries: set[str] = set()
"""Names of the temporary files that this process is writing."""


def refuse_existing(path: Path, force: bool) -> None:
    """Raise `InputError` if `path` exists and `force` is off: nothing is overwritten silently."""
    try:
        exists = path.exists()
    except OSError as error:
        raise InputError(f"cannot access {path}: {_reason(error)}; choose another `out`") from None
    if exists and not force:
        raise InputError(f"{path} exists already; `force` overwrites it, or choose another `out`")


def make_folder(folder: Path) -> None:
    """Create `folder` with its parents and check that a file can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"cannot write into {folder}: {_reason(error)}; {_remedy(error)}") from None


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an `OSError` of the one call that writes `path` into `InputError`.

    Wrap nothing but that call: an error that names another file, or that no write can raise (a broken pipe), is passed
    on unchanged, but an error that names no file is taken to be about `path`.
    """
    try:
        yield
    except OSError as error:
        if not _is_write_error(error, path):
            raise
        raise _refusal(path, error) from None


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and move it into place.

    The suffix is kept, since writers choose their format by it. On any error, the temporary file is removed and an
    existing file at `path` is left unchanged. Errors of the body are passed on unchanged, except those of writing the
    temporary file. Temporary files of the same target that a killed process has left behind are removed.

    Raises:
        InputError: the file cannot be written.
    """
    _remove_left_over(path)
    with _temporary(path) as temporary:
        yield temporary
        with explained(path):
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success flush it to disk and move it into place.

    An existing folder at `path` is replaced, and left unchanged on any error. Errors are passed on, and what a killed
    process has left behind is removed, as by `atomic`.

    Raises:
        InputError: the folder cannot be written.
    """
    restore_moved_aside(path)
    _remove_left_over(path)
    with _temporary(path) as temporary:
        with explained(path):
            temporary.mkdir()
        yield temporary
        with explained(path):
            for place in [*temporary.rglob("*"), temporary]:
                sync(place)
            _replace_folder(temporary, path)
            sync(path.parent)


def restore_moved_aside(path: Path) -> None:
    """Move a folder back to `path` that a process was killed while replacing; errors are ignored."""
    with suppress(OSError):
        aside = [place for place, kind in _left_over(path) if kind == "old"]
        if aside and not path.exists():
            os.rename(aside[0], path)


@contextmanager
def exclusive(path: Path, wait_s: float = 0) -> Iterator[None]:
    """Hold a lock on the file `path`, which is created; the lock ends with the process, even if it is killed.

    If the file system does not support locks, a warning says that other processes working there will not be noticed,
    and the work continues. Errors of the body are passed on unchanged.

    Args:
        path: file to lock.
        wait_s: how long to wait for another process that holds the lock.

    Raises:
        BusyError: another process holds it.
        InputError: the file cannot be written.
    """
    # not a marker file instead of a lock: it would outlive a killed process
    lock = FileLock(path, timeout=wait_s, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        raise BusyError(f"{path.parent} is in use by another process{_holder(path)}; wait until it has ended") from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise _refusal(path, error) from None
        _log.warning(
            f"the file system of {path.parent} has no locks ({_reason(error)}): other processes that work there at "
            "the same time will not be noticed"
        )
    try:
        if lock.is_locked:
            # only for the error message of other processes, so failing to write it does no harm
            with suppress(OSError):
                path.write_text(f"{os.getpid()} {platform.node()}\n", encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            lock.release(force=True)


def is_held(path: Path) -> bool:
    """Whether another process holds the lock that `exclusive` takes on `path`, as far as the file system can tell.

    The lock is only tried if the process that the file names may be running: a moment in which it is held here could
    refuse a process that is just starting.
    """
    owner = _owner(path)
    if not path.exists() or (owner and owner[1] == platform.node() and not psutil.pid_exists(owner[0])):
        return False
    lock = FileLock(path, blocking=False, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        return True
    except OSError:  # no locks here, or the file cannot be opened
        return False
    lock.release(force=True)
    return False


def _holder(lock: Path) -> str:
    """The process that a lock file names, for a message; empty if it names none."""
    owner = _owner(lock)
    return f" (process {owner[0]} on {owner[1]})" if owner else ""


def _owner(lock: Path) -> tuple[int, str] | None:
    """Process and host that a lock file names; None if it cannot be read."""
    try:
        process, host = lock.read_text(encoding="utf-8").split()
        return int(process), host
    except (OSError, ValueError):
        return None


def sync(path: Path) -> None:
    """Flush a file or a folder to stable storage, as far as its file system supports that.

    Windows cannot do this for folders and requires files to be writable; some network file systems and containers
    refuse it for folders or altogether, which only matters after a power cut.

    Raises:
        OSError: the storage failed or is full, or the file does not exist.
    """
    is_folder = path.is_dir()
    if os.name == "nt" and is_folder:
        return
    try:
        descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in (_NO_FOLDER_SYNC if is_folder else _UNSUPPORTED):
            raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, as UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, document: Any) -> None:
    """Write `document` as indented JSON to `path` atomically; NaN and infinity are refused."""
    write_text(path, json.dumps(document, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON document; a missing or damaged file raises `InputError`."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder, and not a JSON file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}") from None


# --- reasons ----------------------------------------------------------------------------------------------


def _refusal(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot write {path}: {_reason(error)}; {_remedy(error)}")


def _reason(error: OSError) -> str:
    # not `strerror`, into which h5py writes HDF5's report of several lines
    if error.errno:
        return os.strerror(error.errno)
    return (error.strerror or str(error) or type(error).__name__).splitlines()[0]


def _remedy(error: OSError) -> str:
    # libraries that are not written in Python only pass on the text
    is_full = error.errno in _FULL or os.strerror(errno.ENOSPC) in str(error)
    return "free some space or choose another `out`" if is_full else "choose another `out`"


def _is_write_error(error: OSError, path: Path) -> bool:
    """Whether the error may come from writing `path`, its folder, or a temporary file for it."""
    if isinstance(error, _NEVER_WRITE_ERRORS):
        return False
    return _named(error) == [] or _names(error, path)


def _named(error: OSError) -> list[Path]:
    names = [name for name in (error.filename, error.filename2) if isinstance(name, (str, bytes, os.PathLike))]
    return [Path(os.fsdecode(name)) for name in names]


def _names(error: OSError, path: Path) -> bool:
    """Whether the error names `path`, something inside it, one of its parents, or a temporary file for it."""
    target = Path(os.path.abspath(path))
    for name in _named(error):
        found = Path(os.path.abspath(name))
        if found in target.parents or any(_stands_for(place, target) for place in (found, *found.parents)):
            return True
    return False


def _stands_for(place: Path, target: Path) -> bool:
    """Whether a path is the target, or a temporary file or folder for it."""
    starts = (f".{target.stem}.", f".{target.name}.", f"{target.name}.", _temporary_start(target))
    return place == target or (place.parent == target.parent and place.name.startswith(starts))


# --- temporary files --------------------------------------------------------------------------------------


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A temporary path for `path`, which does not outlive the context; errors of writing there name `path`."""
    temporary = path.with_name(_temporary_name(path, "partial"))
    _temporaries.add(temporary.name)
    try:
        yield temporary
    except OSError as error:
        # h5py names the file in the text of the error only
        if not (error.errno in _ONLY_WRITE_ERRORS or _names(error, temporary) or temporary.name in str(error)):
            raise
        raise _refusal(path, error) from None
    finally:
        with suppress(OSError):
            _remove(temporary)
        _temporaries.discard(temporary.name)


def _replace_folder(folder: Path, path: Path) -> None:
    """Move a folder to `path`, from where an earlier one is first moved aside, so that one of them always exists."""
    if not path.exists():
        os.rename(folder, path)
        return
    aside = path.with_name(_temporary_name(path, "old"))
    os.rename(path, aside)
    try:
        os.rename(folder, path)
    except OSError:
        os.rename(aside, path)
        raise
    shutil.rmtree(aside)


def _temporary_name(path: Path, kind: str) -> str:
    return f"{_temporary_start(path)}{os.getpid()}-{next(_numbers)}.{kind}{path.suffix}"


def _temporary_start(path: Path) -> str:
    """`.<stem>.<host>.`, the common prefix of the temporary files of a target on this machine."""
    stem = path.stem
    if len(os.fsencode(path.name)) > _LONGEST_NAME - 90:
        stem = f"{stem[:30]}-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]}"
    return f".{stem}.{_machine()}."


def _machine() -> str:
    """Name of the process namespace, in which process ids are unique: containers of one host have their own."""
    host = re.sub(r"[^A-Za-z0-9]+", "-", platform.node())[:32] or "host"
    try:
        return f"{host}-{os.stat('/proc/self/ns/pid').st_ino:x}"
    except OSError:  # not Linux
        return host


def _remove_left_over(path: Path) -> None:
    """Remove temporary files and folders of the same target whose process has ended; errors are ignored."""
    with suppress(OSError):
        for place, _ in _left_over(path):
            _remove(place)


def _left_over(path: Path) -> list[tuple[Path, str]]:
    """Temporary files and folders of the same target whose process on this machine has ended, each with its kind."""
    pattern = re.compile(re.escape(_temporary_start(path)) + r"(\d+)-\d+\.(partial|old)" + re.escape(path.suffix))
    found = [(entry.name, pattern.fullmatch(entry.name)) for entry in os.scandir(path.parent)]
    return [
        (path.with_name(name), match[2])
        for name, match in found
        if match and name not in _temporaries and not _is_alive(int(match[1]))
    ]


def _remove(place: Path) -> None:
    """Remove a file or a folder that may be absent."""
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    """Whether another process has this id; a file of another process with our id is from a process that has ended."""
    return process != os.getpid() and psutil.pid_exists(process)
