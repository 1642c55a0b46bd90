"""Run a reproduction: measure missing cells, then write the table, the figures and their provenance."""

import json
import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from slotssm import __version__
from slotssm.errors import BusyError, InputError, Interrupted
from slotssm.experiments.reproductions.cells import (
    FOLDER_WAIT_S,
    Cell,
    ProgressCallbacks,
    Record,
    folder_lock,
    picture_path,
    read_plan,
    read_record,
    run_cell,
    write_plan,
)
from slotssm.experiments.reproductions.comparison import Row, Table, rows_csv
from slotssm.experiments.reproductions.experiment import Choice, Experiment
from slotssm.files import exclusive, make_folder, write_json, write_text
from slotssm.interrupts import stop_requests
from slotssm.plotting import label_rows, model_name, read_picture, write_page


@dataclass(frozen=True)
class Reproduction:
    """Result of `reproduce`.

    Attributes:
        folder: folder of the reproduction.
        table: the comparison.
        rows: rows of the table, with the values of every seed.
        files: files written: table.txt, table.csv, result.json and figures.
        num_done: number of recorded cells.
        missing: names of cells that are not recorded; other processes may be measuring them.
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


def default_folder(name: str, choice: Choice) -> Path:
    """Default folder of a reproduction."""
    return Path("reproductions") / f"{name}-{choice.scale}"


def chosen_cells(experiment: Experiment, choice: Choice, names: Sequence[str]) -> list[Cell]:
    """The cells to run: all that are selected, or only the named ones among them."""
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
    """Run cells that are not recorded yet, then compare all recorded cells.

    Args:
        experiment: the experiment.
        choice: selected part of the experiment.
        folder: folder for cells, table and figures.
        cells: cells to run now.
        device: `auto`, `cpu`, ...
        callbacks_for: returns the progress callbacks of a cell, given its index, the number of cells, and the cell.
        on_note: called with messages for the user.
        retry_failed: run failed cells again, for example those that ran out of memory.

    Raises:
        Interrupted: a signal arrived; the same call continues.
    """
    if cells:
        lay_out(experiment, choice, folder)
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
                on_note(f"{cell.name}: another process is measuring it; continuing with the next")
                continue
            if record["failed"]:
                on_note(f"{cell.name}: {record['failed']}")
    return compile_result(experiment, choice, folder)


def lay_out(experiment: Experiment, choice: Choice, folder: Path) -> None:
    """Make the folder of a reproduction, with the plan of its cells.

    Raises:
        InputError: the folder has the cells of another comparison.
    """
    plan = read_plan(folder)
    if plan and not experiment.owns(plan, choice):
        known = {name: value for name, value in plan.items() if name != "cells"}
        raise InputError(f"{folder} holds another comparison ({json.dumps(known)}); choose another `out`")
    make_folder(folder)
    write_plan(folder, experiment.description(choice), [cell.name for cell in experiment.cells(choice)])


def to_do(cells: Sequence[Cell], folder: Path, retry_failed: bool = False) -> list[Cell]:
    """The cells that have no record yet, or with `retry_failed` one that says that they failed."""
    records = {cell.name: read_record(cell, folder) for cell in cells}
    return [cell for cell in cells if (done := records[cell.name]) is None or (retry_failed and bool(done["failed"]))]


def compile_result(experiment: Experiment, choice: Choice, folder: Path) -> Reproduction:
    """Table and figures from the recorded cells, written beside them."""
    # one process after the other, so that the last one writes the records of all
    with exclusive(folder_lock(folder), FOLDER_WAIT_S) if folder.is_dir() else nullcontext():
        return _compiled(experiment, choice, folder)


def _compiled(experiment: Experiment, choice: Choice, folder: Path) -> Reproduction:
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
        write_text(files[1], rows_csv(rows))
        drawn = experiment.draw(rows, folder / "figures")
        drawn += _draw_example_pictures(cells, folder)
        files += [*drawn, *(path.with_suffix(".pdf") for path in drawn)]
        result = {
            **experiment.description(choice),
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
    """Example predictions of every model (its first seed) for the same test episodes, one figure per setting."""
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
            rows = [("truth", truth), *((model_name(model), prediction) for model, (_, prediction) in halves.items())]
            drawn.append(folder / "figures" / _examples_name([value for _, value in setting]))
            page = label_rows(rows)
            write_page(page, drawn[-1])
            write_page(page, drawn[-1].with_suffix(".pdf"))
    return drawn


def _examples_name(setting: Sequence[int | str]) -> str:
    """`20-2-examples.png`; characters that do not belong in a file name become dashes."""
    words = (re.sub(r"[^A-Za-z0-9._+-]+", "-", str(value)).strip("-") for value in setting)
    return "-".join([*words, "examples.png"])
