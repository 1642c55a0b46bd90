"""The content of a page as plain data; `render` turns it into HTML and escapes every text."""

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from slotssm.report.videos import VideoDocument

RGB = tuple[int, int, int]


def number(value: float | None) -> str:
    """A number with four significant digits; an en dash for None."""
    return "–" if value is None else f"{value:.4g}"


@dataclass(frozen=True)
class Cell:
    """One entry of a table.

    Attributes:
        text: what is shown.
        value: the exact number that the table sorts by; None sorts by the text.
        color: colour of a swatch before the text.
        hint: a longer text, shown on hovering.
    """

    text: str
    value: float | None = None
    color: RGB | None = None
    hint: str = ""

    @classmethod
    def of(cls, value: float | int | str | None) -> "Cell":
        """A number with four significant digits that keeps its exact value, or a text."""
        if isinstance(value, str):
            return cls(value)
        if value is None or not math.isfinite(value):
            return cls("–")
        return cls(f"{value:,}" if isinstance(value, int) else number(value), value)


@dataclass(frozen=True)
class Facts:
    """Names with values.

    Attributes:
        items: pairs of name and value.
    """

    items: Sequence[tuple[str, str]]
    kind: ClassVar[str] = "facts"


@dataclass(frozen=True)
class Table:
    """A table that sorts by any column.

    Attributes:
        columns: headings.
        rows: entries.
        title: heading of the table; empty for none.
        folded: whether it is shown only on demand.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    folded: bool = False
    kind: ClassVar[str] = "table"


@dataclass(frozen=True)
class Key:
    """An entry of a legend.

    Attributes:
        label: what is drawn in the colour.
        color: RGB.
    """

    label: str
    color: RGB


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes:
        title: what is drawn, with its unit.
        svg: the drawing as an `svg` element, trusted: it must not contain text from files.
        labels: labels of the rows of an interval chart, from the top; empty for other charts.
    """

    title: str
    svg: str
    labels: Sequence[Key] = ()


@dataclass(frozen=True)
class Charts:
    """Charts side by side with a common legend.

    Attributes:
        charts: the charts.
        keys: the legend.
        caption: what lines, bands and points are.
    """

    charts: Sequence[Chart]
    keys: Sequence[Key] = ()
    caption: str = ""
    kind: ClassVar[str] = "charts"


@dataclass(frozen=True)
class Picture:
    """An existing picture.

    Attributes:
        png: the file's content.
        title: caption.
    """

    png: bytes
    title: str
    kind: ClassVar[str] = "picture"

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return data_uri(self.png)


@dataclass(frozen=True)
class Code:
    """Text to copy, such as commands or a configuration.

    Attributes:
        text: the text.
        title: what it is.
        file_name: name under which it can be saved; empty if it cannot.
        folded: whether it is shown only on demand.
    """

    text: str
    title: str = ""
    file_name: str = ""
    folded: bool = False
    kind: ClassVar[str] = "code"

    @property
    def uri(self) -> str:
        """The text as a data URI."""
        return "data:text/plain;charset=utf-8;base64," + base64.b64encode(self.text.encode("utf-8", "replace")).decode()


@dataclass(frozen=True)
class Note:
    """A paragraph.

    Attributes:
        text: the paragraph.
        important: whether it says that something is missing or does not fit.
    """

    text: str
    important: bool = False
    kind: ClassVar[str] = "note"


@dataclass(frozen=True)
class Videos:
    """Videos that can be scrubbed.

    Attributes:
        videos: embedded videos.
    """

    videos: Sequence[VideoDocument]
    kind: ClassVar[str] = "videos"


Block = Facts | Table | Charts | Picture | Code | Note | Videos


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading.

    Attributes:
        title: heading.
        blocks: content.
    """

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes:
        title: heading of the page, also the title of the window.
        kind: what is shown, such as `run` or `data set`.
        summary: facts below the heading.
        sections: parts of the page.
        made: who made the page, for its last line.
    """

    title: str
    kind: str
    summary: Sequence[tuple[str, str]] = ()
    sections: Sequence[Section] = field(default_factory=list)
    made: str = ""


def data_uri(png: bytes) -> str:
    """A PNG as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode()
