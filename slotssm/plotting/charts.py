"""Charts as SVG for pages: they take ink and grid from the page, and have no text that comes from files."""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, Locator, LogLocator, MaxNLocator, NullLocator

from slotssm.plotting.backend import new_figure

RGB = tuple[int, int, int]

_INK, _RULE = "#012345", "#543210"
"""Colours that stand for those of the page, which are only known when it is shown."""
_PALE_INK = "color-mix(in srgb, currentColor 22%, transparent)"
_WIDTH_IN, _HEIGHT_IN = 4.0, 2.5
_INTERVAL_WIDTH_IN = 2.0
_TEXT_PT = 10.5
INTERVAL_TOP_IN, INTERVAL_ROW_IN, INTERVAL_BOTTOM_IN = 0.08, 0.36, 0.36
"""Heights of an interval chart: above its rows, of a row, and below them."""


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        x: positions.
        y: values.
        color: RGB.
        low: lower end of the band around the line; empty for no band.
        high: upper end of the band.
        style: `solid`, `faint` (thin and pale, behind the others), `dotted` (points joined by a line) or `dashed`.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    color: RGB
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    style: str = "solid"


@dataclass(frozen=True)
class Interval:
    """One row of an interval chart.

    Attributes:
        value: the mean.
        color: RGB.
        error: lengths of the interval below and above the mean.
        points: individual values, such as those of the seeds.
    """

    value: float | None
    color: RGB
    error: tuple[float, float] = (0.0, 0.0)
    points: tuple[float, ...] = ()


_STYLES: dict[str, dict[str, Any]] = {
    "solid": {"linewidth": 1.6},
    "faint": {"linewidth": 0.8, "alpha": 0.45},
    "dotted": {"linewidth": 1.6, "marker": "o", "markersize": 3.2},
    "dashed": {"linewidth": 1.2, "linestyle": (0, (4, 3))},
}


def line_chart(lines: Sequence[Line], x_label: str, log_x: bool = False, log_y: bool = False) -> str:
    """Lines with bands, as SVG.

    Args:
        lines: lines to draw, the last ones on top.
        x_label: label of the horizontal axis.
        log_x: whether the horizontal axis is logarithmic (base 2).
        log_y: whether the vertical axis is logarithmic; ignored if a value is not positive.
    """
    figure, axis = _axes(_WIDTH_IN, _HEIGHT_IN)
    for line in lines:
        color = tuple(part / 255 for part in line.color)
        axis.plot(line.x, line.y, color=color, **_STYLES[line.style])
        if line.low:
            axis.fill_between(line.x, line.low, line.high, color=color, alpha=0.2, linewidth=0)
    lowest = min((value for line in lines for value in (*line.y, *line.low)), default=0.0)
    if log_y and lowest > 0:
        axis.set_yscale("log")
        _tick_log(axis)
    if log_x:
        axis.set_xscale("log", base=2)
        ticks = sorted({x for line in lines for x in line.x})
        axis.set_xticks(ticks, [f"{x:g}" for x in ticks])
        axis.minorticks_off()
    elif all(float(x).is_integer() for line in lines for x in line.x):
        axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axis.set_xlabel(x_label, color=_INK, fontsize=_TEXT_PT)
    axis.grid(color=_RULE, linewidth=0.7)
    return _svg(figure)


def interval_chart(rows: Sequence[Interval]) -> str:
    """Means with intervals and individual values, one row each from the top, as SVG without labels of the rows."""
    figure, axis = _axes(_INTERVAL_WIDTH_IN, INTERVAL_TOP_IN + INTERVAL_ROW_IN * len(rows) + INTERVAL_BOTTOM_IN)
    # a fixed place, so that the page can put the labels beside the rows
    height_in = figure.get_figheight()
    figure.set_layout_engine("none")
    axis.set_position((0.04, INTERVAL_BOTTOM_IN / height_in, 0.9, INTERVAL_ROW_IN * len(rows) / height_in))
    for place, row in enumerate(rows):
        if row.value is None:
            continue
        color = tuple(part / 255 for part in row.color)
        axis.errorbar(
            row.value, place, xerr=[[row.error[0]], [row.error[1]]], color=color, fmt="o", markersize=5.5, linewidth=2
        )
        if len(row.points) > 1:
            axis.scatter(row.points, [place] * len(row.points), s=9, color=_INK, alpha=0.55, linewidths=0, zorder=3)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_yticks(range(len(rows)), [""] * len(rows))
    axis.xaxis.set_major_locator(MaxNLocator(nbins=3))
    axis.grid(color=_RULE, linewidth=0.7)
    return _svg(figure)


def _tick_log(axis: Axes) -> None:
    """Ticks of a logarithmic vertical axis: as round as the range allows, and at least three, all with labels."""
    low, high = axis.get_ylim()
    # at the height of the chart, none so close together that their labels touch
    parts = ((1,), (1, 2, 5), (1, 2, 3, 5), (1, 2, 3, 4, 6, 8))
    candidates: list[Locator] = [LogLocator(subs=subs) for subs in parts]
    candidates.append(MaxNLocator(nbins=5))
    enough = (each for each in candidates if sum(low <= tick <= high for tick in each.tick_values(low, high)) >= 3)
    axis.yaxis.set_major_locator(next(enough, candidates[-1]))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
    axis.yaxis.set_minor_locator(NullLocator())


def _axes(width_in: float, height_in: float) -> tuple[Any, Axes]:
    figure = new_figure(width_in, height_in)
    figure.patch.set_alpha(0)
    axis: Axes = figure.subplots()
    axis.patch.set_alpha(0)
    for name, spine in axis.spines.items():
        spine.set_visible(name in ("bottom", "left"))
        spine.set_color(_RULE)
    axis.tick_params(which="both", color=_RULE, labelcolor=_INK, labelsize=_TEXT_PT)
    axis.set_axisbelow(True)
    return figure, axis


def _svg(figure: Any) -> str:
    """The figure as an `svg` element, the same in every process."""
    stream = io.StringIO()
    # text stays text, so that it takes the font of the page and can be selected
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "slotssm"}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = stream.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.S)
    # the page decides the size, and may have several charts, whose names of parts would clash
    head, _, body = re.sub(r"\s+", " ", text).partition(">")
    used = set(re.findall(r'#(\w+)[")]', body))
    body = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", body)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    return f"{head}>{body}".replace(_INK, "currentColor").replace(_RULE, _PALE_INK).strip()
