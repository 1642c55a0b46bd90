"""Output of the command line: results on stdout, everything else on stderr."""

import json
import math
import re
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.progress import Progress

PLAIN_LINE_EVERY_S = 5.0
PIPE_WIDTH = 140
COLUMN_GAP = 3
"""Characters between two columns of a table."""

# control characters, marks that change the direction of text, and surrogates
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str, kept: str = "") -> str:
    r"""Escape control characters (`\x1b` for ESC), so that text from files cannot control the terminal.

    Args:
        text: text that may come from a file, a path or another program.
        kept: control characters to leave as they are.
    """
    return _UNSEEN.sub(lambda found: found[0] if found[0] in kept else _spelled_out(found[0]), text)


def _spelled_out(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def note(text: str) -> None:
    """Print a line on stderr."""
    if sys.stderr is not None:  # `print` would use stdout instead
        print(visible(text), file=sys.stderr, flush=True)


def result(text: str) -> None:
    """Print one or more lines of the result on stdout."""
    print(visible(text, kept="\n"), flush=True)


def result_json(document: Any) -> None:
    """Print the JSON document of a command with --json on stdout."""
    print(json.dumps(document, indent=2, allow_nan=False), flush=True)


def result_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table of the result on stdout; rows become paragraphs where the terminal is too narrow for its words."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=_width(), soft_wrap=False, markup=False, emoji=False, highlight=False)
    columns, rows = [visible(column) for column in columns], [[visible(cell) for cell in row] for row in rows]
    widths = _column_widths(list(zip(columns, *rows, strict=True)), console.width)
    if widths is None:
        _result_paragraphs(title, columns, rows)
        return
    table = Table(title=visible(title) or None, title_justify="left", show_edge=False, pad_edge=False)
    for column, width in zip(columns, widths, strict=True):
        table.add_column(column, width=width, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _column_widths(columns: Sequence[Sequence[str]], available: int) -> list[int] | None:
    """Widths of columns that fit side by side and cut no word, nor the names in the first one; None if there are none.

    What is left goes to the column that has to wrap its longest cell most often.
    """
    longest = [max(map(len, cells)) for cells in columns]
    widths = [longest[0], *(max(1, *map(_longest_word, cells)) for cells in columns[1:])]
    left = available - sum(widths) - COLUMN_GAP * (len(columns) - 1)
    if left < 0:
        return None
    for _ in range(left):
        index = max(range(len(widths)), key=lambda each: longest[each] / max(1, widths[each]))
        if longest[index] <= widths[index]:
            break
        widths[index] += 1
    return widths


def _result_paragraphs(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if title:
        result(f"{title}\n")
    for row in rows:
        result_facts({column: cell for column, cell in zip(columns, row, strict=True) if cell})
        result("")


def _longest_word(text: str) -> int:
    return max(map(len, text.split()), default=0)


def result_facts(facts: Mapping[str, Any]) -> None:
    """Print names and values one below the other on stdout, wrapped between words."""
    margin = max(map(len, facts), default=0) + 2
    width = _width()
    for name, value in facts.items():
        lines = textwrap.wrap(
            f"{name:<{margin}}{in_words(value)}",
            max(width, 2 * margin),
            subsequent_indent=" " * margin,
            break_long_words=False,
            break_on_hyphens=False,
        )
        result("\n".join(lines))


def _width() -> int:
    """Width of the terminal, or of output that goes elsewhere."""
    from rich.console import Console

    console = Console()
    return console.width if console.is_terminal else PIPE_WIDTH


def in_words(value: Any) -> str:
    """A value of a JSON document for people: numbers with four significant digits, no brackets around the outside."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_inside(part)}" for name, part in value.items()) or "–"
    if isinstance(value, list | tuple):
        return ", ".join(map(_inside, value)) or "–"
    return str(value)


def _inside(value: Any) -> str:
    return f"({in_words(value)})" if isinstance(value, Mapping | list | tuple) and value else in_words(value)


def interval(limits: Sequence[float] | None) -> str:
    """An interval; empty if there is none."""
    return f"{number(limits[0])} to {number(limits[1])}" if limits else ""


def number(value: float | None) -> str:
    """A number with four significant digits."""
    return "–" if value is None else f"{value:.4g}"


def human_bytes(count: float) -> str:
    """A size with a binary unit."""
    if count < 1024:
        return f"{count:.0f} B"
    power = min(4, int(math.log(count, 1024)))
    return f"{count / 1024**power:.1f} {' KMGT'[power]}iB"


def human_seconds(seconds: float) -> str:
    """A duration in seconds, minutes or hours."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def about_time(seconds: float, may_be_less: bool) -> str:
    """An expected duration, which is a limit if the work may end early."""
    return f"{'at most ' if may_be_less else ''}about {human_seconds(seconds)}"


class Meter:
    """Progress on stderr: a bar with remaining time on a terminal, otherwise a plain line every few seconds.

    The bar appears with the first update and ends with the last, so that several meters can follow one another. Work
    that is counted from the beginning again is new work.

    Args:
        label: description of the work.
        unit: plural of what is counted.
    """

    def __init__(self, label: str, unit: str) -> None:
        self._label, self._unit = visible(label), unit
        self._bar = _bar(unit) if sys.stderr is not None and sys.stderr.isatty() else None
        if self._bar is not None:
            self._task = self._bar.add_task(self._label, total=None, values="")
        self._last_printed, self._done = time.monotonic(), 0
        self._is_told = False
        """Whether a plain line was printed, so that the end is told, too."""
        self._counted: list[tuple[float, int]] = []
        """Time and units done at the first update and at the end of the first unit, which may include compilation."""

    def update(self, done: int, total: int, values: str = "") -> None:
        """Show that `done` of `total` units are done."""
        if done < self._done:
            self._counted = []
            if self._bar is not None:
                self._bar.reset(self._task)
        self._done = done
        if self._bar is not None:
            self._bar.update(self._task, completed=done, total=total, values=visible(values))
            if done < total:
                self._bar.start()
            else:
                self._bar.stop()
            return
        now = time.monotonic()
        if done >= total and self._is_told:
            self._is_told = False
            note(f"{self._label}: {done}/{total} {self._unit}" + (f"  {values}" if values else ""))
            return
        if len(self._counted) < 2 and (not self._counted or done > self._counted[0][1]):
            self._counted.append((now, done))
        if now - self._last_printed >= PLAIN_LINE_EVERY_S:
            self._last_printed, self._is_told = now, True
            began, first = self._counted[-1]
            left = (total - done) * (now - began) / (done - first) if done > first else math.nan
            eta = f", {human_seconds(left)} left" if math.isfinite(left) else ""
            note(f"{self._label}: {done}/{total} {self._unit}{eta}" + (f"  {values}" if values else ""))

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if self._bar is not None:
            self._bar.console.print(visible(text), markup=False, emoji=False, highlight=False)
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


def _bar(unit: str) -> "Progress":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[values]}", markup=False),
        console=Console(stderr=True),
    )
