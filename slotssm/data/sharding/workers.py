"""Worker processes that write shards."""

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import current_process, get_context, parent_process

from slotssm.data.sharding.parts import ShardWriter
from slotssm.data.sharding.work import Shard
from slotssm.errors import SlotSSMError
from slotssm.interrupts import StopRequest

MOST_ON_WINDOWS = 61
"""Largest number of workers on Windows, a limit of `ProcessPoolExecutor`."""
POLL_S = 0.2
GRACE_S = 0.2
"""Time to wait for a signal after a worker has died, since one to the process group may end a worker first."""

_GUARD = "the guard (if __name__ == '__main__':) that worker processes need"

_writer: ShardWriter | None = None
"""The writer of a worker process."""


def refuse_unguarded() -> None:
    """Refuse to write in a worker process in which the calling script runs again for lack of its guard.

    Such a script may wait until the file is free, which its parent holds while it waits for this worker.

    Raises:
        SlotSSMError: this is such a process.
    """
    if getattr(current_process(), "_inheriting", False):
        raise SlotSSMError(f"the calling script lacks {_GUARD}")


def open_pool(writer: ShardWriter, workers: int) -> ProcessPoolExecutor | None:
    """A process pool, whose processes start when they are needed; None, with a warning, if that is not possible."""
    if sys.platform == "win32":
        workers = min(workers, MOST_ON_WINDOWS)
    try:
        # spawn: the parent may have torch threads, which do not survive a fork
        return ProcessPoolExecutor(workers, get_context("spawn"), initializer=_prepare, initargs=(writer,))
    except (OSError, NotImplementedError, ImportError) as error:
        # no semaphores: some containers do not have /dev/shm
        logging.getLogger("slotssm").warning("no worker processes here (%s); continuing with one process", error)
        return None


def write_in_pool(
    pool: ProcessPoolExecutor,
    workers: int,
    shards: Sequence[Shard],
    stop: StopRequest,
    on_done: Callable[[Shard], None],
) -> None:
    """Write shards in a process pool, and shut it down; on a stop request, shards in progress are finished.

    Args:
        pool: the pool.
        workers: number of its processes.
        shards: the shards to write.
        stop: polled; tells the caller that not all shards were written.
        on_done: called after every shard.

    Raises:
        SlotSSMError: a process died.
    """
    running: dict[Future[None], Shard] = {}
    queue, num_done = iter(shards), 0
    try:
        while not stop:
            for shard in islice(queue, 2 * workers - len(running)):
                with _sigint_blocked():
                    running[pool.submit(_write, shard)] = shard
            if not running:
                return
            for future in wait(running, timeout=POLL_S, return_when=FIRST_COMPLETED).done:
                shard = running.pop(future)
                future.result()
                num_done += 1
                on_done(shard)
    except BrokenProcessPool:
        _wait_for(stop)
        if not stop:
            raise SlotSSMError(_death(num_done)) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _wait_for(stop: StopRequest) -> None:
    """Wait for a signal to this process, since the same signal to the process group may have ended the workers."""
    deadline = time.monotonic() + GRACE_S
    while not stop and time.monotonic() < deadline:
        time.sleep(GRACE_S / 20)


def _death(num_done: int) -> str:
    if num_done:
        return (
            "a worker process died, possibly because memory ran out; `resume` continues, and `workers` 1 needs the "
            "least memory"
        )
    return (
        "a worker process died before any shard was written: memory ran out, or the calling script lacks "
        f"{_GUARD}; `resume` continues, and `workers` 1 starts no worker process"
    )


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Block SIGINT while starting processes, so that Ctrl-C is handled by the parent only."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare(writer: ShardWriter) -> None:
    """Ignore Ctrl-C, and exit when the parent has ended, even if it was killed."""
    global _writer
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    _writer = writer


def _write(shard: Shard) -> None:
    assert _writer is not None
    _writer.write(shard)
