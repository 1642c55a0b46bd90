"""The commands of the command line."""

import functools
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import typer
from typer.exceptions import Abort, TyperException

from slotssm.errors import InputError
from slotssm.interrupts import Stopped
from slotssm_cli import demo, evaluate, predict, report, reproduce, runs, train, visualize
from slotssm_cli.datasets import export, generate, importing, inspect, scenes
from slotssm_cli.terminal.console import result
from slotssm_cli.terminal.help import Application

app = Application(
    name="slotssm",
    help="Slot State Space Models: benchmark videos, training, object-centric scores and pictures of the slots.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(scenes.app, name="generate")
_COMMANDS: dict[str, Callable[..., None]] = {
    "train": train.train,
    "eval": evaluate.evaluate,
    "predict": predict.predict,
    "visualize": visualize.visualize,
    "report": report.report,
    "import": importing.import_data,
    "export": export.export,
    "inspect": inspect.inspect,
    "verify": generate.verify,
    "presets": train.presets,
    "runs": runs.runs,
    "table": runs.table,
    "reproduce": reproduce.reproduce,
    "sweep": reproduce.sweep,
    "status": reproduce.status,
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


def run(on_command: Callable[[Any], None]) -> int:
    """Run the command that `sys.argv` names.

    Args:
        on_command: called with the command once its options are parsed.

    Returns:
        Exit code.

    Raises:
        InputError: unknown command or option, or an invalid value.
        Stopped: a signal arrived.
    """
    root = typer.main.get_command(app)
    for leaf in _leaves(root):
        if leaf.callback is not None:
            leaf.callback = _announced(leaf, leaf.callback, on_command)
    try:
        # the name of the program, for help and shell completion, however it was started
        code = root.main(prog_name="slotssm", standalone_mode=False)
    except TyperException as error:
        raise InputError(error.format_message()) from None
    except _Escaped as escaped:
        raise escaped.error from None
    except Abort:
        raise Stopped from None
    if code == KEYBOARD_INTERRUPT:
        raise Stopped
    return code if isinstance(code, int) else 0


KEYBOARD_INTERRUPT = 130
"""Exit code that typer returns after an interrupt."""


class _Escaped(Exception):
    """Carries an OSError past typer, which would exit silently at any broken pipe."""

    def __init__(self, error: OSError) -> None:
        super().__init__(str(error))
        self.error = error


def _announced(leaf: Any, callback: Callable[..., Any], on_command: Callable[[Any], None]) -> Callable[..., Any]:
    @functools.wraps(callback)
    def announced(*arguments: Any, **options: Any) -> Any:
        on_command(leaf)
        try:
            return callback(*arguments, **options)
        except OSError as error:
            raise _Escaped(error) from None

    return announced


def _leaves(command: Any) -> Iterator[Any]:
    children = getattr(command, "commands", None)
    if not children:
        yield command
    for child in (children or {}).values():
        yield from _leaves(child)
