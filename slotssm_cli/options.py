"""Options that several commands share, and how their texts are read."""

from pathlib import Path
from typing import Annotated

import typer

from slotssm.errors import InputError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what exists.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Tell what would be done and what it costs, and do nothing.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue what was interrupted.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Seed; 0 is a seed like any other.")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Processes; chosen by the job's size.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")]
Data = Annotated[Path | None, typer.Option("--data", help="Episode file.")]
Plugin = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin", callback=lambda paths: _load_plugins(paths), help="Python file that registers code; repeatable."
    ),
]
Split = Annotated[str, typer.Option("--split", help="train, val or test.")]
NumTrain = Annotated[int, typer.Option("--train", min=0, help="Episodes in the split train; 0 leaves it out.")]
NumVal = Annotated[int, typer.Option("--val", min=0, help="Episodes in the split val; 0 leaves it out.")]
NumTest = Annotated[int, typer.Option("--test", min=0, help="Episodes in the split test; 0 leaves it out.")]


def words(text: str) -> list[str]:
    """Comma-separated words."""
    return [word.strip() for word in text.split(",") if word.strip()]


def whole_numbers(text: str, option: str) -> list[int]:
    """Comma-separated whole numbers."""
    try:
        numbers = [int(word) for word in words(text)]
    except ValueError:
        numbers = []
    if not numbers:
        raise InputError(f"{option} {text!r}: expected whole numbers, for example 0,1,2")
    return numbers


def whole_range(text: str, option: str) -> tuple[int, int]:
    """`3` or `3-5`."""
    low, _, high = text.partition("-")
    try:
        return int(low), int(high or low)
    except ValueError:
        raise InputError(f"{option} {text}: expected a number or a range such as 3-5") from None


def number_range(text: str, option: str) -> tuple[float, float]:
    """`2.5` or `1.0-3.0`."""
    low, _, high = text.partition("-")
    try:
        return float(low), float(high or low)
    except ValueError:
        raise InputError(f"{option} {text}: expected a number or a range such as 6-9") from None


def _load_plugins(paths: list[Path] | None) -> list[Path] | None:
    """Run plugin files before the command looks anything up; installed plugins are there anyway."""
    from slotssm.plugins import load_installed_plugins, load_plugin

    load_installed_plugins()
    for path in paths or ():
        load_plugin(path)
    return paths
