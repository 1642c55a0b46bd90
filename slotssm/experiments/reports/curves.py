"""Training curves of several runs, with the spread over seeds."""

import statistics
from collections.abc import Sequence
from typing import Any

from slotssm.experiments.reports.recorded import RGB, RecordedRun, SeedGroup
from slotssm.plotting.charts import Line, line_chart
from slotssm.plotting.curves import BASELINES, NOT_PLOTTED
from slotssm.report import Chart, Charts, Key

BASELINE_COLOR: RGB = (130, 130, 130)

Points = dict[int, float]
"""Values by step."""


def training_charts(groups: Sequence[SeedGroup]) -> Charts | None:
    """One chart for each logged quantity; None if nothing is logged."""
    logged = [line for group in groups for run in group.runs for line in run.lines]
    names = dict.fromkeys(name for line in logged for name in line if name not in NOT_PLOTTED)
    names = dict.fromkeys(name for name in names if not name.endswith(tuple(BASELINES)))
    charts = [chart for name in names if (chart := _chart(name, groups)) is not None]
    if not charts:
        return None
    several = any(len(group.runs) > 1 for group in groups)
    used = {suffix for suffix in BASELINES for line in logged for name in line if name.endswith(suffix)}
    caption = "Without points: training batches; with points: validation split."
    if several:
        caption = f"Line: mean over seeds; band: ± standard deviation over seeds (ddof = 1). {caption}"
    if used:
        caption += f" Dashed: {' or '.join(BASELINES[suffix] for suffix in sorted(used))}, to compare with."
    # one run needs no legend
    keys = [Key(group.label, group.color) for group in groups] if len(groups) > 1 or several else []
    return Charts(charts, keys, caption)


def _chart(name: str, groups: Sequence[SeedGroup]) -> Chart | None:
    lines: list[Line] = []
    splits = set()
    for suffix in BASELINES:
        lines += _lines(groups, name + suffix, "val", "dashed", BASELINE_COLOR)
    for split, style in (("train", "faint"), ("val", "dotted")):
        found = _lines(groups, name, split, style)
        splits |= {split} if found else set()
        lines += found
    if not splits:
        return None
    if splits == {"train"}:
        lines = _lines(groups, name, "train", "solid")
    where = " and ".join({"train": "training", "val": "validation"}[split] for split in sorted(splits))
    return Chart(f"{name} ({where})", line_chart(lines, "step", log_y=name == "loss" or "mse" in name))


def _lines(groups: Sequence[SeedGroup], name: str, split: str, style: str, color: RGB | None = None) -> list[Line]:
    found = [_line([points_of(run, name, split) for run in g.runs], style, color or g.color) for g in groups]
    return [line for line in found if line is not None]


def points_of(run: RecordedRun, name: str, split: str) -> Points:
    """Logged values of a quantity by step."""
    return {
        line["step"]: float(line[name]) for line in run.lines if line.get("split") == split and _is_number(line, name)
    }


def _is_number(line: dict[str, Any], name: str) -> bool:
    return isinstance(line.get(name), (int, float))


def _line(runs: Sequence[Points], style: str, color: RGB) -> Line | None:
    """The mean over runs with a band, at the steps that all of them have."""
    runs = [points for points in runs if points]
    if not runs:
        return None
    steps = sorted(set(runs[0]).intersection(*runs[1:]))
    values = [[points[step] for points in runs] for step in steps]
    means = [statistics.fmean(each) for each in values]
    if len(runs) == 1:
        return Line(tuple(steps), tuple(means), color, style=style)
    spread = [statistics.stdev(each) for each in values]
    low = tuple(mean - width for mean, width in zip(means, spread, strict=True))
    high = tuple(mean + width for mean, width in zip(means, spread, strict=True))
    return Line(tuple(steps), tuple(means), color, low, high, style)


def step_charts(runs: Sequence[tuple[RecordedRun, RGB]]) -> Charts | None:
    """Stored scores of every step of a roll-out; None if no run has any."""
    charts: dict[str, list[Line]] = {}
    keys: dict[str, Key] = {}
    for run, color in runs:
        for scores in run.scores:
            for result in scores.results:
                steps = _numbers(result.get("per_step"))
                if not steps:
                    continue
                lines = charts.setdefault(f"{result['metric']} on {scores.document.get('split', scores.file)}", [])
                numbers = tuple(float(n) for n in range(1, len(steps) + 1))
                baseline = _numbers(result.get("repeat_last_frame_per_step"))
                if not lines and len(baseline) == len(steps):
                    lines.append(Line(numbers, baseline, BASELINE_COLOR, style="dashed"))
                lines.append(Line(numbers, steps, color, style="dotted"))
                keys[run.name] = Key(run.name, color)
    if not charts:
        return None
    drawn = [Chart(title, line_chart(lines, "predicted frame")) for title, lines in charts.items()]
    shown = list(keys.values()) if len(runs) > 1 else []
    return Charts(drawn, shown, "Scores of each predicted frame. Dashed: repeating the last context frame.")


def _numbers(values: Any) -> tuple[float, ...]:
    """A stored list of numbers; empty if it is anything else."""
    known = isinstance(values, list) and all(isinstance(each, (int, float)) for each in values)
    return tuple(values) if known else ()
