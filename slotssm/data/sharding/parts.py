"""The folder of shards beside an output: its lock, its plan, its shards, and its removal."""

import hashlib
import json
import logging
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from slotssm import __version__
from slotssm.data.episodes import Episode, EpisodeFile, EpisodeWriter, Layout
from slotssm.data.sharding.work import DamagedSourceError, LeftOut, MakeEpisodes, Shard, Work
from slotssm.errors import BusyError, InputError
from slotssm.files import exclusive, explained, is_held, read_json, write_json

PLAN, LOCK = "plan.json", "lock"
ATTEMPTS = 100
"""Attempts at taking the lock, since the folder may be removed by its previous holder at the same time."""

_SHARD = re.compile(r"(train|val|test)-\d{8,}-\d+\.(h5|json)")
_PART_LOCK = re.compile(r"part-\d+-of-\d+\.lock")


def parts_folder(out: Path) -> Path:
    """The folder for the shards of `out`."""
    return out.with_name(out.name + ".parts")


@contextmanager
def hold(out: Path) -> Iterator["Parts"]:
    """Create and lock the folder of shards of `out`; at the end it is removed if there is nothing to resume.

    If the source turns out to be damaged, the folder is removed with all shards.

    Raises:
        BusyError: another process holds the lock.
        InputError: the folder cannot be created.
    """
    parts = Parts(out)
    # closed explicitly, so that exceptions of the work do not pass through the lock
    stack = _taken(parts)
    try:
        yield parts
    except DamagedSourceError:
        parts.discard()
        raise
    finally:
        try:
            if not parts.is_started():
                parts.remove()
        finally:
            stack.close()
        # again: Windows does not remove open files, and network file systems only rename them. Neither call can
        # harm the next holder, whose lock is open and whose folder is not empty
        if os.name == "nt":
            with suppress(OSError):
                if not parts.is_started():
                    (parts.folder / LOCK).unlink()
        with suppress(OSError):
            parts.folder.rmdir()


@contextmanager
def hold_part(out: Path, part: tuple[int, int]) -> Iterator["Parts"]:
    """Create the folder of shards of `out` and lock one part of it, which other parts may be written beside.

    Args:
        out: the output.
        part: number of the part, from 1, and number of parts.

    Raises:
        BusyError: another process writes this part or all of the output.
        InputError: the folder cannot be created.
    """
    parts = Parts(out)
    parts.make()
    with exclusive(parts.folder / f"part-{part[0]}-of-{part[1]}.lock"):
        # a process that joins the parts takes the lock first and looks for parts then: one of both sees the other
        if is_held(parts.folder / LOCK):
            raise BusyError(
                f"{parts.shown} is in use by another process, which writes all of it; wait until it has ended"
            )
        yield parts


def _taken(parts: "Parts") -> ExitStack:
    """Take the lock, and make sure that the lock file was not removed by its previous holder in the meantime."""
    lock = parts.folder / LOCK
    for attempt in range(ATTEMPTS):
        # nobody removes it that often: this file system does not have stable inode numbers
        is_last = attempt == ATTEMPTS - 1
        parts.make()
        try:
            stream = lock.open("a")
        except FileNotFoundError:
            continue
        except OSError:
            with explained(lock):
                raise
        with ExitStack() as stack:
            # kept open with the lock, so that its inode number cannot be reused
            stack.enter_context(stream)
            try:
                stack.enter_context(exclusive(lock))
            except InputError:
                if is_last or _is_at(stream, lock):
                    raise
                continue
            if is_last or _is_at(stream, lock):
                return stack.pop_all()
    raise BusyError(f"{parts.shown} appears and disappears; another process is using it, wait until it has ended")


def _is_at(stream: IO[str], path: Path) -> bool:
    """Whether the open file is the one now at `path`."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


class Parts:
    """The folder of shards of an output, for the process that holds its lock.

    Args:
        out: the output.

    Attributes:
        folder: absolute path, since workers may have another working directory.
        shown: the path as the caller wrote it, for messages.
    """

    def __init__(self, out: Path) -> None:
        self.shown = parts_folder(out)
        self.folder = self.shown.absolute()

    def make(self) -> None:
        """Create the folder unless it exists."""
        with explained(self.shown):
            try:
                self.folder.mkdir(exist_ok=True)
            except FileExistsError:
                raise InputError(
                    f"{self.shown} is in the way: it is not a folder; remove it or choose another `out`"
                ) from None

    def names(self) -> list[str]:
        """Names of the files, except those that NFS keeps of removed open files."""
        with explained(self.shown), suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            files = [entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)]
            return [name for name in files if not name.startswith(".nfs")]
        return []

    def part_locks(self) -> list[Path]:
        """Lock files of parts that were written here by processes of their own."""
        return [self.folder / name for name in self.names() if _PART_LOCK.fullmatch(name)]

    def is_started(self) -> bool:
        """Whether there is something to resume."""
        return any(name == PLAN or _SHARD.fullmatch(name) for name in self.names())

    def prepare(self, work: Work, resume: bool, force: bool) -> Any:
        """Clear the shards of an unfinished run, or check that it can be resumed.

        Returns:
            What that run had found out in advance (`Contents.found`); None for a new start.

        Raises:
            InputError: there is an unfinished run that is not of the same work, or not to be resumed.
            BusyError: another process writes a part of it.
        """
        for lock in self.part_locks():
            if is_held(lock):
                raise BusyError(f"{self.shown}: another process is writing {lock.stem}; wait until it has ended")
        # parts are there to be joined
        resume = resume or (bool(self.part_locks()) and not force)
        if self.is_started() and not resume:
            if not force:
                raise InputError(
                    f"{self.shown} holds an unfinished {work.name}; `resume` continues it, `force` starts again"
                )
            self.clear()
        # temporary files of killed processes: nobody else is writing here now
        self._unlink([name for name in self.names() if name != PLAN and name != LOCK and not _SHARD.fullmatch(name)])
        return self.found_by(work)

    def found_by(self, work: Work) -> Any:
        """What an unfinished run of the same work had found out in advance; None without one.

        Raises:
            InputError: the unfinished run is not of the same work.
        """
        stored = self.read_plan()
        if stored is None:
            return None
        if not _same(stored, _decisive(work.plan)):
            raise InputError(
                f"{self.shown} was started with other settings, another source or another version; repeat the command "
                "that started it, or start again with `force` and without `resume`"
            )
        return stored.get("found")

    def read_plan(self) -> dict[str, Any] | None:
        """The stored plan; None without one."""
        if not (self.folder / PLAN).exists():
            return None
        try:
            stored = read_json(self.folder / PLAN)
        except InputError:
            stored = None
        if not isinstance(stored, dict):
            raise InputError(f"{self.shown / PLAN} is damaged; start again with `force` and without `resume`")
        return stored

    def write_plan(self, plan: Mapping[str, Any], found: Any) -> str:
        """Store what determines the content of the shards, and return its digest."""
        document = {**_decisive(plan), "found": found}
        write_json(self.folder / PLAN, document)
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()

    def missing(self, shards: Sequence[Shard], digest: str) -> list[Shard]:
        """The shards that are absent, incomplete, or not of the plan with this digest."""
        return [shard for shard in shards if not _is_complete(self.path(shard), shard, digest)]

    def path(self, shard: Shard) -> Path:
        """The file of a shard."""
        return self.folder / shard.file_name

    def belongs_to(self, work: Work) -> bool:
        """Whether the folder has no plan, or that of the same work."""
        try:
            stored = self.read_plan()
        except InputError:
            return False
        return stored is None or _same(stored, _decisive(work.plan))

    def clear(self) -> None:
        """Remove all files except the lock; the plan last, so that a killed process never leaves shards without one."""
        names = [name for name in self.names() if name != LOCK]
        self._unlink(sorted(names, key=lambda name: name == PLAN))

    def _unlink(self, names: Sequence[str]) -> None:
        for name in names:
            try:
                (self.folder / name).unlink(missing_ok=True)
            except OSError as error:
                reason = error.strerror or str(error)
                raise InputError(f"cannot remove {self.shown / name}: {reason}; remove {self.shown}") from None

    def discard(self) -> None:
        """Remove all files except the lock when they are no longer needed; a failure is only a warning."""
        try:
            self.clear()
        except InputError as error:
            logging.getLogger("slotssm").warning("%s", error)

    def remove(self) -> None:
        """Remove the folder with the lock, which must be held; other processes may use the folder afterwards."""
        self.discard()
        with suppress(OSError):
            (self.folder / LOCK).unlink(missing_ok=True)
            self.folder.rmdir()


def _decisive(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What all shards of a file must agree in."""
    return {"plan": plan, "version": __version__}


def _same(stored: Mapping[str, Any], decisive: Mapping[str, Any]) -> bool:
    return as_json({key: stored.get(key) for key in decisive}) == as_json(decisive)


def as_json(document: Any) -> str:
    """A document as canonical JSON text."""
    return json.dumps(document, sort_keys=True)


def read_left_out(path: Path, digest: str) -> list[LeftOut]:
    """Episodes that were left out of the shard at this path, if it belongs to the plan."""
    try:
        document = read_json(path.with_suffix(".json"))
        if document.get("plan") == digest:
            return [LeftOut(**entry) for entry in document["left_out"]]
    except (InputError, TypeError, KeyError, AttributeError):
        pass
    return []


def _is_complete(path: Path, shard: Shard, digest: str) -> bool:
    """Whether a shard exists, is complete (HDF5 detects truncated files) and belongs to the plan."""
    count = shard.count - len(read_left_out(path, digest))
    if not path.exists():
        return count == 0
    try:
        with EpisodeFile(path, needs_frames=False) as episodes:
            return episodes.attrs.get("plan") == digest and episodes.num_episodes(shard.split) == count
    except InputError:
        return False


@dataclass(frozen=True)
class ShardWriter:
    """Makes and writes shards, in any process.

    Attributes:
        folder: absolute path of the folder of shards.
        layout: fields of every split.
        make: makes the episodes of a shard.
        digest: digest of the plan, which is stored in each shard to distinguish it from shards of other plans.
    """

    folder: Path
    layout: Layout
    make: MakeEpisodes
    digest: str

    def path(self, shard: Shard) -> Path:
        """The file of a shard, which exists once the shard is complete."""
        return self.folder / shard.file_name

    def is_written(self, shard: Shard) -> bool:
        """Whether anything of a shard has been written."""
        return self.path(shard).exists() or self.path(shard).with_suffix(".json").exists()

    def write(self, shard: Shard) -> None:
        """Make a shard and write it."""
        self.save(shard, list(self.make(shard)))

    def save(self, shard: Shard, made: Sequence[Episode | LeftOut]) -> None:
        """Write the episodes of a shard; it gets its name once it is complete.

        What was left out is written beside it, and before it.
        """
        if len(made) != shard.count:
            raise RuntimeError(f"{len(made)} episodes were made for {shard}")
        target = self.path(shard)
        episodes = [each for each in made if not isinstance(each, LeftOut)]
        left_out = [asdict(each) for each in made if isinstance(each, LeftOut)]
        with explained(target):
            if left_out:
                write_json(target.with_suffix(".json"), {"plan": self.digest, "left_out": left_out})
            else:
                target.with_suffix(".json").unlink(missing_ok=True)
        if episodes:
            self._save(shard, target, episodes)

    def _save(self, shard: Shard, target: Path, episodes: Sequence[Episode]) -> None:
        temporary = target.with_name(f"{target.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
        try:
            with explained(target):
                counts = {shard.split: len(episodes)}
                with EpisodeWriter(temporary, {"plan": self.digest}, self.layout, counts) as writer:
                    writer.write(shard.split, 0, episodes)
                os.replace(temporary, target)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
