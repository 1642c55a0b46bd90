"""Writing a data set: checks, lock, shards, joined file.

Writing shards and joining them are separate steps, and the division into shards depends on the work only.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from slotssm.data.episodes import EpisodeFile, EpisodeWriter
from slotssm.data.sharding.parts import (
    Parts,
    ShardWriter,
    as_json,
    hold,
    hold_part,
    parts_folder,
    read_left_out,
)
from slotssm.data.sharding.work import Contents, DamagedSourceError, ProgressCallback, Shard, Work
from slotssm.data.sharding.workers import open_pool, refuse_unguarded, write_in_pool
from slotssm.errors import InputError, Interrupted
from slotssm.files import explained, make_folder, refuse_existing, sync
from slotssm.interrupts import StopRequest, stop_requests

JOINED = "joined.partial"
"""The joined file while it is written: in the folder of shards, so that it is removed with them after a kill."""


class ProgressCounter:
    """Counts and reports finished episodes."""

    def __init__(self, total: int, done: int, on_progress: ProgressCallback) -> None:
        self.total, self.done, self._on_progress = total, done, on_progress
        self.report()

    def report(self, unwritten: int = 0) -> None:
        """Report the count, including episodes that are made but not yet written."""
        self._on_progress(self.done + unwritten, self.total)

    def add(self, shard: Shard) -> None:
        """Count a written shard."""
        self.done += shard.count

    def interrupted(self, stop: StopRequest) -> Interrupted:
        """The exception for a stop request, which says how many episodes are kept."""
        return Interrupted(f"{stop.signal_name}: {self.done} of {self.total} episodes are kept; `resume` continues")


def write_episodes(
    work: Work,
    out: Path,
    resume: bool = False,
    force: bool = False,
    on_progress: ProgressCallback = lambda done, total: None,
) -> bool:
    """Write a data set into `out`.

    Args:
        work: what to write.
        out: the file; until it is complete, its shards are in the folder `<out>.parts`.
        resume: continue an interrupted run; a complete output of the same plan is left unchanged.
        force: overwrite an existing file, and discard the shards of an interrupted run.
        on_progress: called after every shard, and after every episode if there is one process.

    Returns:
        Whether anything was written: False if the output was already complete.

    Raises:
        InputError: the output exists, is unfinished, or cannot be written.
        BusyError: another process is writing it.
        DamagedSourceError: raised by the functions of `work`; nothing is kept.
        Interrupted: SIGINT or SIGTERM arrived; `resume` continues.
    """
    refuse_existing(out, force=True)  # refuses a path that cannot be accessed
    if out.is_dir():
        raise InputError(f"{out} is a folder; choose a file for `out`")
    if _is_finished(work, out, resume, force) and not parts_folder(out).exists():
        return False
    refuse_unguarded()
    make_folder(out.parent)
    with ExitStack() as stack:
        parts = stack.enter_context(hold(out))
        # checked again: another process may have finished the file in the meantime, or left its shards
        if _is_finished(work, out, resume, force):
            if parts.belongs_to(work):
                parts.discard()
            return False
        found = parts.prepare(work, resume, force)
        # may take long, and can be interrupted immediately, since nothing is written yet
        contents = _contents(work, found)
        # from here until the folder is released, signals are deferred until nothing would be lost
        with stop_requests() as stop, stack.pop_all():
            _write(work, contents, parts, out, force, stop, on_progress)
    return True


def write_part(
    work: Work,
    out: Path,
    part: tuple[int, int],
    on_progress: ProgressCallback = lambda done, total: None,
) -> int:
    """Write one of several parts of a data set, each by a process of its own, on one or on several machines.

    The shards of all parts are in the folder `<out>.parts`; `write_episodes` joins them, and writes those that are
    missing. Shards that are there already are left as they are. The file is the same as from one process.

    Args:
        work: what to write, the same for all parts; nothing of it may be found out in advance.
        out: the file that the parts will be joined to.
        part: number of the part, from 1, and number of parts.
        on_progress: called after every shard, and after every episode if there is one process.

    Returns:
        Number of episodes of the part.

    Raises:
        InputError: the output exists, there is no such part, or the folder belongs to another work.
        BusyError: another process is writing this part, or joins the parts.
        Interrupted: SIGINT or SIGTERM arrived; the same call continues.
    """
    number, count = part
    if not 1 <= number <= count:
        raise InputError(f"`part` {number}/{count}: the parts are 1/{count} to {count}/{count}")
    refuse_existing(out, force=False)
    refuse_unguarded()
    make_folder(out.parent)
    with hold_part(out, part) as parts:
        contents = _contents(work, parts.found_by(work))
        with stop_requests() as stop:
            digest = parts.write_plan(work.plan, contents.found)
            own = list(contents.shards())[number - 1 :: count]
            missing = parts.missing(own, digest)
            total = sum(shard.count for shard in own)
            counter = ProgressCounter(total, total - sum(shard.count for shard in missing), on_progress)
            writer = ShardWriter(parts.folder, contents.layout, contents.make, digest)
            write_shards(writer, missing, contents.workers, stop, counter)
    return total


def _contents(work: Work, found: Any) -> Contents:
    """What a work writes, with its numbers of episodes."""
    contents = work.prepare(found)
    return contents if contents.num_episodes is not None else replace(contents, num_episodes=work.num_episodes)


def _is_finished(work: Work, out: Path, resume: bool, force: bool) -> bool:
    """Whether a resumed work is already complete; an output that must not be overwritten is refused."""
    if not out.exists():
        return False
    if resume:
        fault = _difference(work, out)
        if fault is None:
            return True
        if not force:
            raise InputError(f"{out} exists already and {fault}; `force` overwrites it, or choose another `out`")
    refuse_existing(out, force)
    return False


def _difference(work: Work, out: Path) -> str | None:
    """How a file differs from what the work would write; None if it does not."""
    try:
        with EpisodeFile(out, needs_frames=False) as episodes:
            counts = {split: episodes.num_episodes(split) for split in episodes.splits}
            try:
                plan = work.plan_of(episodes)
            except InputError:
                plan = None
    except InputError:
        return "is not an episode file that this version can read"
    if plan is None or as_json(plan) != as_json(work.plan):
        return "was made from other settings or another source"
    if work.num_episodes is None or counts == dict(work.num_episodes):
        return None
    return f"has other numbers of episodes ({_listed(counts)})"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{split} {count}" for split, count in counts.items())


def _write(
    work: Work,
    contents: Contents,
    parts: Parts,
    out: Path,
    force: bool,
    stop: StopRequest,
    on_progress: ProgressCallback,
) -> None:
    """Write missing shards, join them, and remove them."""
    digest = parts.write_plan(work.plan, contents.found)
    shards = list(contents.shards())
    missing = parts.missing(shards, digest)
    total = sum(shard.count for shard in shards)
    counter = ProgressCounter(total, total - sum(shard.count for shard in missing), on_progress)
    writer = ShardWriter(parts.folder, contents.layout, contents.make, digest)
    write_shards(writer, missing, contents.workers, stop, counter)
    joined = _joined(contents, parts, shards, digest, out, stop, counter)
    try:
        with explained(out):
            sync(joined)
            refuse_existing(out, force)  # the lock does not prevent other programs from creating the file
            os.replace(joined, out)
            sync(out.parent)
    finally:
        with suppress(OSError):
            joined.unlink(missing_ok=True)
    parts.discard()


def write_shards(
    writer: ShardWriter, missing: Sequence[Shard], workers: int, stop: StopRequest, counter: ProgressCounter
) -> None:
    """Write shards, in worker processes if `workers` is more than 1."""
    workers = min(workers, len(missing))
    pool = open_pool(writer, workers) if workers > 1 else None
    if pool is not None:

        def on_done(shard: Shard) -> None:
            counter.add(shard)
            counter.report()

        write_in_pool(pool, workers, missing, stop, on_done)
    else:
        for shard in missing:
            if stop:
                break
            _write_here(writer, shard, stop, counter)
    if stop:
        # workers may have finished further shards without reporting them
        counter.done = counter.total - sum(shard.count for shard in missing if not writer.is_written(shard))
        raise counter.interrupted(stop)


def _write_here(writer: ShardWriter, shard: Shard, stop: StopRequest, counter: ProgressCounter) -> None:
    """Make and write a shard in this process; a stop request takes effect after any episode."""
    made = []
    for episode in writer.make(shard):
        made.append(episode)
        counter.report(unwritten=len(made))
        if stop and len(made) < shard.count:
            return
    writer.save(shard, made)
    counter.add(shard)


def _joined(
    contents: Contents,
    parts: Parts,
    shards: Sequence[Shard],
    digest: str,
    out: Path,
    stop: StopRequest,
    counter: ProgressCounter,
) -> Path:
    """Copy all shards into one file in the folder of shards; a stop request takes effect between shards."""
    joined = parts.folder / JOINED
    left_out = {shard: read_left_out(parts.path(shard), digest) for shard in shards}
    counts: dict[str, int] = {}
    firsts: dict[Shard, int] = {}
    for shard in shards:
        if len(left_out[shard]) < shard.count:
            firsts[shard] = counts.get(shard.split, 0)
            counts[shard.split] = firsts[shard] + shard.count - len(left_out[shard])
    listed = [each for shard in shards for each in left_out[shard]]
    if listed and not counts:
        raise DamagedSourceError(f"all {len(listed)} episodes are damaged; the first: {listed[0].reason}")
    try:
        with explained(out):
            attrs = {**contents.attrs, **contents.attrs_of(listed)}
            writer = EpisodeWriter(joined, attrs, contents.layout, counts)
        try:
            for shard, first in firsts.items():
                if stop:
                    raise counter.interrupted(stop)
                with EpisodeFile(parts.path(shard), needs_frames=False) as source, explained(out):
                    writer.copy(shard.split, first, source)
        except BaseException:
            with suppress(OSError):
                writer.close()
            raise
        with explained(out):
            writer.close()
    except BaseException:
        with suppress(OSError):
            joined.unlink(missing_ok=True)
        raise
    return joined
