"""The console script: the table of commands, and how errors leave the program."""

import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer
from typer.exceptions import Abort, TyperException

from slotssm.errors import SlotSSMError
from slotssm_cli import demo, evaluate, export, generate, importing, inspect, reproduce, train, visualize
from slotssm_cli.console import note, result, result_json

DEBUG_VARIABLE = "SLOTSSM_DEBUG"
INTERRUPTED = 3

app = typer.Typer(
    name="slotssm",
    help="Slot State Space Models: benchmark videos, training, object-centric scores and pictures of the slots.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(generate.app, name="generate")
_COMMANDS: dict[str, Callable[..., None]] = {
    "train": train.train,
    "eval": evaluate.evaluate,
    "visualize": visualize.visualize,
    "import": importing.import_data,
    "export": export.export,
    "inspect": inspect.inspect,
    "verify": generate.verify,
    "presets": train.presets,
    "reproduce": reproduce.reproduce,
    "demo": demo.demo,
    "doctor": inspect.doctor,
}
for _name, _function in _COMMANDS.items():
    app.command(_name)(_function)


def _print_version(wanted: bool) -> None:
    if wanted:
        from slotssm import __version__

        result(f"slotssm {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; exit codes: 0 done, 1 failed, 2 wrong usage or input, 3 interrupted."""
    try:
        code = app(standalone_mode=False)
    except SlotSSMError as error:
        code = _fail(str(error), error.exit_code)
    except TyperException as error:
        code = _fail(error.format_message(), 2)
    except (KeyboardInterrupt, Abort):
        code = _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # whoever read our output has left; nothing more can be said
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:
        if os.environ.get(DEBUG_VARIABLE):
            raise
        code = _fail(f"{type(error).__name__}: {error} (set {DEBUG_VARIABLE}=1 for the traceback)", 1)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> int:
    line = " ".join(message.split())
    if line:  # a bare `slotssm` has printed its help already
        note(f"slotssm: {line}")
    if "--json" in sys.argv:
        result_json({"error": line, "exit_code": code})
    return code


if __name__ == "__main__":
    main()
