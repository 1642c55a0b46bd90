"""Options that several commands share, and parsers of option values."""

from pathlib import Path
from typing import Annotated

import typer

from slotssm.errors import InputError

Json = Annotated[bool, typer.Option("--json", help="Print the result on stdout as a single JSON document.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite existing output.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done and its cost, without doing it.")]
Resume = Annotated[bool, typer.Option("--resume", help="Resume interrupted work.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Random seed.")]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Number of processes.", show_default="by the amount of work"),
]
Part = Annotated[
    str | None,
    typer.Option(
        "--part",
        metavar="I/N",
        help="Make the I-th of N parts only; the same command without this option joins them.",
        show_default="all",
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")]
Data = Annotated[
    Path | None, typer.Option("--data", help="Episode file, generated or imported.", show_default="the run's own data")
]
Plugin = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        callback=lambda paths: _load_plugins(paths),
        help="Python file that registers models, tasks or data sets; repeatable.",
    ),
]
Split = Annotated[str, typer.Option("--split", help="Split to use: train, val or test.")]
NumTrain = Annotated[int, typer.Option("--train", min=0, help="Number of training episodes; 0 leaves out the split.")]
NumVal = Annotated[int, typer.Option("--val", min=0, help="Number of validation episodes; 0 leaves out the split.")]
NumTest = Annotated[int, typer.Option("--test", min=0, help="Number of test episodes; 0 leaves out the split.")]


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


def share(text: str, option: str) -> tuple[int, int]:
    """`2/8`, the second of eight parts."""
    number, _, count = text.partition("/")
    try:
        return int(number), int(count)
    except ValueError:
        raise InputError(f"{option} {text}: expected a part and the number of parts, for example 2/8") from None


def number_range(text: str, option: str) -> tuple[float, float]:
    """`2.5` or `1.0-3.0`."""
    low, _, high = text.partition("-")
    try:
        return float(low), float(high or low)
    except ValueError:
        raise InputError(f"{option} {text}: expected a number or a range such as 6-9") from None


def _load_plugins(paths: list[Path] | None) -> list[Path] | None:
    """Load installed plugins and plugin files before the command looks up any name."""
    from slotssm.plugins import load_installed_plugins, load_plugin

    load_installed_plugins()
    for path in paths or ():
        load_plugin(path)
    return paths
