"""Write docs/cli.md from the command line itself: `python docs/build_cli_reference.py`."""

from pathlib import Path
from typing import Any

import typer

from slotssm_cli.commands import app

TARGET = Path(__file__).parent / "cli.md"
HEAD = """# Command line

This page is generated from the program (`make docs`).

Results go to stdout, progress and notes to stderr; with `--json` stdout holds exactly one JSON document.
Exit codes: 0 done; 1 failed; 2 wrong usage or input; 3 interrupted and resumable. An error is one line that names
the file or option, the fault and the remedy; with `--json` it is also a document `{"error", "exit_code"}`.
`SLOTSSM_DEBUG=1` shows the traceback of an unexpected failure. A reader of stdout that leaves early (`| head`) is no
failure. `slotssm --install-completion` teaches the shell to complete commands and options; `python -m slotssm` is the
same program.
"""


def commands(command: Any, name: str) -> list[tuple[str, Any]]:
    """All leaves of the tree of commands with their full names."""
    children = getattr(command, "commands", None)
    if not children:
        return [(name, command)]
    return [leaf for child, node in children.items() for leaf in commands(node, f"{name} {child}")]


def describe(name: str, command: Any) -> str:
    """One command as Markdown."""
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    usage = " ".join([name, *(p.metavar or f"[{p.name.upper()}]" for p in arguments), "[OPTIONS]"])
    lines = [f"## {name}", "", f"`{usage}`", "", (command.help or "").strip(), ""]
    lines += ["| option | default | meaning |", "|---|---|---|"]
    lines += [f"| {p.metavar or p.name.upper()} | | {p.help} |" for p in arguments]
    for p in options:
        is_plain = p.default is None or p.default is False or p.default == "" or callable(p.default)
        default = "" if is_plain else f"`{p.default}`"
        lines.append(f"| {', '.join(f'`{o}`' for o in p.opts)} | {default} | {p.help} |")
    return "\n".join(lines) + "\n"


def reference() -> str:
    """The whole page."""
    leaves = commands(typer.main.get_command(app), "slotssm")
    return HEAD + "\n" + "\n".join(describe(name, command) for name, command in leaves)


if __name__ == "__main__":
    TARGET.write_text(reference())
