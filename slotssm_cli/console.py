"""What people and scripts see: results on stdout, everything else on stderr."""

import json
import math
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

PLAIN_LINE_EVERY_S = 5.0
PIPE_WIDTH = 140


def note(text: str) -> None:
    """A line on stderr."""
    print(text, file=sys.stderr, flush=True)


def result(text: str) -> None:
    """A line of the result on stdout."""
    print(text, flush=True)


def result_json(document: Any) -> None:
    """The one JSON document of a command with --json."""
    print(json.dumps(document, indent=2, allow_nan=False), flush=True)


def result_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table of the result on stdout."""
    table = Table(title=title or None, title_justify="left", show_edge=False, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, no_wrap=index < 2)
    for row in rows:
        table.add_row(*row)
    console = Console(soft_wrap=False, markup=False, highlight=False)
    if not console.is_terminal:
        console.width = PIPE_WIDTH
    console.print(table)


def number(value: float | None) -> str:
    """A number for people, four significant digits."""
    return "–" if value is None else f"{value:.4g}"


def human_bytes(count: float) -> str:
    """Bytes with a unit."""
    if count < 1024:
        return f"{count:.0f} B"
    power = min(4, int(math.log(count, 1024)))
    return f"{count / 1024**power:.1f} {' KMGT'[power]}iB"


def human_seconds(seconds: float) -> str:
    """A duration, rounded for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


class Meter:
    """Progress of long work: a bar with ETA on a terminal, else a plain line every few seconds, on stderr.

    The bar appears with the first update and ends with the last, so that several meters can take turns.

    Args:
        label: what is being done.
        unit: what is counted.
    """

    def __init__(self, label: str, unit: str) -> None:
        self._label, self._unit = label, unit
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(unit),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[values]}"),
                console=Console(stderr=True),
            )
            self._task = self._bar.add_task(label, total=None, values="")
        self._began = self._told = time.monotonic()
        self._first: int | None = None

    def update(self, done: int, total: int, values: str = "") -> None:
        """Show that `done` of `total` are done."""
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, values=values)
            if done < total:
                self._bar.start()
            else:
                self._bar.stop()
            return
        self._first = done if self._first is None else self._first
        now = time.monotonic()
        if now - self._told >= PLAIN_LINE_EVERY_S:
            self._told = now
            gained = done - self._first
            left = (total - done) * (now - self._began) / gained if gained else math.nan
            eta = f", {human_seconds(left)} left" if math.isfinite(left) else ""
            note(f"{self._label}: {done}/{total} {self._unit}{eta}" + (f"  {values}" if values else ""))

    def say(self, text: str) -> None:
        """A line above the bar."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            note(text)

    def __enter__(self) -> Self:
        return self

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.stop()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
