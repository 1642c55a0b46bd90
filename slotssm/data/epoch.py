"""The epoch of a data set, shared with running worker processes."""

import logging
import mmap
import os
from multiprocessing import context
from multiprocessing.heap import BufferWrapper
from typing import Any

import numpy as np


class SharedEpoch:
    """An integer whose changes in this process are visible in its worker processes.

    Forked processes share it through an anonymous mapping, which needs no file system. Spawned processes share it
    through shared memory, which is allocated when the first of them is started. A copy (`copy`, `pickle`) is separate
    and has the same value, and a worker that sets the value changes it only for itself and its own workers.
    """

    def __init__(self, value: int = 0) -> None:
        self._own, self._owner = _number(value), os.getpid()
        # written by the process that spawned this one
        self._from_parent: BufferWrapper | None = None
        # read by processes that this one spawned, and the id of the process that spawned them
        self._for_children: BufferWrapper | None = None
        self._spawner = -1

    def get(self) -> int:
        """The current value."""
        return int(self._own[0] if self._from_parent is None else _view(self._from_parent)[0])

    def set(self, value: int) -> None:
        """Change the value, here and in the workers of this process."""
        if self._owner != os.getpid():
            # a forked process does not change the value of its parent
            self._own, self._owner = _number(value), os.getpid()
        self._from_parent = None
        self._own[0] = value
        if self._for_children is not None and self._spawner == os.getpid():
            _view(self._for_children)[0] = value

    def __getstate__(self) -> dict[str, Any]:
        return {
            "value": self.get(),
            "from_parent": self._shared() if context.get_spawning_popen() is not None else None,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["value"])  # type: ignore[misc]
        self._from_parent = state["from_parent"]

    def _shared(self) -> BufferWrapper | None:
        """Shared memory for a process that is being spawned; None if this machine does not support it."""
        if self._from_parent is not None:
            return self._from_parent
        if self._spawner != os.getpid():
            try:
                self._for_children, self._spawner = BufferWrapper(8), os.getpid()
                _view(self._for_children)[0] = self.get()
            except OSError as error:
                logging.getLogger("slotssm").warning(
                    f"no shared memory ({error.strerror or error}): persistent worker processes keep the epoch that "
                    "they were started with; create a new DataLoader for each epoch"
                )
                return None
        return self._for_children


def _number(value: int) -> np.ndarray:
    number = np.frombuffer(mmap.mmap(-1, 8), np.int64)
    number[0] = value
    return number


def _view(memory: BufferWrapper) -> np.ndarray:
    return np.frombuffer(memory.create_memoryview(), np.int64)
