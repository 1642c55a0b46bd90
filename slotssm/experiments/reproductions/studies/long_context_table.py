"""Table and figures of long-context reasoning, from its records."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slotssm.experiments import paper_numbers
from slotssm.experiments.reproductions.cells import Record, Setting
from slotssm.experiments.reproductions.comparison import Row, Table, compare, validations
from slotssm.experiments.reproductions.matched import RESIDUAL, SEQUENCE_MODELS, WIDE, configs_of, sizes_note
from slotssm.plotting import Bar, Curve, write_bars, write_lines

COMPARED = (*SEQUENCE_MODELS[:3], WIDE, *SEQUENCE_MODELS[3:-1], RESIDUAL, SEQUENCE_MODELS[-1])
"""Models of the table, in its order."""
METRICS = ("mse", "color-accuracy", "position-iou", "white-floor")
LEARNED = 0.5
"""Colour accuracy on validation data above which a model has left the plateau; chance is a sixth."""


def rows_of(records: Sequence[Record]) -> list[Row]:
    """Models in every setting, with the paper's value for the same rule and length."""
    parts = [part for record in records for part in _by_balls(record)]
    return sorted(compare(parts, METRICS, _paper), key=_order)


def table_of(rows: Sequence[Row], scale: str) -> Table:
    """Squared error, its ratio to the all-white baseline, accuracies, cost of learning, and the paper's values."""
    lines: list[tuple[str, ...]] = []
    for row in rows:
        mse, all_white = row.metrics["mse"], row.metrics["white-floor"].mean
        setting = row.setting
        paper_all_white = paper_numbers.LONG_CONTEXT_ALL_WHITE_ERRORS.get(int(setting["num_frames"]))
        lines.append(
            (
                f"{setting['rule']}, T = {setting['num_frames']}"
                + (f", rate {setting['rate']}" if "rate" in setting else ""),
                str(setting["length"]),
                str(setting["balls"]),
                row.model,
                f"{row.parameters:,}" if row.parameters else "–",
                str(mse) if mse.mean is not None else _missing(row) or "–",
                f"{mse.mean / all_white:.2f}" if mse.mean is not None and all_white else "–",
                str(row.metrics["color-accuracy"]),
                str(row.metrics["position-iou"]),
                row.seeds("mse"),
                _range([record["checkpoint_step"] for record in row.records if "checkpoint_step" in record]),
                _learned(row),
                f"{row.paper:.4f}" if isinstance(row.paper, float) else (row.paper or "–"),
                f"{row.paper / paper_all_white:.2f}" if isinstance(row.paper, float) and paper_all_white else "–",
            )
        )
    columns = (
        *("rule", "L", "balls", "model", "parameters", "MSE", "MSE / floor", "colour accuracy", "position IoU"),
        *("seeds", "steps", f"steps to {LEARNED}", "paper's MSE", "paper's / floor"),
    )
    return Table(f"Long-context reasoning, scale {scale}", columns, lines, _notes(rows))


def draw_rows(rows: Sequence[Row], folder: Path) -> list[Path]:
    """Bars over L and over the number of balls, as in the paper's figure 6, error over time, and plateaus."""
    drawn = []
    for rule, num_frames, balls in _distinct(rows, "rule", "num_frames", "balls"):
        part = [row for row in rows if _has_setting(row, rule=rule, num_frames=num_frames, balls=balls)]
        if len({row.setting["length"] for row in part}) > 1:
            path = folder / f"{rule}-T{num_frames}-{balls}-balls-over-length.png"
            title = f"{rule} colour, T = {num_frames}, {balls} balls"
            _write_bars(part, "length", "sequence length L", title, path)
            drawn.append(path)
    for rule, num_frames, length in _distinct(rows, "rule", "num_frames", "length"):
        part = [row for row in rows if _has_setting(row, rule=rule, num_frames=num_frames, length=length)]
        if len({row.setting["balls"] for row in part}) > 1:
            path = folder / f"{rule}-T{num_frames}-L{length}-over-balls.png"
            _write_bars(part, "balls", "balls", f"{rule} colour, T = {num_frames}, L = {length}", path)
            drawn.append(path)
    timed = _over_inference(rows)
    if timed:
        path = folder / "error-over-inference.png"
        title = "error over time, from the shortest to the longest sequences"
        x_label, y_label = "inference of one episode, ms", "MSE / all white, mean over settings"
        write_lines(timed, path, title, x_label, y_label, log_x=True, ticks_at_points=False)
        drawn.append(path)
    plateaus = _plateaus(rows)
    if plateaus:
        path = folder / "steps-to-learn.png"
        write_bars(plateaus, path, "plateau", "setting", f"steps until colour accuracy exceeds {LEARNED}")
        drawn.append(path)
    return drawn


def steps_to_learn(record: Record) -> int | None:
    """First validated step at which colour accuracy exceeds `LEARNED`; None if it never does."""
    found = validations(record, "color-accuracy")
    return next((step for step, accuracy in sorted(found.items()) if accuracy > LEARNED), None)


def is_skipped(record: Record) -> bool:
    """Whether a training was not begun, since it would have cost too much."""
    return str(record["failed"]).startswith("skipped")


def _by_balls(record: Record) -> list[Record]:
    """A record for each number of balls that a record has tests of; the record itself if it has none."""
    setting = record["setting"]
    if isinstance(setting["balls"], int):
        return [record]
    parts = []
    for balls in map(int, setting["balls"].split()):
        ending = f"@{balls}-balls"
        found = {name: value for name, value in record["values"].items() if name.endswith(ending)}
        results = [each for each in record.get("results", ()) if each["convention"] == ending[1:]]
        parts.append(
            {
                **record,
                "setting": {**setting, "balls": balls},
                "values": {name.removesuffix(ending): value for name, value in found.items()},
                "results": [{name: x for name, x in each.items() if name != "convention"} for each in results],
            }
        )
    return parts


def _order(row: Row) -> tuple[str, int, int, int, int]:
    setting = row.setting
    return (
        str(setting["rule"]),
        int(setting["num_frames"]),
        int(setting["balls"]),
        int(setting["length"]),
        COMPARED.index(row.model),
    )


def _distinct(rows: Sequence[Row], *names: str) -> list[tuple[int | str, ...]]:
    """Combinations of values of a setting that occur, in the order of the rows."""
    return list(dict.fromkeys(tuple(row.setting[name] for name in names) for row in rows))


def _has_setting(row: Row, **setting: int | str) -> bool:
    return all(row.setting[name] == value for name, value in setting.items())


def _write_bars(rows: Sequence[Row], key: str, label: str, title: str, path: Path) -> None:
    bars = [
        Bar(
            group=str(row.setting[key]),
            series=row.model,
            value=row.metrics["mse"].mean,
            error=row.metrics["mse"].error,
            points=tuple(row.metrics["mse"].values.values()),
            baseline=row.metrics["white-floor"].mean,
            missing=_missing(row),
        )
        for row in rows
    ]
    write_bars(bars, path, title, label, "mean squared error", "all white")


def _plateaus(rows: Sequence[Row]) -> list[Bar]:
    """Steps until colours are learned, in each setting in which models start from random weights."""
    bars = []
    for row in _one_of_each(rows):
        if not any("start" in record["config"] for record in row.records):
            steps = [float(found) for found in map(steps_to_learn, row.records) if found is not None]
            group = f"{row.setting['rule']}, L = {row.setting['length']}"
            group += f"\nrate {row.setting['rate']}" if "rate" in row.setting else ""
            # a mean over the seeds that learned would hide those that did not
            value = statistics.fmean(steps) if steps and len(steps) == len(row.records) else None
            bars.append(Bar(group, row.model, value, points=tuple(steps), missing=_missing(row) or "not learned"))
    return bars


def _over_inference(rows: Sequence[Row]) -> list[Curve]:
    """Error relative to the all-white baseline, over the time that a prediction takes, at every length."""
    curves = []
    for model in COMPARED:
        points: dict[int, list[tuple[float, float]]] = {}
        for row in rows:
            mse, white = row.metrics["mse"].mean, row.metrics["white-floor"].mean
            seconds = [record["inference_s"] for record in row.records if "inference_s" in record]
            if row.model == model and mse is not None and white and seconds:
                points.setdefault(int(row.setting["length"]), []).append((1e3 * min(seconds), mse / white))
        means = [tuple(map(statistics.fmean, zip(*points[length], strict=True))) for length in sorted(points)]
        if means:
            curves.append(Curve(model, tuple(x for x, _ in means), tuple(y for _, y in means)))
    return curves


def _one_of_each(rows: Sequence[Row]) -> list[Row]:
    """The rows without those that differ from another only in the number of balls, which is trained together."""
    found: dict[Any, Row] = {}
    for row in rows:
        key = (row.model, *(value for name, value in row.setting.items() if name != "balls"))
        found.setdefault(key, row)
    return list(found.values())


def _missing(row: Row) -> str:
    """Why a row has no value, in the paper's abbreviations."""
    if not row.failed:
        return ""
    reasons = list(row.failed.values())
    if all(map(is_skipped, row.records)):
        return "skipped"
    return "OOM" if all("memory" in reason for reason in reasons) else "NC"


def _learned(row: Row) -> str:
    """The range of steps to learn, and the number of seeds that learned unless all did."""
    steps = [found for found in map(steps_to_learn, row.records) if found is not None]
    return _range(steps) + (f" ({len(steps)} of {len(row.records)})" if 0 < len(steps) < len(row.records) else "")


def _range(values: Sequence[float]) -> str:
    """The smallest and the largest of some values."""
    low, high = (f"{value:,.0f}" for value in (min(values), max(values))) if values else ("–", "–")
    return low if low == high else f"{low} to {high}"


def _paper(setting: Setting, model: str) -> float | str | None:
    return paper_numbers.LONG_CONTEXT.get((str(setting["rule"]), int(setting["length"]), model))


def _notes(rows: Sequence[Row]) -> tuple[str, ...]:
    notes = [
        "MSE: mean squared error of the argmax rendering, RGB in [0, 1], on test data (scale rates: on validation "
        "data); mean ± standard deviation over seeds (ddof = 1), or with one seed the 95 % bootstrap interval over "
        "episodes.",
        "floor: error of the all-white baseline (every ball at its true position, in white) on the same data; "
        "only a model below it has remembered colours.",
        f"paper: read off figure 6, ± {paper_numbers.LONG_CONTEXT_ERROR}; 64 px, four balls, its own data and "
        "training, one seed; "
        "NC not converged, OOM out of memory.",
        f"steps: of the checkpoint that is scored, for this length. steps to {LEARNED}: until colour accuracy on "
        "validation data exceeds it, and how many seeds get there unless all do. Ranges are over seeds.",
    ]
    skipped = [row for row in rows if _missing(row) == "skipped"]
    notes += [
        f"{row.model}, {row.setting['rule']}, L = {row.setting['length']}: {next(iter(row.failed.values()))}."
        for row in _one_of_each(skipped)
    ]
    sizes = {row.model: row.parameters for row in rows if row.parameters}
    if len(sizes) > 1 and "slotssm" in sizes:
        shares = ", ".join(f"{model} {count / sizes['slotssm']:.2f}" for model, count in sizes.items())
        notes.append(f"parameters relative to slotssm: {shares}.")
    notes.append(sizes_note(configs_of(rows)))
    return tuple(filter(None, notes))
