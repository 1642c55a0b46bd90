"""Sweeps: the same run with several seeds and with several values of some of its settings, cell by cell."""

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from slotssm.documents import parse_assignments
from slotssm.errors import InputError
from slotssm.evaluation.catalog import METRICS
from slotssm.experiments.reproductions.cells import Cell, Record, Setting, TrainingCell
from slotssm.experiments.reproductions.comparison import Row, Table, compare
from slotssm.experiments.reproductions.experiment import Choice, Experiment, Scale, check_seeds
from slotssm.experiments.resolve import Request, resolve
from slotssm.plotting import Bar, write_bars

MOST_CELLS = 10_000
"""Largest number of cells of a sweep; more are taken for a mistake."""
_OPENING, _CLOSING = "[{", "]}"


@dataclass(frozen=True)
class Axis:
    """A setting that a sweep varies.

    Attributes:
        key: path of the setting, such as `model.num_slots`.
        values: its values, in order.
    """

    key: str
    values: tuple[Any, ...]


class Sweep(Experiment):
    """One run in every combination of the values of some settings, with every seed.

    Args:
        request: the run; its seed and its assignments of several values are those of the cells.
        seeds: seeds of every combination; empty takes the seed of the run.

    Attributes:
        axes: the settings that vary.
        title: name of the run.
    """

    name: ClassVar[str] = "sweep"
    models: ClassVar[tuple[str, ...]] = ()
    scales: ClassVar[Mapping[str, Scale]] = MappingProxyType({})

    def __init__(self, request: Request, seeds: Sequence[int] = ()) -> None:
        check_seeds(seeds)
        fixed, self.axes = axes_of(request.assignments)
        files = {"config": request.file, "data": request.data}
        named = {name: path and path.name for name, path in files.items()}
        self._base = {"preset": request.preset, **named, "set": sorted(fixed)}
        num_cells = len(seeds) or 1
        for axis in self.axes:
            num_cells *= len(axis.values)
        if num_cells > MOST_CELLS:
            raise InputError(f"`assignments`: a sweep of {num_cells} cells; at most {MOST_CELLS} are possible")
        self._cells = list(self._made(replace(request, assignments=fixed), seeds))
        self.title = self._cells[0].config.name

    def _made(self, request: Request, seeds: Sequence[int]) -> Iterator[TrainingCell]:
        # without a seed, that of the run
        chosen: Sequence[int | None] = list(dict.fromkeys(seeds)) or [None]
        names: set[str] = set()
        for values in itertools.product(*(axis.values for axis in self.axes)):
            varied = {axis.key: value for axis, value in zip(self.axes, values, strict=True)}
            texts = (f"{key}={json.dumps(value)}" for key, value in varied.items())
            assigned = replace(request, assignments=(*request.assignments, *texts))
            config, _ = resolve(assigned)
            for seed in chosen:
                own = config if seed is None else config.replace(seed=seed)
                name = _free_name(_cell_name(varied, own.seed), names)
                setting: Setting = {key: _setting_value(value) for key, value in varied.items()}
                yield TrainingCell(name, own.model.kind, setting, own)

    def cells(self, choice: Choice) -> list[Cell]:
        """One cell for every combination and seed."""
        return list(self._cells)

    def description(self, choice: Choice) -> dict[str, Any]:
        """Name of the run, what it starts from, the settings that do not vary, those that do, and seeds."""
        return {
            "experiment": self.name,
            "run": self.title,
            **self._base,
            "varied": {axis.key: list(axis.values) for axis in self.axes},
            "seeds": list(dict.fromkeys(cell.seed for cell in self._cells)),
        }

    def owns(self, plan: Mapping[str, Any], choice: Choice) -> bool:
        """Whether a plan varies the same settings of the same run; values and seeds may be others."""
        own, varied = self.description(choice), plan.get("varied")
        same = all(plan.get(name) == own[name] for name in ("experiment", "run", *self._base))
        return same and isinstance(varied, dict) and varied.keys() == own["varied"].keys()

    def lengths(self, scale: str) -> list[int]:
        """No sequence lengths."""
        return []

    def rows(self, records: Sequence[Record]) -> list[Row]:
        """One row for every combination, with all metrics that were computed."""
        return compare(records, list(dict.fromkeys(name for record in records for name in record["values"])))

    def table(self, rows: Sequence[Row], choice: Choice) -> Table:
        """The settings that vary, the size, and every metric."""
        keys = [axis.key for axis in self.axes]
        varies_model = len({row.model for row in rows}) > 1 and "model.kind" not in keys
        metrics = list(rows[0].metrics) if rows else []
        lines = [
            (
                *(str(row.setting[key]) for key in keys),
                *([row.model] if varies_model else []),
                f"{row.parameters:,}" if row.parameters else "–",
                *(str(row.metrics[name]) for name in metrics),
                _seeds(row),
            )
            for row in rows
        ]
        columns = (*keys, *(["model"] if varies_model else []), "parameters", *metrics, "seeds")
        return Table(f"Sweep of {self.title}", columns, lines, (_NOTE,))

    def draw(self, rows: Sequence[Row], folder: Path) -> list[Path]:
        """Every metric with a score of its own, over the first setting that varies."""
        if not self.axes or not rows:
            return []
        first, *others = (axis.key for axis in self.axes)
        drawn = []
        for name in (name for name in rows[0].metrics if name in METRICS):
            bars = [
                Bar(
                    group=str(row.setting[first]),
                    series=", ".join(f"{key} {row.setting[key]}" for key in others) or row.model,
                    value=row.metrics[name].mean,
                    error=row.metrics[name].error,
                    points=tuple(row.metrics[name].values.values()),
                    missing="failed" if row.failed else "",
                )
                for row in rows
            ]
            drawn.append(folder / f"{name}.png")
            write_bars(bars, drawn[-1], f"sweep of {self.title}", first, name)
        return drawn


_NOTE = (
    "Mean ± standard deviation over seeds (ddof = 1), or with one seed the 95 % bootstrap interval over test episodes."
)


def axes_of(assignments: Sequence[str]) -> tuple[tuple[str, ...], list[Axis]]:
    """Divide assignments into those of one value, as they are, and those of several values.

    Values are separated by commas outside brackets and quotes, each written as in `parse_assignments`:
    `model.num_slots=4,6` are two values, and `task.encoder_channels=[32,32],[64,64]` are two lists.

    Raises:
        InputError: an assignment is malformed, has an empty or a repeated value, or varies the seed, which
            `seeds` does.
    """
    fixed: list[str] = []
    axes: dict[str, Axis] = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        key, parts = path.strip(), _parts(text)
        if len(parts) < 2 or not equals or not key:
            fixed.append(assignment)
            continue
        if key == "seed":
            raise InputError(f"`assignments` {assignment}: name the seeds of a sweep with `seeds`")
        if key in axes:
            raise InputError(f"`assignments` {assignment}: {key} already has several values")
        if not all(part.strip() for part in parts):
            raise InputError(f"`assignments` {assignment}: a value between two commas is empty")
        values = tuple(_value(key, part.strip()) for part in parts)
        if len({json.dumps(value) for value in values}) < len(values):
            raise InputError(f"`assignments` {assignment}: a value is named twice")
        axes[key] = Axis(key, values)
    for assignment in fixed:
        if assignment.partition("=")[0].strip() in axes:
            raise InputError(f"`assignments` {assignment}: this setting also has several values; leave one out")
    return tuple(fixed), list(axes.values())


def _value(key: str, text: str) -> Any:
    found: Any = parse_assignments([f"{key}={text}"])
    for name in key.split("."):
        found = found[name]
    return found


def _parts(text: str) -> list[str]:
    """The text, divided at commas outside brackets and quotes."""
    parts, depth, quoted, escaped = [""], 0, False, False
    for character in text:
        if quoted:
            quoted, escaped = character != '"' or escaped, character == "\\" and not escaped
        elif character == '"':
            quoted = True
        elif character in _OPENING + _CLOSING:
            depth += 1 if character in _OPENING else -1
        elif character == "," and depth <= 0:
            parts.append("")
            continue
        parts[-1] += character
    return parts


def _setting_value(value: Any) -> int | str:
    return value if isinstance(value, int | str) and not isinstance(value, bool) else json.dumps(value)


def _cell_name(varied: Mapping[str, Any], seed: int) -> str:
    """`num_slots-4-s0`; a key whose last word another key shares is written in full."""
    words = [key.rpartition(".")[2] for key in varied]
    parts = []
    for key, word in zip(varied, words, strict=True):
        shown = key if words.count(word) > 1 else word
        value = varied[key] if isinstance(varied[key], str) else json.dumps(varied[key])
        parts.append(re.sub(r"[^A-Za-z0-9._+-]+", "-", f"{shown}-{value}").strip("-"))
    return "-".join([*parts, f"s{seed}"])


def _free_name(name: str, taken: set[str]) -> str:
    """The name, with a number if it is taken; adds it to `taken`."""
    free = next(
        each
        for each in itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        if each not in taken
    )
    taken.add(free)
    return free


def _seeds(row: Row) -> str:
    scored = max((len(found.values) for found in row.metrics.values()), default=0)
    return f"{scored}" + (f" ({len(row.failed)} failed)" if row.failed else "")


def default_folder(sweep: Sweep) -> Path:
    """Default folder of a sweep: that of its preset or configuration."""
    return Path("sweeps") / sweep.title
