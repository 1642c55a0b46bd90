"""The page of a reproduction: its table with seeds and intervals, figures, missing cells, provenance."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from slotssm.errors import InputError
from slotssm.experiments.reports.command import Command, Speller
from slotssm.experiments.reports.runs import duration
from slotssm.experiments.reproductions.comparison import compare
from slotssm.files import read_json
from slotssm.plotting.charts import Interval, Line, interval_chart, line_chart
from slotssm.plotting.comparisons import series_color
from slotssm.report import Block, Cell, Chart, Charts, Code, Key, Note, Page, Picture, Section, Table, number

RESULT = "result.json"
X_NAME = "length"
"""Setting that is drawn as the horizontal axis if it varies."""
MOST_CHARTS = 16
"""Largest number of charts on a page."""

Row = Mapping[str, Any]
RGB = tuple[int, int, int]


def is_reproduction(folder: Path) -> bool:
    """Whether a folder was made by `reproduce`."""
    return (folder / RESULT).is_file() or any((folder / "cells").glob("*.json"))


def read_result(folder: Path) -> dict[str, Any]:
    """The compiled result of a reproduction, or one made from its cells while the others are still being measured.

    Raises:
        InputError: a file is damaged.
    """
    if (folder / RESULT).is_file():
        found = read_json(folder / RESULT)
        if not isinstance(found, dict) or not isinstance(found.get("rows"), list):
            raise InputError(f"{folder / RESULT} is damaged: it has no rows")
        return found
    records = [read_json(path) for path in sorted((folder / "cells").glob("*.json"))]
    try:
        names = dict.fromkeys(name for record in records for name in record["values"])
        rows = [row.document() for row in compare(records, list(names))]
        return {"rows": rows, "provenance": {record["cell"]: record for record in records}, "compiled": False}
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder / 'cells'} has a damaged record: {error}") from None


def reproduction_page(folder: Path, spell: Speller) -> tuple[Page, dict[str, Any]]:
    """The page, without the pictures of the folder, and what it shows as JSON.

    Args:
        folder: folder of a reproduction.
        spell: writes commands.

    Raises:
        InputError: a file is damaged.
    """
    result = read_result(folder)
    try:
        return _page(folder, result, spell)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"{folder / RESULT} is damaged: {type(error).__name__}: {error}") from None


def _page(folder: Path, result: dict[str, Any], spell: Speller) -> tuple[Page, dict[str, Any]]:
    rows: list[Row] = result["rows"]
    missing = [str(name) for name in result.get("missing", ())]
    failed = {f"{row['model']}, {_setting(row['setting'])}": row["failed"] for row in rows if row["failed"]}
    experiment, scale = str(result.get("experiment", folder.resolve().name)), str(result.get("scale", ""))
    num_cells = sum(len(row["cells"]) for row in rows)
    summary = [
        ("scale", scale or "–"),
        ("models", ", ".join(dict.fromkeys(str(row["model"]) for row in rows))),
        ("cells", f"{num_cells:,}" + (f" of {num_cells + len(missing):,}" if missing else "")),
        ("slotssm", str(result.get("slotssm", "–"))),
    ]
    common = _common(rows)
    if common:
        summary.insert(1, ("setting", _setting(common)))
    table: list[Block] = [_table(rows)]
    table += [Note(str(text)) for text in result.get("notes", ())]
    sections = [Section("Results", table), Section("Figures", _charts(rows))]
    absent = _absent(missing, failed, result)
    if absent:
        sections.insert(0, Section("Missing and failed", absent))
    if missing:
        # below what there is, since there may be many
        sections.append(Section("Missing cells", [Table(("cell",), [[Cell(name)] for name in missing])]))
    sections.append(Section("Provenance", [_provenance(result.get("provenance") or {})]))
    if "experiment" in result:
        again = Command("reproduce", (experiment,), {"scale": scale, "out": str(folder)}, "measures what is missing")
        sections.append(Section("Commands", [Code(spell(again) + "\n")]))
    page = Page(
        f"Reproduction: {experiment}" + (f", scale {scale}" if scale else ""), "reproduction", summary, sections
    )
    document = {"num_rows": len(rows), "num_cells": num_cells, "missing": missing, "failed": list(failed)}
    return page, document


def _absent(missing: Sequence[str], failed: Mapping[str, Mapping[str, str]], result: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = []
    if not result.get("compiled", True):
        blocks.append(
            Note("The reproduction is not compiled yet; cells that are still to be measured are unknown.", True)
        )
    if missing:
        are = "cell is" if len(missing) == 1 else "cells are"
        blocks.append(
            Note(f"{len(missing)} {are} not measured yet; their names are below the figures.", important=True)
        )
    if failed:
        rows = [
            [Cell(name), Cell(str(seed)), Cell(str(why))] for name, by in failed.items() for seed, why in by.items()
        ]
        blocks.append(Table(("model and setting", "seed", "why it failed"), rows, "Failed cells"))
    return blocks


def _common(rows: Sequence[Row]) -> dict[str, Any]:
    """What all rows have in common, which the table need not repeat."""
    first = rows[0]["setting"] if rows else {}
    is_common = {name: all(row["setting"].get(name) == value for row in rows) for name, value in first.items()}
    return {name: value for name, value in first.items() if is_common[name]}


def _setting(setting: Mapping[str, Any]) -> str:
    return ", ".join(_named(name, value) for name, value in setting.items() if value is not None)


def _varying(rows: Sequence[Row]) -> list[str]:
    """Settings, of which a row need not have all, in which rows differ."""
    names = dict.fromkeys(name for row in rows for name in row["setting"])
    return [name for name in names if len({str(row["setting"].get(name)) for row in rows}) > 1]


def _named(name: str, value: Any) -> str:
    return (
        str(value)
        if isinstance(value, str)
        else f"{name.removesuffix('_px')} {value}{' px' if name.endswith('_px') else ''}"
    )


def _color(model: Any) -> RGB:
    red, green, blue = (round(255 * part) for part in series_color(str(model)))
    return red, green, blue


def _metrics(rows: Iterable[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row["metrics"]))


def _table(rows: Sequence[Row]) -> Table:
    settings = _varying(rows)
    metrics = _metrics(rows)
    has_paper = any(row.get("paper") is not None for row in rows)
    shown = []
    for row in rows:
        seeds = {seed for found in row["metrics"].values() for seed in found["values"]}
        cells = [Cell.of(row["setting"].get(name)) for name in settings]
        cells += [Cell(str(row["model"]), color=_color(row["model"])), Cell.of(row["parameters"])]
        cells += [_summary(row["metrics"].get(name)) for name in metrics]
        cells.append(Cell(str(len(seeds)) + (f", {len(row['failed'])} failed" if row["failed"] else ""), len(seeds)))
        shown.append(cells + ([Cell.of(row.get("paper"))] if has_paper else []))
    columns = (*settings, "model", "parameters", *metrics, "seeds", *(("paper",) if has_paper else ()))
    return Table(columns, shown)


def _summary(found: Mapping[str, Any] | None) -> Cell:
    """A value with its spread, sorted by the value."""
    if found is None or found["mean"] is None:
        return Cell("–")
    seeds = "; ".join(f"seed {seed}: {value}" for seed, value in found["values"].items())
    text = number(found["mean"])
    if found["std"] is not None:
        text += f" ± {found['std']:.2g}"
    elif found["interval"]:
        text += f" [{number(found['interval'][0])}, {number(found['interval'][1])}]"
    return Cell(text, found["mean"], hint=f"{found['mean']}; {seeds}")


# --- charts -----------------------------------------------------------------------------------------------


def _charts(rows: Sequence[Row]) -> list[Block]:
    lengths = {row["setting"].get(X_NAME) for row in rows}
    if len(lengths) > 2 and None not in lengths:
        charts, caption = _over_lengths(rows)
    else:
        charts, caption = _by_setting(rows)
    if not charts:
        return [Note("There is nothing to draw yet.", important=True)]
    keys = [Key(model, _color(model)) for model in dict.fromkeys(str(row["model"]) for row in rows)]
    blocks: list[Block] = [Charts(charts[:MOST_CHARTS], keys, caption)]
    if len(charts) > MOST_CHARTS:
        blocks.append(Note(f"{len(charts) - MOST_CHARTS} more charts are left out; the table has all values."))
    return blocks


def _over_lengths(rows: Sequence[Row]) -> tuple[list[Chart], str]:
    """One chart for each metric and each further setting, over the sequence length."""
    varying = [name for name in _varying(rows) if name != X_NAME]
    charts = []
    for metric in _metrics(rows):
        for facet in dict.fromkeys(tuple(row["setting"].get(name) for name in varying) for row in rows):
            inside = [row for row in rows if tuple(row["setting"].get(name) for name in varying) == facet]
            lines = [_length_line([row for row in inside if row["model"] == m], metric) for m in _models(inside)]
            drawn = [line for line in lines if line is not None]
            if not any(len(line.x) > 1 for line in drawn):
                continue
            where = _setting(dict(zip(varying, facet, strict=True)))
            values = [value for line in drawn for value in line.y]
            log_y = min(values) > 0 and max(values) > 10 * min(values)
            title = f"{metric}, {where}" if where else metric
            charts.append(Chart(title, line_chart(drawn, "sequence length L", log_x=True, log_y=log_y)))
    caption = "Mean over seeds; band: ± standard deviation over seeds, or the 95 % interval over episodes of one seed."
    return charts, caption


def _models(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["model"] for row in rows))


def _length_line(rows: Sequence[Row], metric: str) -> Line | None:
    known = [row for row in rows if (row["metrics"].get(metric) or {}).get("mean") is not None]
    if not known:
        return None
    known = sorted(known, key=lambda row: float(row["setting"][X_NAME]))
    values = [row["metrics"][metric]["mean"] for row in known]
    errors = [_error(row["metrics"][metric]) for row in known]
    band = any(below or above for below, above in errors)
    return Line(
        tuple(float(row["setting"][X_NAME]) for row in known),
        tuple(values),
        _color(known[0]["model"]),
        tuple(v - e[0] for v, e in zip(values, errors, strict=True)) if band else (),
        tuple(v + e[1] for v, e in zip(values, errors, strict=True)) if band else (),
        "dotted",
    )


def _by_setting(rows: Sequence[Row]) -> tuple[list[Chart], str]:
    """One chart for each metric: a row for each setting and model."""
    varying = _varying(rows)
    charts = []
    for metric in _metrics(rows):
        known = [row for row in rows if (row["metrics"].get(metric) or {}).get("mean") is not None]
        if not known:
            continue
        intervals, labels = [], []
        for row in known:
            found = row["metrics"][metric]
            points = tuple(value for value in found["values"].values() if value is not None)
            intervals.append(Interval(found["mean"], _color(row["model"]), _error(found), points))
            where = _setting({name: row["setting"].get(name) for name in varying})
            labels.append(Key(f"{where}: {row['model']}" if where else str(row["model"]), _color(row["model"])))
        charts.append(Chart(metric, interval_chart(intervals), labels))
    caption = (
        "Large point: mean over seeds; bar: ± standard deviation over seeds (ddof = 1), or the 95 % interval over "
        "episodes of one seed; small points: seeds."
    )
    return charts, caption


def _error(found: Mapping[str, Any]) -> tuple[float, float]:
    """Lengths of the interval below and above the mean."""
    mean, std, interval = found["mean"], found["std"], found["interval"]
    if std is not None:
        return std, std
    low, high = interval or (mean, mean)
    return max(0.0, mean - low), max(0.0, high - mean)


# --- pictures and provenance ------------------------------------------------------------------------------


def pictures_of(folder: Path, budget_bytes: int) -> tuple[list[Picture], int]:
    """Pictures that the reproduction drew, as far as they fit, and the number of those that are left out."""
    found: list[Picture] = []
    left_out = 0
    for path in sorted((folder / "figures").glob("*.png")):
        picture = Picture(path.read_bytes(), path.stem)
        budget_bytes -= len(picture.uri)
        if budget_bytes < 0:
            left_out += 1
        else:
            found.append(picture)
    return found, left_out


def _provenance(cells: Mapping[str, Mapping[str, Any]]) -> Block:
    rows = []
    for name, facts in cells.items():
        machine, versions = facts.get("machine") or {}, facts.get("versions") or {}
        rows.append(
            [
                Cell(str(name)),
                Cell(f"{machine.get('gpu') or machine.get('cpu', '–')}, {machine.get('threads', '–')} threads"),
                Cell(str(versions.get("torch") or machine.get("torch", "–"))),
                Cell(str(versions.get("slotssm", "–"))),
                Cell(str(facts.get("git_commit") or "–")[:12], hint=str(facts.get("git_commit") or "")),
                Cell(str(facts.get("data_sha256") or "–")[:12], hint=str(facts.get("data_sha256") or "")),
                Cell(duration(facts.get("training_s")), facts.get("training_s")),
            ]
        )
    columns = ("cell", "machine", "torch", "slotssm", "git commit", "data sha256", "training time")
    return Table(columns, rows, f"Origin of {len(rows)} cells", folded=len(rows) > 12)
