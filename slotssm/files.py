"""Files that are either complete or absent: atomic writing, locks, and checks made before any work starts."""

import errno
import hashlib
import json
import logging
import os
import platform
import re
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
_ONLY_OF_WRITING = _FULL | {errno.EROFS, errno.EFBIG}
"""Refusals that no other call than a write gives."""
_NEVER_OF_WRITING = (ConnectionError, ChildProcessError, InterruptedError, TimeoutError)

_LONGEST_NAME = 255
"""Bytes of a file name on every common file system."""
_numbers = count()
_temporaries: set[str] = set()
"""Temporary files that this process is writing."""


def refuse_existing(path: Path, force: bool) -> None:
    """Raise `InputError` if `path` exists and `force` is off: nothing is overwritten silently."""
    try:
        exists = path.exists()
    except OSError as error:
        raise InputError(f"cannot look for {path}: {_reason(error)}; choose another `out`") from None
    if exists and not force:
        raise InputError(f"{path} exists already; `force` overwrites it, or choose another `out`")


def make_folder(folder: Path) -> None:
    """Create `folder` with its parents and prove that a file can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"cannot write into {folder}: {_reason(error)}; {_remedy(error)}") from None


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal of the one call that writes `path` into `InputError`.

    Wrap nothing but that call: an error that names another file, and one that no write gives (a broken pipe), passes
    as it is, but one without a name is taken for a refusal of the write.
    """
    try:
        yield
    except OSError as error:
        if not _is_of_writing(error, path):
            raise
        raise _refusal(path, error) from None


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and move it into place.

    The suffix is kept, since writers choose their format by it. On any error the temporary file is removed
    and what stood at `path` before stays. Errors of the body pass as they are, but for those of writing the
    temporary file. What a process that was killed has left of the same file is removed.

    Raises:
        InputError: the file cannot be written.
    """
    _remove_left_over(path)
    temporary = path.with_name(_temporary_name(path))
    _temporaries.add(temporary.name)
    try:
        try:
            yield temporary
        except OSError as error:
            # h5py tells names in its text alone
            if not (error.errno in _ONLY_OF_WRITING or _names(error, temporary) or temporary.name in str(error)):
                raise
            raise _refusal(path, error) from None
        with explained(path):
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        _temporaries.discard(temporary.name)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a lock on the file `path`, which is created; it ends with the process, even a killed one.

    Where the file system knows no locks, a note says that processes which work there at the same time are not
    noticed, and the work goes on. Errors of the body pass as they are.

    Raises:
        BusyError: another process holds it.
        InputError: the file cannot be written.
    """
    # no marker file in place of a lock: it would outlive a killed process
    lock = FileLock(path, blocking=False, thread_local=False, fallback_to_soft=False)
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
            # only for the message of others; what cannot be written is no loss
            with suppress(OSError):
                path.write_text(f"{os.getpid()} {platform.node()}\n", encoding="utf-8")
        yield
    finally:
        with suppress(OSError):
            lock.release(force=True)


def _holder(lock: Path) -> str:
    """Who has written itself into a lock file, as far as that can be read."""
    try:
        process, host = lock.read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return ""
    return f" (process {process} on {host})"


def sync(path: Path) -> None:
    """Force a file or a folder to stable storage, as far as its file system can do that.

    Windows cannot do this to folders and wants files writable; some network file systems and containers refuse
    it for folders, or altogether, which costs certainty after a power cut and nothing else.

    Raises:
        OSError: the storage failed, is full or does not hold the file.
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
    """Read a JSON document, with a clear error for a missing or damaged file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}") from None


# --- reasons ----------------------------------------------------------------------------------------------


def _refusal(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot write {path}: {_reason(error)}; {_remedy(error)}")


def _reason(error: OSError) -> str:
    # not `strerror`: h5py puts HDF5's report of several lines there
    if error.errno:
        return os.strerror(error.errno)
    return (str(error) or type(error).__name__).splitlines()[0]


def _remedy(error: OSError) -> str:
    # libraries that are not written in Python pass on the text alone
    is_full = error.errno in _FULL or os.strerror(errno.ENOSPC) in str(error)
    return "free some space or choose another `out`" if is_full else "choose another `out`"


def _is_of_writing(error: OSError, path: Path) -> bool:
    """Whether the error may be a refusal to write `path`: its own, its folder's or that of a temporary file for it."""
    if isinstance(error, _NEVER_OF_WRITING):
        return False
    return _named(error) == [] or _names(error, path)


def _named(error: OSError) -> list[Path]:
    names = [name for name in (error.filename, error.filename2) if isinstance(name, (str, bytes, os.PathLike))]
    return [Path(os.fsdecode(name)) for name in names]


def _names(error: OSError, path: Path) -> bool:
    """Whether the error is about `path`, what lies in it, the folders that it lies in, or a temporary file for it."""
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


def _temporary_name(path: Path) -> str:
    return f"{_temporary_start(path)}{os.getpid()}-{next(_numbers)}.partial{path.suffix}"


def _temporary_start(path: Path) -> str:
    """`.<stem>.<host>.`, what temporary files of the same target have in common on this machine."""
    stem = path.stem
    if len(os.fsencode(path.name)) > _LONGEST_NAME - 90:
        stem = f"{stem[:30]}-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:12]}"
    return f".{stem}.{_machine()}."


def _machine() -> str:
    """Name of the set of processes that process numbers are unique in: containers of one host have their own."""
    host = re.sub(r"[^A-Za-z0-9]+", "-", platform.node())[:32] or "host"
    try:
        return f"{host}-{os.stat('/proc/self/ns/pid').st_ino:x}"
    except OSError:  # not Linux
        return host


def _remove_left_over(path: Path) -> None:
    """Remove temporary files of the same target whose process on this machine is gone; errors leave them there."""
    start, end = _temporary_start(path), f".partial{path.suffix}"
    pattern = re.compile(re.escape(start) + r"(\d+)-\d+" + re.escape(end))
    with suppress(OSError):
        for entry in list(os.scandir(path.parent)):
            found = pattern.fullmatch(entry.name)
            if found and entry.name not in _temporaries and not _is_alive(int(found[1])):
                os.unlink(entry.path)


def _is_alive(process: int) -> bool:
    """Whether another process has this number; our own number on a file that is not ours was another's before."""
    return process != os.getpid() and psutil.pid_exists(process)
