"""Processes that write shards."""

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
from multiprocessing import get_context, parent_process

from slotssm.data.sharding.parts import ShardWriter
from slotssm.data.sharding.work import Shard
from slotssm.errors import SlotSSMError
from slotssm.interrupts import StopRequest

MOST_ON_WINDOWS = 61
"""Windows waits for no more processes at once; `ProcessPoolExecutor` refuses them."""
POLL_S = 0.2
GRACE_S = 0.2
"""A signal to the process group may end a worker before it is handled here."""

_writer: ShardWriter | None = None
"""Of a worker process."""


def open_pool(writer: ShardWriter, workers: int) -> ProcessPoolExecutor | None:
    """A pool of processes, which start when they are needed; None, with a note, where there can be none."""
    if sys.platform == "win32":
        workers = min(workers, MOST_ON_WINDOWS)
    try:
        # spawn: the parent may hold torch's threads, which do not survive a fork
        return ProcessPoolExecutor(workers, get_context("spawn"), initializer=_prepare, initargs=(writer,))
    except (OSError, NotImplementedError, ImportError) as error:
        # no semaphores: some containers have no /dev/shm
        logging.getLogger("slotssm").warning("no worker processes here (%s); continuing with one process", error)
        return None


def write_in_pool(
    pool: ProcessPoolExecutor,
    workers: int,
    shards: Sequence[Shard],
    stop: StopRequest,
    on_done: Callable[[Shard], None],
) -> None:
    """Write shards in the processes of a pool, which is shut down; on a stop request those at work are finished.

    Args:
        pool: the pool.
        workers: its number of processes.
        shards: what to write.
        stop: looked at all the time; the caller sees from it that not all was written.
        on_done: told of every shard that was written.

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
    """Schedulers signal the whole process group, and the workers died of it: give our own signal time to arrive."""
    deadline = time.monotonic() + GRACE_S
    while not stop and time.monotonic() < deadline:
        time.sleep(GRACE_S / 20)


def _death(num_done: int) -> str:
    if num_done:
        return (
            "a worker process died, as happens when memory runs out; `resume` continues, and 1 for `workers` needs "
            "least memory"
        )
    return (
        "a worker process died before any had written a shard: memory ran out, or the script that called has no "
        "guard (if __name__ == '__main__':), which processes need; `resume` continues, and 1 for `workers` needs no "
        "further process"
    )


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Processes started here leave Ctrl-C to the parent from their first moment on."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare(writer: ShardWriter) -> None:
    """Leave Ctrl-C to the parent, and end when the parent is gone, even if it was killed."""
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
