"""Write a data set: checks, lock, shards, joined file.

Writing shards and joining them are apart, since which shards there are depends on the work alone: a machine of several
could write a share of them, and the last one join.
"""

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from slotssm.data.episodes import EpisodeFile, EpisodeWriter
from slotssm.data.sharding.parts import Parts, ShardWriter, as_json, hold, parts_folder
from slotssm.data.sharding.work import Contents, ProgressCallback, Shard, Work
from slotssm.data.sharding.workers import open_pool, write_in_pool
from slotssm.errors import InputError, Interrupted
from slotssm.files import explained, make_folder, refuse_existing, sync
from slotssm.interrupts import StopRequest, stop_requests

JOINED = "joined.partial"
"""The file while it is joined: among the parts, so that what a kill leaves of it goes with them."""


class ProgressCounter:
    """Counts episodes, and says so."""

    def __init__(self, total: int, done: int, on_progress: ProgressCallback) -> None:
        self.total, self.done, self._on_progress = total, done, on_progress
        self.report()

    def report(self, unwritten: int = 0) -> None:
        """Tell how many there are, with those that are made but not yet written."""
        self._on_progress(self.done + unwritten, self.total)

    def add(self, shard: Shard) -> None:
        """A shard is written."""
        self.done += shard.count

    def interrupted(self, stop: StopRequest) -> Interrupted:
        """The exception that says what is kept."""
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
        out: the file; while it grows, its parts lie in the folder `<out>.parts`.
        resume: continue what was interrupted; an output that is complete and from the same plan is left as it is.
        force: overwrite an existing file, and drop what an interrupted run left.
        on_progress: told of every shard that was written, and of every episode if there is one process.

    Returns:
        Whether anything had to be written: False if the output was complete already.

    Raises:
        InputError: the output exists, is unfinished from before, or cannot be written.
        BusyError: another process is writing it.
        DamagedSourceError: as raised by the functions of `work`; nothing is left.
        Interrupted: SIGINT or SIGTERM arrived; `resume` continues.
    """
    refuse_existing(out, force=True)  # refuses a path that cannot even be looked for
    if out.is_dir():
        raise InputError(f"{out} is a folder; choose a file for `out`")
    if _is_finished(work, out, resume, force) and not parts_folder(out).exists():
        return False
    make_folder(out.parent)
    with ExitStack() as stack:
        parts = stack.enter_context(hold(out))
        # decided again: until now another process may have finished the file, or left its parts
        if _is_finished(work, out, resume, force):
            if parts.belongs_to(work):
                parts.discard()
            return False
        found = parts.prepare(work, resume, force)
        # may take long, and can be interrupted at once, since nothing is written yet
        contents = work.prepare(found)
        # from here on until the folder is given back, a signal waits for a moment at which nothing is lost
        with stop_requests() as stop, stack.pop_all():
            _write(work, contents, parts, out, force, stop, on_progress)
    return True


def _is_finished(work: Work, out: Path, resume: bool, force: bool) -> bool:
    """Whether a resumed work is done already; an output that must not be overwritten is refused."""
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
    """Why a file is not what the work would make; None if it is."""
    try:
        with EpisodeFile(out, needs_frames=False) as episodes:
            counts = {split: episodes.num_episodes(split) for split in episodes.splits}
            try:
                plan = work.plan_of(episodes)
            except InputError:
                plan = None
    except InputError:
        return "is not an episode file that this version reads"
    if plan is None or as_json(plan) != as_json(work.plan):
        return "was made from other settings or another source"
    return None if counts == dict(work.num_episodes) else f"holds other numbers of episodes ({_listed(counts)})"


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
    """Write what is missing, join, and clear the parts."""
    digest = parts.write_plan(work.plan, contents.found)
    shards = list(work.shards(contents.shard_episodes))
    missing = parts.missing(shards, digest)
    total = sum(work.num_episodes.values())
    counter = ProgressCounter(total, total - sum(shard.count for shard in missing), on_progress)
    writer = ShardWriter(parts.folder, contents.layout, contents.make, digest)
    write_shards(writer, missing, contents.workers, stop, counter)
    joined = _joined(work, contents, parts, shards, out, stop, counter)
    try:
        with explained(out):
            sync(joined)
            refuse_existing(out, force)  # nobody with the lock makes it, but a copy may have arrived
            os.replace(joined, out)
            sync(out.parent)
    finally:
        with suppress(OSError):
            joined.unlink(missing_ok=True)
    parts.discard()


def write_shards(
    writer: ShardWriter, missing: Sequence[Shard], workers: int, stop: StopRequest, counter: ProgressCounter
) -> None:
    """Write shards, in processes if there are to be several."""
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
        # workers finish what they are at, or are stopped themselves before they could tell
        counter.done = counter.total - sum(shard.count for shard in missing if not writer.path(shard).exists())
        raise counter.interrupted(stop)


def _write_here(writer: ShardWriter, shard: Shard, stop: StopRequest, counter: ProgressCounter) -> None:
    """Make and write a shard in this process, which may be stopped after any episode."""
    episodes = []
    for episode in writer.make(shard):
        episodes.append(episode)
        counter.report(unwritten=len(episodes))
        if stop and len(episodes) < shard.count:
            return
    writer.save(shard, episodes)
    counter.add(shard)


def _joined(
    work: Work,
    contents: Contents,
    parts: Parts,
    shards: Sequence[Shard],
    out: Path,
    stop: StopRequest,
    counter: ProgressCounter,
) -> Path:
    """Copy all shards into one file among the parts; a stop request between them is obeyed."""
    joined = parts.folder / JOINED
    try:
        with explained(out):
            writer = EpisodeWriter(joined, contents.attrs, contents.layout, work.num_episodes)
        try:
            for shard in shards:
                if stop:
                    raise counter.interrupted(stop)
                with EpisodeFile(parts.path(shard), needs_frames=False) as source, explained(out):
                    writer.copy(shard.split, shard.first, source)
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
