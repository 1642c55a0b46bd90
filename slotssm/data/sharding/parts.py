"""The folder of parts beside an output: its lock, its plan, its shards, and when all of it may go."""

import hashlib
import json
import logging
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from slotssm import __version__
from slotssm.data.episodes import Episode, EpisodeFile, EpisodeWriter, Layout
from slotssm.data.sharding.work import DamagedSourceError, MakeEpisodes, Shard, Work
from slotssm.errors import BusyError, InputError
from slotssm.files import exclusive, explained, read_json, write_json

PLAN, LOCK = "plan.json", "lock"
ATTEMPTS = 100
"""The folder may vanish, with its last holder, while it is being taken."""

_SHARD = re.compile(r"(train|val|test)-\d{8,}-\d+\.h5")


def parts_folder(out: Path) -> Path:
    """Where the parts of `out` lie."""
    return out.with_name(out.name + ".parts")


@contextmanager
def hold(out: Path) -> Iterator["Parts"]:
    """Hold the folder of parts of `out`, which is made; it goes at the end if nothing in it could be continued.

    So it does with all that is in it if the source turns out to be damaged.

    Raises:
        BusyError: another process holds it.
        InputError: it cannot be made.
    """
    parts = Parts(out)
    # closed by hand, so that what the work raises does not pass through the lock
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
        # once more: Windows removes no file that is open, network file systems only rename it. Neither call can
        # harm the next holder, whose lock is open and whose folder is not empty
        if os.name == "nt":
            with suppress(OSError):
                if not parts.is_started():
                    (parts.folder / LOCK).unlink()
        with suppress(OSError):
            parts.folder.rmdir()


def _taken(parts: "Parts") -> ExitStack:
    """Take the lock, and make sure that it is the one that others will find, since its last holder removed it."""
    lock = parts.folder / LOCK
    for attempt in range(ATTEMPTS):
        # nobody comes and goes that often: the numbers that this file system gives its files do not last
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
            # held open over the lock, so that its number in the file system cannot be given to another file
            stack.enter_context(stream)
            try:
                stack.enter_context(exclusive(lock))
            except InputError:
                if is_last or _is_at(stream, lock):
                    raise
                continue
            if is_last or _is_at(stream, lock):
                return stack.pop_all()
    raise BusyError(f"{parts.shown} appears and disappears; another process is at work there, wait until it is done")


def _is_at(stream: IO[str], path: Path) -> bool:
    """Whether the open file is the one that lies at `path` now."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


class Parts:
    """The folder of parts of an output, for the process that holds it.

    Args:
        out: the output.

    Attributes:
        folder: absolute, since workers may run elsewhere.
        shown: the same as the caller would write it, for messages.
    """

    def __init__(self, out: Path) -> None:
        self.shown = parts_folder(out)
        self.folder = self.shown.absolute()

    def make(self) -> None:
        """Make the folder unless it is there."""
        with explained(self.shown):
            try:
                self.folder.mkdir(exist_ok=True)
            except FileExistsError:
                raise InputError(
                    f"{self.shown} is in the way: it is not a folder; remove it or choose another `out`"
                ) from None

    def names(self) -> list[str]:
        """Names of the files; folders are not ours, nor is what NFS keeps of removed files that are open."""
        with explained(self.shown), suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            files = [entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)]
            return [name for name in files if not name.startswith(".nfs")]
        return []

    def is_started(self) -> bool:
        """Whether there is something to continue."""
        return any(name == PLAN or _SHARD.fullmatch(name) for name in self.names())

    def prepare(self, work: Work, resume: bool, force: bool) -> Any:
        """Clear what an unfinished run left, or check that it may and can be continued.

        Returns:
            What that run had found out; None if it starts from nothing.

        Raises:
            InputError: it must not be mixed with this work.
        """
        if self.is_started() and not resume:
            if not force:
                raise InputError(
                    f"{self.shown} holds an unfinished {work.name}; `resume` continues it, `force` starts again"
                )
            self.clear()
        # of processes that were killed: nobody else writes here now
        self._unlink([name for name in self.names() if name != PLAN and name != LOCK and not _SHARD.fullmatch(name)])
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
        """The plan of what lies here, None without one."""
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
        """Keep what decides the content of the shards, and give its digest."""
        document = {**_decisive(plan), "found": found}
        write_json(self.folder / PLAN, document)
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()

    def missing(self, shards: Sequence[Shard], digest: str) -> list[Shard]:
        """Those of the shards that are not there, not whole, or not of the plan with this digest."""
        return [shard for shard in shards if not _is_complete(self.path(shard), shard, digest)]

    def path(self, shard: Shard) -> Path:
        """The file of a shard."""
        return self.folder / shard.file_name

    def belongs_to(self, work: Work) -> bool:
        """Whether what lies here was begun by the same work, or by none."""
        try:
            stored = self.read_plan()
        except InputError:
            return False
        return stored is None or _same(stored, _decisive(work.plan))

    def clear(self) -> None:
        """Remove all but the lock; the plan last, so that a kill leaves nothing without one."""
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
        """Remove all but the lock, now that it is needed no more; what cannot be removed stays, with a note."""
        try:
            self.clear()
        except InputError as error:
            logging.getLogger("slotssm").warning("%s", error)

    def remove(self) -> None:
        """Remove the folder and the lock in it. The lock must be held, and the folder is not ours any more after."""
        self.discard()
        with suppress(OSError):
            (self.folder / LOCK).unlink(missing_ok=True)
            self.folder.rmdir()


def _decisive(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What all shards of a file must have in common."""
    return {"plan": plan, "version": __version__}


def _same(stored: Mapping[str, Any], decisive: Mapping[str, Any]) -> bool:
    return as_json({key: stored.get(key) for key in decisive}) == as_json(decisive)


def as_json(document: Any) -> str:
    """A document as text that is equal for equal documents, whether or not they come from a file."""
    return json.dumps(document, sort_keys=True)


def _is_complete(path: Path, shard: Shard, digest: str) -> bool:
    """Whether a shard is there, whole (HDF5 notices a file that was cut short) and of the plan."""
    if not path.exists():
        return False
    try:
        with EpisodeFile(path, needs_frames=False) as episodes:
            return episodes.attrs.get("plan") == digest and episodes.num_episodes(shard.split) == shard.count
    except InputError:
        return False


@dataclass(frozen=True)
class ShardWriter:
    """Makes and writes shards, in whichever process.

    Attributes:
        folder: the folder of parts, absolute.
        layout: fields of every split.
        make: makes the episodes of a shard.
        digest: of the plan; each shard carries it, so that none is ever taken for one of another plan.
    """

    folder: Path
    layout: Layout
    make: MakeEpisodes
    digest: str

    def path(self, shard: Shard) -> Path:
        """The file of a shard, which is there once it is complete."""
        return self.folder / shard.file_name

    def write(self, shard: Shard) -> None:
        """Make a shard and write it."""
        self.save(shard, list(self.make(shard)))

    def save(self, shard: Shard, episodes: Sequence[Episode]) -> None:
        """Write the episodes of a shard; it gets its name once it is complete."""
        if len(episodes) != shard.count:
            raise RuntimeError(f"{len(episodes)} episodes were made for {shard}")
        target = self.path(shard)
        temporary = target.with_name(f"{target.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
        try:
            with explained(target):
                with EpisodeWriter(temporary, {"plan": self.digest}, self.layout, {shard.split: shard.count}) as writer:
                    writer.write(shard.split, 0, episodes)
                os.replace(temporary, target)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
