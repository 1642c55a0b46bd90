"""Reproductions by name: run the cells that are missing, then write the table, the figures and what they rest on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from slotssm import __version__
from slotssm.errors import BusyError, InputError, Interrupted
from slotssm.experiments.reproductions.cells import Cell, ProgressCallbacks, Record, picture_path, read_record, run_cell
from slotssm.experiments.reproductions.comparison import Row, Table
from slotssm.experiments.reproductions.efficiency import Efficiency
from slotssm.experiments.reproductions.experiment import Choice, Experiment
from slotssm.experiments.reproductions.long_context import LongContext
from slotssm.experiments.reproductions.object_centric import ObjectCentric
from slotssm.experiments.reproductions.video_prediction import VideoPrediction
from slotssm.files import make_folder, write_json, write_text
from slotssm.interrupts import stop_requests
from slotssm.plotting import label_rows, read_picture, write_animation

EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment for experiment in (LongContext(), VideoPrediction(), ObjectCentric(), Efficiency())
}
"""Names to experiments."""


@dataclass(frozen=True)
class Reproduction:
    """What a call of `reproduce` made or found.

    Attributes:
        folder: where everything lies.
        table: the comparison.
        rows: its rows, with every seed's values.
        files: what was written: table.txt, table.csv, result.json and figures.
        num_done: cells that are recorded.
        missing: cells that are not, by name; others may be at work on them.
    """

    folder: Path
    table: Table
    rows: list[Row] = field(repr=False)
    files: list[Path]
    num_done: int
    missing: list[str]

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "folder": str(self.folder),
            "num_done": self.num_done,
            "missing": self.missing,
            "notes": list(self.table.notes),
            "rows": [row.document() for row in self.rows],
            "files": [str(file) for file in self.files],
        }


def experiment_of(name: str, choice: Choice) -> Experiment:
    """The experiment of that name, which must have what is chosen of it."""
    if name not in EXPERIMENTS:
        raise InputError(f"experiment {name} is unknown; there are {', '.join(EXPERIMENTS)}")
    EXPERIMENTS[name].check(choice)
    return EXPERIMENTS[name]


def default_folder(name: str, choice: Choice) -> Path:
    """Where a reproduction goes unless somebody says otherwise."""
    return Path("reproductions") / f"{name}-{choice.scale}"


def chosen_cells(experiment: Experiment, choice: Choice, names: Sequence[str]) -> list[Cell]:
    """The cells to run: those of the choice, or of it only the named ones."""
    cells = experiment.cells(choice)
    known = {cell.name: cell for cell in cells}
    for name in names:
        if name not in known:
            raise InputError(f"`cell` {name} is unknown; `dry_run` lists the cells, for example {cells[0].name}")
    return [known[name] for name in names] if names else cells


def reproduce(
    experiment: Experiment,
    choice: Choice,
    folder: Path,
    cells: Sequence[Cell],
    device: str = "auto",
    callbacks_for: Callable[[int, int, Cell], ProgressCallbacks] = lambda index, total, cell: ProgressCallbacks(),
    on_note: Callable[[str], None] = lambda text: None,
    retry_failed: bool = False,
) -> Reproduction:
    """Run cells that are not recorded yet, then compare all that are.

    Args:
        experiment: which one.
        choice: what of it is compared.
        folder: where cells, table and figures lie.
        cells: what to run now.
        device: `auto`, `cpu`, ...
        callbacks_for: makes the callbacks of a cell from its index, the number of cells, and the cell.
        on_note: told what a person should know.
        retry_failed: run again what is recorded as failed, such as what did not fit beside another process.

    Raises:
        Interrupted: a signal arrived; the same call continues.
    """
    with stop_requests() as stop:
        for index, cell in enumerate(cells):
            if stop:
                raise Interrupted(f"{stop.signal_name} before {cell.name}; the same command continues")
            done = read_record(cell, folder)
            if done is not None and not (retry_failed and done["failed"]):
                continue
            try:
                record = run_cell(cell, folder, device, callbacks_for(index, len(cells), cell), retry_failed)
            except BusyError:
                on_note(f"{cell.name}: another process is at work on it; going on with the next")
                continue
            if record["failed"]:
                on_note(f"{cell.name}: {record['failed']}")
    return compile_result(experiment, choice, folder)


def compile_result(experiment: Experiment, choice: Choice, folder: Path) -> Reproduction:
    """Table and figures from the recorded cells, written beside them."""
    cells = experiment.cells(choice)
    records = {cell.name: read_record(cell, folder) for cell in cells}
    found: list[Record] = [record for record in records.values() if record is not None]
    rows = experiment.rows(found)
    table = experiment.table(rows, choice)
    missing = [name for name, record in records.items() if record is None]
    files: list[Path] = []
    if found:
        make_folder(folder / "figures")
        files = [folder / "table.txt", folder / "table.csv", folder / "result.json"]
        write_text(files[0], table.text())
        write_text(files[1], table.csv())
        files += experiment.draw(rows, folder / "figures") + _draw_example_pictures(cells, folder)
        result = {
            "experiment": experiment.name,
            "scale": choice.scale,
            "slotssm": __version__,
            "missing": missing,
            "notes": list(table.notes),
            "rows": [row.document() for row in rows],
            "provenance": {record["cell"]: _provenance(record) for record in found},
        }
        write_json(files[2], result)
    return Reproduction(folder, table, rows, files, len(found), missing)


def _provenance(record: Record) -> dict[str, Any]:
    names = ("machine", "versions", "git_commit", "data_sha256", "device", "training_s")
    return {name: record[name] for name in names if name in record}


def _draw_example_pictures(cells: Sequence[Cell], folder: Path) -> list[Path]:
    """What every model (its first seed) makes of the same test episodes, one figure for each setting."""
    drawn: list[Path] = []
    for setting in dict.fromkeys(tuple(cell.setting.items()) for cell in cells):
        first: dict[str, Path] = {}
        for cell in cells:
            path = picture_path(cell, folder)
            if tuple(cell.setting.items()) == setting and path.exists():
                first.setdefault(cell.model, path)
        if first:
            halves = {model: np.split(read_picture(path), 2) for model, path in first.items()}
            truth = next(iter(halves.values()))[0]
            rows = [("truth", truth), *((model, prediction) for model, (_, prediction) in halves.items())]
            drawn.append(folder / "figures" / ("-".join(str(value) for _, value in setting) + "-examples.png"))
            write_animation(label_rows(rows)[None], drawn[-1])
    return drawn
