"""Files that are either complete or absent: atomic writing, and checks made before any work starts."""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from slotssm.errors import BusyError, InputError

try:
    import fcntl
except ImportError:  # no such locks on Windows
    fcntl = None  # type: ignore[assignment]


def refuse_existing(path: Path, force: bool) -> None:
    """Raise `InputError` if `path` exists and `force` is off: nothing is overwritten silently."""
    if path.exists() and not force:
        raise InputError(f"{path} exists already; pass --force to overwrite it, or choose another --out")


def make_folder(folder: Path) -> None:
    """Create `folder` with its parents and prove that a file can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"cannot write into {folder}: {error.strerror or error}; choose another --out") from None


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the operating system's refusal while writing `path` (full disk, no permission) into `InputError`."""
    try:
        yield
    except OSError as error:
        # not `strerror`: h5py puts HDF5's report of several lines there
        reason = os.strerror(error.errno) if error.errno else str(error).splitlines()[0]
        raise InputError(f"cannot write {path}: {reason}; free some space or choose another --out") from None


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and move it into place.

    The suffix is kept, since writers choose their format by it. On any error the temporary file is removed
    and what stood at `path` before stays.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        with explained(path):
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold an advisory lock on the file `path`, which is created; it ends with the process, even a killed one.

    Raises:
        BusyError: another process holds it.
    """
    with explained(path), path.open("w") as stream:
        if fcntl is not None:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BusyError(f"{path.parent} is in use by another process; wait until it is done") from None
        yield


def sync(path: Path) -> None:
    """Force a file or a folder to stable storage; Windows cannot do this to folders and wants files writable."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, document: Any) -> None:
    """Write `document` as indented JSON to `path` atomically; NaN and infinity are refused."""
    write_text(path, json.dumps(document, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON document, with a clear error for a missing or damaged file."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}") from None
