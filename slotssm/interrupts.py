"""Signals that ask a long job to stop at the next safe point.

Imports little, since a program can catch no signal before it has imported this.
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
    """Tells whether somebody asked to stop; truthy once SIGTERM or SIGINT has arrived."""

    def __init__(self) -> None:
        self.signal_name = ""

    def __bool__(self) -> bool:
        return bool(self.signal_name)


class Stopped(KeyboardInterrupt):
    """SIGTERM or SIGINT arrived where nothing collects requests, or SIGINT for the second time."""


class _State:
    """What the signal handler knows.

    Attributes:
        request: shared by all collectors that are open, and with `raise_signals` by all of the program.
        num_open: collectors in the main thread.
        of_program: whether `raise_signals` was called.
        has_interrupt: whether a SIGINT is among what was collected.
    """

    def __init__(self, of_program: bool = False) -> None:
        self.request, self.num_open, self.of_program, self.has_interrupt = StopRequest(), 0, of_program, False


_state = _State()


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Collect SIGTERM and SIGINT instead of dying; a second SIGINT interrupts at once.

    A collector inside another shares its request, so that whoever is outside learns of a signal that arrived
    inside. Under `raise_signals` a request that nobody has obeyed is there for the next collector too. Outside the
    main thread signals cannot be caught: the request is the main thread's where that collects, else it stays false.
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

            logging.getLogger("slotssm").warning(f"{request.signal_name} arrived when the work was done")
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        _state = _State()


def raise_signals() -> StopRequest:
    """For a program, as its first act: SIGTERM and SIGINT raise `Stopped` wherever `stop_requests` collects nothing.

    Returns:
        The request that all collectors of the program share.
    """
    global _state
    _state = _State(of_program=True)
    if threading.current_thread() is threading.main_thread():
        _handle(_on_signal)
    return _state.request


def ignore_signals() -> None:
    """For a program, as its last act: the outcome stands, and SIGTERM and SIGINT no longer change it."""
    _state.of_program = False
    if threading.current_thread() is threading.main_thread():
        # not SIG_IGN, which programs that are started later would inherit
        _handle(lambda number, frame: None)


def _on_signal(number: int, frame: FrameType | None) -> None:
    again = _state.has_interrupt and number == signal.SIGINT
    _state.has_interrupt |= number == signal.SIGINT
    if not _state.request:
        _state.request.signal_name = signal.Signals(number).name
    if again or not _state.num_open:
        raise Stopped(signal.Signals(number).name)


def _handle(handler: Any) -> dict[signal.Signals, Any]:
    """Set the handler of both signals; returns what handled them before."""
    return {number: signal.signal(number, handler) for number in SIGNALS}


def _forget_in_child() -> None:
    """A process made by fork is ended by these signals as any other, unless it collects them itself."""
    global _state
    _state = _State()
    defaults: dict[signal.Signals, Any] = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    for number, handler in defaults.items():
        if signal.getsignal(number) is _on_signal:
            signal.signal(number, handler)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
