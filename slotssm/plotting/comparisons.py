"""Figures that compare models: grouped bars, and curves."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from slotssm.plotting.backend import new_figure, save_figure
from slotssm.plotting.colors import slot_colors

MODEL_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "slotssm": "SlotSSM",
        "slot-transformer": "SlotTransformer",
        "single-state-ssm": "Single State SSM",
        "split-ssm": "Split SSM",
        "transformer": "Transformer",
        "slot-rnn": "SlotRNN",
        "rim": "RIM",
        "oc-slotssm": "OC-SlotSSM",
        "savi": "SAVi",
        "savi++": "SAVi++",
        "wide-single-state-ssm": "Single State SSM, wide",
        "residual-slot-rnn": "SlotRNN, residual",
    }
)
"""Names of models in figures, by kind, in the order of their colours; each has the same colour in every figure."""
ERROR_BARS = "error bars: standard deviation over seeds, or with one seed the 95 % interval over episodes"


@dataclass(frozen=True)
class Bar:
    """One bar of a group.

    Attributes:
        group: label on the axis.
        series: label in the legend, such as a model.
        value: height; None leaves a gap that is labelled with `missing`.
        error: lengths of the error bar below and above.
        points: individual values, drawn as dots.
        baseline: reference value of the group, drawn as a line across it.
        missing: why there is no value.
    """

    group: str
    series: str
    value: float | None
    error: tuple[float, float] = (0.0, 0.0)
    points: tuple[float, ...] = ()
    baseline: float | None = None
    missing: str = ""


@dataclass(frozen=True)
class Curve:
    """One curve.

    Attributes:
        series: label in the legend.
        x: positions.
        y: values.
        error: half-width of the band around the curve; empty for no band.
        dashed: whether the curve is a baseline, drawn without a solid line; several get different line styles.
    """

    series: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    error: tuple[float, ...] = ()
    dashed: bool = False


def model_name(kind: str) -> str:
    """The name of a model in figures; other texts stay as they are."""
    return MODEL_NAMES.get(kind, kind)


def series_color(series: str) -> tuple[float, float, float]:
    """Colour of a model in every figure; other series are grey."""
    if series not in MODEL_NAMES:
        return (0.45, 0.45, 0.45)
    red, green, blue = slot_colors(len(MODEL_NAMES))[list(MODEL_NAMES).index(series)] / 255
    return float(red), float(green), float(blue)


def series_colors(series: Sequence[str]) -> dict[str, tuple[float, float, float]]:
    """Colours of the series of one figure; if none of several is a model, they are told apart by their order."""
    if len(series) < 2 or any(name in MODEL_NAMES for name in series):
        return {name: series_color(name) for name in series}
    return {
        name: (float(red), float(green), float(blue))
        for name, (red, green, blue) in zip(series, slot_colors(len(series)) / 255, strict=True)
    }


def write_bars(
    bars: Sequence[Bar], path: Path, title: str, group_label: str, value_label: str, baseline_label: str = ""
) -> None:
    """Grouped bars with error bars, individual values as dots, and a baseline across each group.

    Args:
        bars: in any order; groups and series keep the order in which they first occur.
        path: picture to write; a PDF of the same name is written beside it.
        title: title of the figure.
        group_label: label of the horizontal axis.
        value_label: label of the vertical axis.
        baseline_label: legend entry of the baselines.
    """
    groups, series = list(dict.fromkeys(b.group for b in bars)), list(dict.fromkeys(b.series for b in bars))
    width, colors = 0.82 / max(1, len(series)), series_colors(series)
    longest = max((len(line) for group in groups for line in group.splitlines()), default=0)
    figure = new_figure(max(6.0, 2.5 + max(0.34 * len(series), 0.09 * longest) * len(groups)), 3.8)
    axis = figure.subplots()
    for bar in bars:
        x = groups.index(bar.group) + (series.index(bar.series) - (len(series) - 1) / 2) * width
        axis.bar(x, bar.value or 0, width * 0.92, color=colors[bar.series], label=bar.series)
        if bar.value is None:
            axis.text(x, 0, bar.missing, rotation=90, ha="center", va="bottom", fontsize=7)
            continue
        axis.errorbar(x, bar.value, [[bar.error[0]], [bar.error[1]]], color="black", capsize=2, linewidth=0.9)
        if len(bar.points) > 1:
            axis.scatter([x] * len(bar.points), bar.points, s=7, color="black", alpha=0.6, zorder=3)
    for index, group in enumerate(groups):
        baselines = [b.baseline for b in bars if b.group == group and b.baseline is not None]
        if baselines:
            axis.hlines(baselines[0], index - 0.46, index + 0.46, "black", "dashed", linewidth=1, label=baseline_label)
    axis.set_xticks(range(len(groups)), [model_name(group) for group in groups])
    axis.set_xlabel(group_label)
    axis.set_ylabel(value_label)
    axis.set_title(title)
    axis.set_xlim(-0.5, len(groups) - 0.5)
    if not any(bar.value for bar in bars):
        axis.set_ylim(0, 1)
    axis.grid(axis="y", alpha=0.3)
    if any(any(bar.error) for bar in bars):
        figure.supxlabel(ERROR_BARS, fontsize=7, color="0.35")
    _legend_once(figure, axis)
    save_figure(figure, path)
    save_figure(figure, path.with_suffix(".pdf"))


def write_lines(
    curves: Sequence[Curve],
    path: Path,
    title: str,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
    ticks_at_points: bool = True,
) -> None:
    """Curves with error bands.

    Args:
        curves: curves to draw.
        path: picture to write; a PDF of the same name is written beside it.
        title: title of the figure.
        x_label: label of the horizontal axis.
        y_label: label of the vertical axis.
        log_x: whether the horizontal axis is logarithmic.
        log_y: whether the vertical axis is logarithmic.
        ticks_at_points: whether a logarithmic horizontal axis has its ticks at the points of the curves.
    """
    figure = new_figure(6.4, 4.2)
    axis = figure.subplots()
    _draw_curves(axis, curves, x_label, y_label)
    if log_x:
        axis.set_xscale("log", base=2 if ticks_at_points else 10)
    if log_x and ticks_at_points:
        ticks = sorted({x for curve in curves for x in curve.x})
        axis.set_xticks(ticks, [f"{x:g}" for x in ticks])
        axis.minorticks_off()
    if log_y:
        axis.set_yscale("log")
    axis.set_title(title)
    _legend_once(figure, axis)
    save_figure(figure, path)
    save_figure(figure, path.with_suffix(".pdf"))


def write_line_panels(panels: Mapping[str, Sequence[Curve]], path: Path, title: str, x_label: str) -> None:
    """Curves of several quantities side by side, with error bands; a series has one colour in all panels.

    Args:
        panels: curves by label of the vertical axis.
        path: picture to write; a PDF of the same name is written beside it.
        title: title of the figure.
        x_label: label of the horizontal axes.
    """
    figure = new_figure(4.2 * len(panels) + 1.6, 3.6)
    figure.suptitle(title)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (y_label, curves) in zip(axes, panels.items(), strict=True):
        _draw_curves(axis, curves, x_label, y_label)
    _legend_once(figure, *axes)
    save_figure(figure, path)
    save_figure(figure, path.with_suffix(".pdf"))


def _draw_curves(axis: Axes, curves: Sequence[Curve], x_label: str, y_label: str) -> None:
    # baselines share a colour and are told apart by line style
    styles = itertools.cycle(("dashed", "dotted", "dashdot"))
    colors = series_colors(list(dict.fromkeys(curve.series for curve in curves if not curve.dashed)))
    for curve in curves:
        color = series_color(curve.series) if curve.dashed else colors[curve.series]
        marker = "" if len(curve.x) > 16 else "o"
        style = next(styles) if curve.dashed else "solid"
        axis.plot(
            curve.x,
            curve.y,
            color=color,
            linestyle=style,
            linewidth=1.5,
            label=curve.series,
            marker=marker,
            markersize=3.5,
        )
        if curve.error:
            low = [y - e for y, e in zip(curve.y, curve.error, strict=True)]
            high = [y + e for y, e in zip(curve.y, curve.error, strict=True)]
            axis.fill_between(curve.x, low, high, color=color, alpha=0.18, linewidth=0)
    if all(float(x).is_integer() for curve in curves for x in curve.x):
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axis.set_xlabel(x_label)
    axis.set_ylabel(y_label)
    axis.grid(alpha=0.3)


def _legend_once(figure: Figure, *axes: Axes) -> None:
    found = [axis.get_legend_handles_labels() for axis in axes]
    known = {label: handle for handles, labels in found for handle, label in zip(handles, labels, strict=True) if label}
    figure.legend(known.values(), map(model_name, known), fontsize=8, loc="outside right upper")
