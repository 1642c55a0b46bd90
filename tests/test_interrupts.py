"""Signals ask for a stop; no request is lost between nested collectors, and none reaches child processes."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from contextlib import suppress

import pytest

from slotssm import interrupts
from slotssm.interrupts import Stopped, ignore_signals, raise_signals, stop_requests


@pytest.fixture(autouse=True)
def _handlers():
    """Every test leaves the handlers as it found them."""
    before = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
    interrupts._state = interrupts._State()


@pytest.fixture
def program():
    """Signals as in the command line."""
    return raise_signals()


# --- collectors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", interrupts.SIGNALS)
def test_a_signal_becomes_a_request(number):
    before = signal.getsignal(number)
    with stop_requests() as stop:
        assert not stop
        signal.raise_signal(number)
        assert stop
        assert stop.signal_name == number.name
    assert signal.getsignal(number) is before


def test_a_request_of_the_inner_collector_is_the_outer_s():
    with stop_requests() as outer:
        with stop_requests() as inner:
            signal.raise_signal(signal.SIGTERM)
        assert inner.signal_name == outer.signal_name == "SIGTERM"
        with stop_requests() as later:
            assert later


def test_the_first_signal_gives_the_name():
    with stop_requests() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert stop.signal_name == "SIGTERM"


def test_a_second_interrupt_interrupts_at_once():
    with stop_requests(), stop_requests():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with stop_requests() as stop:
        assert not stop
        signal.raise_signal(signal.SIGINT)  # the first of this collector
        assert stop


def test_a_request_after_the_last_safe_point_is_told(caplog):
    with stop_requests():
        signal.raise_signal(signal.SIGTERM)
    assert [record.getMessage() for record in caplog.records] == ["SIGTERM arrived after the work was done"]
    with stop_requests() as stop:
        assert not stop
    # whoever raises has seen it, or tells something worse
    with suppress(RuntimeError), stop_requests():
        signal.raise_signal(signal.SIGTERM)
        raise RuntimeError
    assert len(caplog.records) == 1


def in_thread(work) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_another_thread_sees_the_main_one_s_request():
    seen = []

    def look() -> None:
        with stop_requests() as stop:
            seen.append(bool(stop))

    in_thread(look)
    with stop_requests():
        in_thread(look)
        signal.raise_signal(signal.SIGTERM)
        in_thread(look)
    in_thread(look)
    assert seen == [False, False, True, False]


# --- programs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", interrupts.SIGNALS)
def test_a_program_is_stopped_where_nothing_collects(program, number):
    with pytest.raises(Stopped, match=number.name):
        signal.raise_signal(number)
    assert program.signal_name == number.name


def test_a_program_s_unobeyed_request_waits_for_the_next_collector(program):
    with stop_requests() as first:
        signal.raise_signal(signal.SIGTERM)
    with stop_requests() as second:
        assert first is second is program
        assert second
    with pytest.raises(Stopped):
        signal.raise_signal(signal.SIGTERM)


def test_a_program_that_ends_is_not_disturbed(program):
    ignore_signals()
    for number in interrupts.SIGNALS:
        signal.raise_signal(number)
    assert not program


# --- children ---------------------------------------------------------------------------------------------


def output(code: str) -> str:
    """What a fresh interpreter of one thread prints."""
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("collects", ["stop_requests()", "contextlib.nullcontext(raise_signals())"])
def test_children_by_fork_die_of_signals(collects):
    code = f"""
        import contextlib, os, signal, time
        from slotssm.interrupts import raise_signals, stop_requests
        with {collects}:
            for number in (signal.SIGTERM, signal.SIGINT):
                child = os.fork()
                if child == 0:
                    try:
                        signal.raise_signal(number)
                        time.sleep(1)
                    except KeyboardInterrupt as error:
                        os._exit(7 if type(error) is KeyboardInterrupt else 8)
                    os._exit(9)
                print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert output(code).split() == ["-15", "7"]


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_worker_processes_can_be_terminated(method, tmp_path):
    if sys.platform == "win32" and method != "spawn":
        pytest.skip("no fork")
    code = f"""
        import multiprocessing, sys, time
        from slotssm.interrupts import raise_signals, stop_requests
        if __name__ == "__main__":
            raise_signals()
            with stop_requests():
                context = multiprocessing.get_context("{method}")
                process = context.Process(target=time.sleep, args=(60,))
                process.start()
                time.sleep(0.5)
                process.terminate()
                process.join(30)
                print(process.exitcode)
    """
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(code))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "-15\n"
