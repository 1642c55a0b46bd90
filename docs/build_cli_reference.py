"""Write docs/cli.md from the command line itself: `python docs/build_cli_reference.py`."""

from pathlib import Path
from typing import Any

import typer

from slotssm_cli.commands import app
from slotssm_cli.terminal.examples import EXAMPLES

TARGET = Path(__file__).parent / "cli.md"
HEAD = """# Command line

This page is generated from the program (`make docs`).

Results are printed on stdout, progress and notes on stderr. With `--json`, stdout contains exactly one JSON document.

| exit code | meaning |
|---|---|
| 0 | success |
| 1 | failure |
| 2 | wrong usage or input |
| 3 | interrupted; repeat the command, with `--resume` where it has that option, to continue |

An error is a single line that names the file or option, the problem and a remedy; with `--json` it is also printed as a
document `{"error", "exit_code"}`. `--verbose` prints the traceback of an error as well;
[troubleshooting](troubleshooting.md) explains the most common messages. A reader of stdout that exits early (`| head`)
is not an error. `slotssm --install-completion` installs shell completion of commands and options;
`python -m slotssm` is the same program.
"""


def commands(command: Any, name: str) -> list[tuple[str, Any]]:
    """All commands, with their full names."""
    children = getattr(command, "commands", None)
    if not children:
        return [(name, command)]
    return [leaf for child, node in children.items() for leaf in commands(node, f"{name} {child}")]


def describe(name: str, command: Any) -> str:
    """One command as Markdown."""
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    usage = " ".join([name, *map(shown_argument, arguments), "[OPTIONS]"])
    lines = [f"## {name}", "", f"`{usage}`", "", (command.help or "").strip(), ""]
    lines += ["| option | default | meaning |", "|---|---|---|"]
    # a bar would end the table cell
    lines += [f"| `{shown_argument(p).replace('|', 'or')}` | {shown_default(p)} | {p.help} |" for p in arguments]
    for p in options:
        names = ", ".join(f"`{option}`" for option in (*p.opts, *p.secondary_opts))
        lines.append(f"| {names} | {shown_default(p)} | {p.help} |")
    lines += ["", "```text", *EXAMPLES[name], "```"] if name in EXAMPLES else []
    return "\n".join(lines) + "\n"


def shown_argument(argument: Any) -> str:
    """A positional argument, in brackets if it is optional."""
    name = argument.name.upper()
    return argument.metavar or (name if argument.required else f"[{name}]")


def shown_default(parameter: Any) -> str:
    """The default as Markdown; empty if there is none, as for switches."""
    if parameter.required:
        return "required"
    if isinstance(parameter.show_default, str):
        return parameter.show_default
    has_none = parameter.default is None or parameter.default is False or callable(parameter.default)
    return "" if has_none else f"`{parameter.default}`"


def reference() -> str:
    """The whole page."""
    leaves = commands(typer.main.get_command(app), "slotssm")
    return HEAD + "\n" + "\n".join(describe(name, command) for name, command in leaves)


if __name__ == "__main__":
    TARGET.write_text(reference())
