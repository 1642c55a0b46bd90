"""The console script: signals, error messages and exit codes.

Heavy imports happen after signal handlers are installed.
"""

import contextlib
import os
import sys
import traceback
from typing import Any

from slotssm.errors import InputError, SlotSSMError
from slotssm.interrupts import StopRequest, ignore_signals, raise_signals

DEBUG_VARIABLE = "SLOTSSM_DEBUG"
INTERRUPTED = 3


def main() -> None:
    """Run the command line; exit codes: 0 success, 1 failure, 2 wrong usage or input, 3 interrupted."""
    stop = raise_signals()
    try:
        from slotssm_cli.terminal.streams import tolerant_streams

        with tolerant_streams():
            code = _run(stop)
    except KeyboardInterrupt:
        # a signal before the handlers further inside are active
        ignore_signals()
        code = _fail(f"interrupted by {stop.signal_name}", INTERRUPTED, None)
    sys.exit(code)


def _run(stop: StopRequest) -> int:
    command: list[Any] = [None]
    try:
        from slotssm_cli.commands import run
        from slotssm_cli.terminal.wording import Notes

        with Notes(_is_verbose()) as notes:

            def on_command(running: Any) -> None:
                command[0] = notes.command = running

            code = run(on_command)
        ignore_signals()
        return code
    except SlotSSMError as error:
        ignore_signals()
        if error.is_told:
            return error.exit_code
        if _is_verbose():
            traceback.print_exc()
        return _fail(str(error), error.exit_code, command[0])
    except KeyboardInterrupt:
        ignore_signals()
        return _fail(f"interrupted by {stop.signal_name or 'the terminal'}", INTERRUPTED, None)
    except ModuleNotFoundError as error:
        ignore_signals()
        remedy = "pip install 'slotssm[full]' brings what the command line needs"
        package = (error.name or "").partition(".")[0]
        return _fail(f"the package {package} is missing; {remedy}", InputError.exit_code, None)
    except Exception as error:
        ignore_signals()
        if stop:  # child processes receive the signal too, and their exit may surface as an error here
            return _fail(f"interrupted by {stop.signal_name}", INTERRUPTED, None)
        hint = "" if _is_verbose() else " (--verbose prints the traceback)"
        if _is_verbose():
            traceback.print_exc()
        return _fail(f"{type(error).__name__}: {error}{hint}", 1, None)


def _is_verbose() -> bool:
    """Whether tracebacks and all notes are wanted, also before the options are parsed."""
    return "--verbose" in sys.argv or bool(os.environ.get(DEBUG_VARIABLE))


def _fail(message: str, code: int, command: Any) -> int:
    from slotssm_cli.terminal.console import note, result_json
    from slotssm_cli.terminal.wording import spell

    line = " ".join(spell(message, command).split())
    note(f"slotssm: {line}")
    if "--json" in sys.argv:
        # the first error decides the exit code
        with contextlib.suppress(SlotSSMError):
            result_json({"error": line, "exit_code": code})
    return code


if __name__ == "__main__":
    main()
