"""Comparison of cells in one table: models in every setting, averaged over seeds, beside the paper's values."""

import csv
import io
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from slotssm.experiments.reproductions.cells import Record, Setting
from slotssm.plotting import Bar, Curve


@dataclass(frozen=True)
class Summary:
    """One metric of one model in one setting.

    Attributes:
        mean: mean over the seeds that have a value; None if none has.
        std: standard deviation over seeds (ddof = 1); None with fewer than two.
        values: value of each seed, or of each run.
        interval: with a single seed, the 95 % bootstrap interval over test episodes; None with several seeds.
    """

    mean: float | None
    std: float | None
    values: dict[int, float] | dict[str, float]
    interval: tuple[float, float] | None

    @property
    def error(self) -> tuple[float, float]:
        """Lengths of the error bar below and above the mean."""
        if self.mean is None:
            return 0.0, 0.0
        if self.std is not None:
            return self.std, self.std
        low, high = self.interval or (self.mean, self.mean)
        return max(0.0, self.mean - low), max(0.0, high - self.mean)

    def __str__(self) -> str:
        if self.mean is None:
            return "–"
        if self.std is not None:
            return f"{self.mean:.4f} ± {self.std:.4f}"
        return f"{self.mean:.4f}" + (f" [{self.interval[0]:.4f}, {self.interval[1]:.4f}]" if self.interval else "")

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "mean": self.mean,
            "std": self.std,
            "values": {str(name): value for name, value in self.values.items()},
            "interval": list(self.interval) if self.interval else None,
        }


def summarize(values: dict[int, float] | dict[str, float], interval: tuple[float, float] | None = None) -> Summary:
    """Mean and standard deviation of the values of several seeds; `interval` is kept for a single one."""
    numbers = list(values.values())
    return Summary(
        mean=statistics.fmean(numbers) if numbers else None,
        std=statistics.stdev(numbers) if len(numbers) > 1 else None,
        values=values,
        interval=interval if len(numbers) == 1 else None,
    )


def numbers_csv(lines: Iterable[tuple[Mapping[str, Any], str, Summary]]) -> str:
    """Summaries as CSV in long form: a line for each, and every number in a column of its own.

    Args:
        lines: what was measured (a column for each name), the metric, and its summary. Values that are missing are
            empty.
    """
    lines = list(lines)
    names = list(dict.fromkeys(name for setting, _, _ in lines for name in setting))
    stream = io.StringIO()
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow([*names, "metric", "mean", "std", "n", "interval_low", "interval_high"])
    for setting, metric, found in lines:
        numbers = (found.mean, found.std, len(found.values), *(found.interval or (None, None)))
        rows.writerow([*(setting.get(name) for name in names), metric, *numbers])
    return stream.getvalue()


@dataclass(frozen=True)
class Row:
    """One model in one setting.

    Attributes:
        model: name of the model.
        setting: the setting in which models are compared.
        parameters: number of parameters of the whole task; None if every seed failed.
        metrics: summary of each metric, by name.
        failed: error of each failed seed.
        paper: the paper's value for the closest setting, a number or `NC` or `OOM`; None if it reports none.
        records: records that the row summarises.
    """

    model: str
    setting: Setting
    parameters: int | None
    metrics: dict[str, Summary]
    failed: dict[int, str]
    paper: float | str | None = None
    records: list[Record] = field(default_factory=list, repr=False)

    def seeds(self, metric: str) -> str:
        """Number of seeds that have a value of a metric, and of those that failed, for a table."""
        return f"{len(self.metrics[metric].values)}" + (f" ({len(self.failed)} failed)" if self.failed else "")

    def bar(self, metric: str, group: str) -> Bar:
        """One metric as a bar of its model, with the values of the seeds as points."""
        found = self.metrics[metric]
        points, missing = tuple(found.values.values()), "NC" if self.failed else ""
        return Bar(group, self.model, found.mean, found.error, points, missing=missing)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "model": self.model,
            "setting": self.setting,
            "parameters": self.parameters,
            "metrics": {name: found.document() for name, found in self.metrics.items()},
            "failed": {str(seed): reason for seed, reason in self.failed.items()},
            "paper": self.paper,
            "cells": [record["cell"] for record in self.records],
        }


def compare(
    records: Sequence[Record],
    metrics: Sequence[str],
    paper: Callable[[Setting, str], float | str | None] = lambda setting, model: None,
) -> list[Row]:
    """Average cells over seeds; rows keep the order of the records."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        groups.setdefault((*sorted(record["setting"].items()), record["model"]), []).append(record)
    return [_row(group, metrics, paper) for group in groups.values()]


def _row(group: list[Record], metrics: Sequence[str], paper: Callable[[Setting, str], float | str | None]) -> Row:
    first = group[0]
    return Row(
        model=first["model"],
        setting=first["setting"],
        parameters=next((record["parameters"] for record in group if record.get("parameters")), None),
        metrics={name: _summary(group, name) for name in metrics},
        failed={record["seed"]: record["failed"] for record in group if record["failed"]},
        paper=paper(first["setting"], first["model"]),
        records=group,
    )


def _name(result: dict[str, Any]) -> str:
    """Name of a result: its metric, for probes the property, and its convention if it has a name."""
    name = f"{result['metric']}/{result['property']}" if "property" in result else str(result["metric"])
    return f"{name}@{result['convention']}" if "convention" in result else name


def _summary(group: list[Record], metric: str) -> Summary:
    values = {record["seed"]: record["values"][metric] for record in group if metric in record["values"]}
    interval = None
    if len(values) == 1:
        scored = [record for record in group if metric in record["values"]]
        results = [result for record in scored for result in record.get("results", ()) if _name(result) == metric]
        found = results[0]["interval"] if results else None
        interval = (found[0], found[1]) if found else None
    return summarize(values, interval)


def rows_csv(rows: Sequence[Row]) -> str:
    """The rows of a comparison as `numbers_csv`, with a line for each setting, model and metric."""
    return numbers_csv(
        ({**row.setting, "model": row.model, "parameters": row.parameters, "failed": len(row.failed)}, name, summary)
        for row in rows
        for name, summary in row.metrics.items()
    )


@dataclass(frozen=True)
class Table:
    """A table of text, with notes.

    Attributes:
        title: one line above the table.
        columns: headings.
        rows: entries as text.
        notes: lines below the table.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """The table as aligned Markdown."""
        widths = [max(len(row[i]) for row in (self.columns, *self.rows)) for i in range(len(self.columns))]

        def line(row: Sequence[str]) -> str:
            return "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"

        ruler = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
        lines = [self.title, "", line(self.columns), ruler, *map(line, self.rows), "", *self.notes]
        return "\n".join(lines).rstrip() + "\n"


def validations(record: Record, metric: str) -> dict[int, float]:
    """A metric on validation data by step."""
    return {line["step"]: line[metric] for line in record.get("validation", ()) if metric in line}


def validation_curve(row: Row, metric: str, name: str) -> Curve:
    """A metric on validation data over the steps that all seeds have, mean and standard deviation over seeds.

    Args:
        row: the cells of one line.
        metric: name of the metric.
        name: name of the curve.
    """
    found = [values for record in row.records if (values := validations(record, metric))]
    steps = sorted(set.intersection(*(set(values) for values in found))) if found else []
    columns = [[values[step] for values in found] for step in steps]
    spread = tuple(map(statistics.stdev, columns)) if len(found) > 1 else ()
    return Curve(name, tuple(map(float, steps)), tuple(map(statistics.fmean, columns)), spread)
