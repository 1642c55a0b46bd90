"""The epoch of a data set, of which its worker processes must hear while they live on."""

import logging
import mmap
import os
from multiprocessing import context
from multiprocessing.heap import BufferWrapper
from typing import Any

import numpy as np


class SharedEpoch:
    """A number that worker processes read after this process has changed it.

    Forked processes see it through an anonymous shared mapping, which needs no file system. Spawned ones see it
    through shared memory that is made when the first of them is started. A copy (`copy`, `pickle`) is a number of its
    own with the same value, and a worker that sets the number speaks only for itself and its own workers.
    """

    def __init__(self, value: int = 0) -> None:
        self._own, self._owner = _number(value), os.getpid()
        # what the process that spawned this one writes to
        self._from_parent: BufferWrapper | None = None
        # what processes read that were spawned by this one, and the process that spawned them
        self._for_children: BufferWrapper | None = None
        self._spawner = -1

    def get(self) -> int:
        """The current value."""
        return int(self._own[0] if self._from_parent is None else _view(self._from_parent)[0])

    def set(self, value: int) -> None:
        """Change the value, here and in the workers of this process."""
        if self._owner != os.getpid():
            # a forked process leaves the number of its parent alone
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
        """Shared memory for a process that is being spawned; None where this machine has none."""
        if self._from_parent is not None:
            return self._from_parent
        if self._spawner != os.getpid():
            try:
                self._for_children, self._spawner = BufferWrapper(8), os.getpid()
                _view(self._for_children)[0] = self.get()
            except OSError as error:
                logging.getLogger("slotssm").warning(
                    f"no shared memory ({error.strerror or error}): worker processes that live on keep the epoch that "
                    "they were started with; create the DataLoader anew in each epoch"
                )
                return None
        return self._for_children


def _number(value: int) -> np.ndarray:
    number = np.frombuffer(mmap.mmap(-1, 8), np.int64)
    number[0] = value
    return number


def _view(memory: BufferWrapper) -> np.ndarray:
    return np.frombuffer(memory.create_memoryview(), np.int64)
