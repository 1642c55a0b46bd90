"""Signals that ask a long job to stop at the next safe point.

Imports little, since a program cannot catch signals before this module is imported.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Whether a stop was requested: truthy once SIGTERM or SIGINT has arrived."""

    def __init__(self) -> None:
        self.signal_name = ""

    def __bool__(self) -> bool:
        return bool(self.signal_name)


class Stopped(KeyboardInterrupt):
    """SIGTERM or SIGINT arrived outside `stop_requests`, or SIGINT for the second time."""


class _State:
    """State of the signal handler.

    Attributes:
        request: shared by all open `stop_requests` contexts and, after `raise_signals`, by the whole program.
        num_open: open `stop_requests` contexts in the main thread.
        of_program: whether `raise_signals` was called.
        has_interrupt: whether a SIGINT has arrived.
    """

    def __init__(self, of_program: bool = False) -> None:
        self.request, self.num_open, self.of_program, self.has_interrupt = StopRequest(), 0, of_program, False


_state = _State()


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Turn SIGTERM and SIGINT into a request instead of ending the program; a second SIGINT interrupts at once.

    Nested contexts share one request, so that the outer one sees a signal that arrived inside the inner one. After
    `raise_signals`, a request that was not obeyed is passed on to the next context. Signals cannot be caught outside
    the main thread: there, the request is the one of the main thread's context, or stays false without one.
    """
    global _state
    if threading.current_thread() is not threading.main_thread():
        yield _state.request if _state.num_open or _state.of_program else StopRequest()
        return
    if _state.num_open or _state.of_program:
        _state.num_open += 1
        try:
            yield _state.request
        finally:
            _state.num_open -= 1
        return
    _state = _State()
    _state.num_open = 1
    request, previous = _state.request, _handle(_on_signal)
    try:
        yield request
        if request:
            import logging

            logging.getLogger("slotssm").warning(f"{request.signal_name} arrived after the work was done")
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        _state = _State()


def raise_signals() -> StopRequest:
    """Make SIGTERM and SIGINT raise `Stopped` outside `stop_requests`; to be called first in a program.

    Returns:
        The request that all `stop_requests` contexts of the program share.
    """
    global _state
    _state = _State(of_program=True)
    if threading.current_thread() is threading.main_thread():
        _handle(_on_signal)
    return _state.request


def ignore_signals() -> None:
    """Ignore SIGTERM and SIGINT from now on; to be called last in a program, when its result is final."""
    _state.of_program = False
    if threading.current_thread() is threading.main_thread():
        # not SIG_IGN, which child processes would inherit
        _handle(lambda number, frame: None)


def _on_signal(number: int, frame: FrameType | None) -> None:
    again = _state.has_interrupt and number == signal.SIGINT
    _state.has_interrupt |= number == signal.SIGINT
    if not _state.request:
        _state.request.signal_name = signal.Signals(number).name
    if again or not _state.num_open:
        raise Stopped(signal.Signals(number).name)


def _handle(handler: Any) -> dict[signal.Signals, Any]:
    """Set the handler of both signals; returns the previous handlers."""
    return {number: signal.signal(number, handler) for number in SIGNALS}


def _forget_in_child() -> None:
    """Restore the default handlers in a forked process, which handles signals for itself."""
    global _state
    _state = _State()
    defaults: dict[signal.Signals, Any] = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    for number, handler in defaults.items():
        if signal.getsignal(number) is _on_signal:
            signal.signal(number, handler)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
