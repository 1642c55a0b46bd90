"""Training batches as a pure function of the step, prepared in the background."""

import logging
import math
import os
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor

from slotssm.data.clips import Phase, episode_order
from slotssm.data.reader import CACHE_BYTES, Reader
from slotssm.errors import InputError

Batch = dict[str, Tensor]
"""Field name to tensor [B, ...]."""

PREFETCH = 4
"""Number of batches that are prefetched ..."""
PREFETCH_BYTES = 256 << 20
"""... if they fit into this much memory; at least one is prefetched."""
MAX_WORKERS = 4
"""Largest number of threads that `auto` uses."""


class Loader:
    """Training batches of one split.

    Every epoch is a new permutation of the episodes; the step alone determines epoch, episodes and clips. Processes
    that train together divide the rows of a batch: the parts of all ranks, concatenated, are the batch of a single
    process.

    A loader can be pickled, and used after a fork. `close` it, or use it as a context manager, to stop its threads
    immediately; they also stop when it is garbage-collected.

    Args:
        path: episode file.
        split: which split.
        fields: datasets to read. Fields with a time axis are limited to the frames of the clip, others are read whole.
            Types are those of the file, except that uint16 becomes int32 and uint32 becomes int64.
        phases: size and clips of the batches, one phase after another; the last phase goes on for ever.
        seed: seed of permutations and clips.
        rank: index of this process, from 0.
        num_processes: number of processes that divide every batch.
        num_episodes: use only this many episodes of the split, from the first; None uses all.
        workers: prefetching threads; 0 reads on demand. `auto` leaves at least half of the cores to training.
        prefetch: number of batches to prefetch, if they fit into `PREFETCH_BYTES`.
        pin: whether to use page-locked memory, for asynchronous copies to a GPU.
        cache_bytes: size of the cache of decoded fields, which stay in memory once they have been read.

    Attributes:
        num_episodes: episodes per epoch.
        num_frames: frames of an episode in the file.
        workers: number of prefetching threads.
        depth: number of prefetched batches.

    Raises:
        InputError: the file, the split or a field is missing or wrong, there are too few episodes or frames, or the
            batch cannot be divided equally.
    """

    def __init__(
        self,
        path: str | Path,
        split: str,
        fields: Sequence[str],
        *,
        phases: Sequence[Phase],
        seed: int,
        rank: int = 0,
        num_processes: int = 1,
        num_episodes: int | None = None,
        workers: int | Literal["auto"] = "auto",
        prefetch: int = PREFETCH,
        pin: bool = False,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self._reader = Reader(path, split, fields, cache_bytes=cache_bytes)
        self.num_frames = self._reader.num_frames
        self.num_episodes = _count_episodes(self._reader.num_episodes, num_episodes, f"{path}: split {split!r}")
        self._phases = _started(phases)
        for phase in self._phases:
            phase.clips.check(self.num_frames, path)
            if phase.batch_size < 1 or phase.batch_size % num_processes:
                raise InputError(
                    f"a batch of {phase.batch_size} episodes cannot be divided equally among {num_processes} processes"
                )
        if not 0 <= rank < num_processes:
            raise InputError(f"rank {rank} is not one of {num_processes} processes")
        if workers != "auto" and workers < 0:
            raise InputError(f"`workers` is {workers}, but must be at least 0")
        self._seed, self._rank, self._num_processes = seed, rank, num_processes
        self.workers = _choose_workers(num_processes) if workers == "auto" else workers
        self._dtypes = {
            name: torch.from_numpy(np.empty(0, field.dtype)).dtype for name, field in self._reader.fields.items()
        }
        largest = max(self._batch_bytes(phase) for phase in self._phases)
        self.depth = max(1, min(prefetch, PREFETCH_BYTES // max(1, largest)))
        self._pin = pin and torch.cuda.is_available()
        if pin and not self._pin:
            logging.getLogger("slotssm").warning("batches are not page-locked: torch does not find a CUDA GPU")
        self._iterators: weakref.WeakSet[_Prefetcher] = weakref.WeakSet()

    def batch(self, step: int) -> Batch:
        """Read the batch of an optimiser step, counted from 0."""
        batch = self._empty(step)
        self._fill(batch, step, range(self._num_rows(self._phase(step))))
        return batch

    def batches(self, first_step: int = 0) -> Iterator[tuple[int, Batch]]:
        """Endless iterator over steps and their batches from a step on: the same as `batch`, but prefetched.

        Errors while reading a batch are raised when that batch is requested, and end the iteration.
        """
        if not self.workers:
            return ((step, self.batch(step)) for step in _count_from(first_step))
        ahead = _Prefetcher(self, first_step)
        self._iterators.add(ahead)
        return ahead

    def picks(self, step: int) -> list[tuple[int, np.ndarray]]:
        """Index of the episode and of its frames for every row of a batch."""
        return [self._pick(step, row) for row in range(self._num_rows(self._phase(step)))]

    def _pick(self, step: int, row: int) -> tuple[int, np.ndarray]:
        phase = self._phase(step)
        draw = phase.first_draw + (step - phase.first_step) * phase.batch_size
        epoch, position = divmod(draw + self._rank * self._num_rows(phase) + row, self.num_episodes)
        episode = int(episode_order(self._seed, epoch, self.num_episodes)[position])
        return episode, phase.clips.frames(self.num_frames, self._seed, epoch, position)

    def _phase(self, step: int) -> "_StartedPhase":
        return next(phase for phase in reversed(self._phases) if step >= phase.first_step)

    def _num_rows(self, phase: Phase) -> int:
        """Episodes that this process has of every batch."""
        return phase.batch_size // self._num_processes

    def _shapes(self, phase: Phase) -> dict[str, tuple[int, ...]]:
        clip_len = phase.clips.length(self.num_frames)
        return {
            name: (self._num_rows(phase), *field.part_shape(clip_len)) for name, field in self._reader.fields.items()
        }

    def _batch_bytes(self, phase: Phase) -> int:
        return sum(math.prod(shape) * self._dtypes[name].itemsize for name, shape in self._shapes(phase).items())

    def _empty(self, step: int) -> Batch:
        """Allocate a batch."""
        return {
            name: torch.empty(shape, dtype=self._dtypes[name], pin_memory=self._pin)
            for name, shape in self._shapes(self._phase(step)).items()
        }

    def _fill(self, batch: Batch, step: int, rows: range) -> None:
        """Read some rows of a batch; thread-safe."""
        for row in rows:
            episode, frames = self._pick(step, row)
            for name, tensor in batch.items():
                self._reader.read(name, episode, frames, tensor[row].numpy())

    def close(self) -> None:
        """Stop all threads, close the file and free memory; the loader cannot be used afterwards."""
        for ahead in list(self._iterators):
            ahead.close()
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_iterators": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._iterators = weakref.WeakSet()


@dataclass(frozen=True)
class _StartedPhase(Phase):
    """A phase with its first step, and the number of episodes that were drawn before it."""

    first_step: int = 0
    first_draw: int = 0


def _started(phases: Sequence[Phase]) -> list[_StartedPhase]:
    started: list[_StartedPhase] = []
    step = draw = 0
    for phase in phases:
        started.append(_StartedPhase(phase.batch_size, phase.clips, phase.num_steps, step, draw))
        if phase.num_steps is None:
            break
        step, draw = step + phase.num_steps, draw + phase.num_steps * phase.batch_size
    return started


class _Prefetcher(Iterator[tuple[int, Batch]]):
    """Iterator over the batches from a step on, of which `loader.depth` are prefetched by threads.

    After a fork, the child process continues at the same step with its own threads.
    """

    def __init__(self, loader: Loader, first_step: int) -> None:
        self._loader, self._step = loader, first_step
        self._pending: deque[tuple[Batch, list[Future[None]]]] = deque()
        self._pool: ThreadPoolExecutor | None = None
        self._stop: weakref.finalize | None = None
        self._process = -1
        self._closed = False

    def __next__(self) -> tuple[int, Batch]:
        if self._closed:
            raise StopIteration
        try:
            if self._process != os.getpid():
                self._start()
            batch, futures = self._pending[0]
            for future in futures:
                future.result()
            # at most `depth` batches are held here at any time
            self._pending.popleft()
            step, self._step = self._step, self._step + 1
            self._submit(step + self._loader.depth)
        except BaseException:
            # including Ctrl-C: the threads finish their current rows
            self.close()
            raise
        return step, batch

    def _start(self) -> None:
        if self._stop is not None:
            self._stop.detach()
        self._process = os.getpid()
        # open the file here, not in several threads at once
        self._loader._reader.open()
        self._pool = ThreadPoolExecutor(self._loader.workers, thread_name_prefix="slotssm-loader")
        # for iterators that are not closed: remaining threads must not prevent the interpreter from exiting
        self._stop = weakref.finalize(self, self._pool.shutdown, wait=False, cancel_futures=True)
        self._pending.clear()
        for step in range(self._step, self._step + self._loader.depth):
            self._submit(step)

    def _submit(self, step: int) -> None:
        assert self._pool is not None
        loader, batch = self._loader, self._loader._empty(step)
        num_rows = loader._num_rows(loader._phase(step))
        rows_per_task = max(1, math.ceil(num_rows / (4 * loader.workers)))
        parts = [range(row, min(row + rows_per_task, num_rows)) for row in range(0, num_rows, rows_per_task)]
        self._pending.append((batch, [self._pool.submit(loader._fill, batch, step, rows) for rows in parts]))

    def close(self) -> None:
        """Stop the threads and wait for them."""
        self._closed = True
        self._pending.clear()
        if self._stop is not None:
            self._stop.detach()
        if self._pool is not None and self._process == os.getpid():
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._pool = None


def _count_from(first: int) -> Iterator[int]:
    step = first
    while True:
        yield step
        step += 1


def _count_episodes(stored: int, wanted: int | None, source: str) -> int:
    if stored == 0:
        raise InputError(f"{source} has no episodes")
    if wanted is not None and not 1 <= wanted <= stored:
        raise InputError(f"{source} has {stored} episodes, but `num_episodes` is {wanted}")
    return stored if wanted is None else wanted


def _choose_workers(num_processes: int) -> int:
    """One thread for every two cores of this process, at least 1 and at most `MAX_WORKERS`.

    The processes of a machine share its cores; torchrun says how many of all there are on each.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    there = os.environ.get("LOCAL_WORLD_SIZE", "")
    sharing = min(num_processes, int(there)) if there.isdecimal() and int(there) else num_processes
    return max(1, min(MAX_WORKERS, cores // (2 * sharing)))
