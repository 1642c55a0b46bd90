"""Progress of a reproduction or a sweep, read from its folder while any number of processes work there."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from slotssm.errors import InputError
from slotssm.experiments.execution.jobs import last_line, log_path
from slotssm.experiments.overview.listing import RunState, state_of
from slotssm.experiments.reproductions.cells import cell_lock, read_plan
from slotssm.files import is_held, read_json
from slotssm.training.run import RunDirectory

STATES = ("done", "failed", "running", "stopped", "waiting", "damaged")
"""States of a cell: `running` while a process generates its data, trains or scores it, `stopped` if it has begun and
nobody works on it, `waiting` if it has not begun."""


@dataclass(frozen=True)
class CellProgress:
    """Progress of one cell.

    Attributes:
        name: name of the cell.
        state: one of `STATES`.
        reason: why it failed, or what is damaged; empty otherwise.
        log: the last line of its log; empty if it has none, as outside a job.
        step: steps taken, as far as they are logged.
        num_steps: steps in total; None if the cell has not begun.
        latest: the last line of metrics.jsonl of a cell that has begun and is not done.
        seconds_left: time that the remaining steps take at the speed of the last ones; None if it is not running.
    """

    name: str
    state: str
    reason: str = ""
    log: str = ""
    step: int = 0
    num_steps: int | None = None
    latest: dict[str, Any] | None = None
    seconds_left: float | None = None


@dataclass(frozen=True)
class Progress:
    """Progress of a reproduction or a sweep.

    Attributes:
        folder: its folder.
        description: what is compared, as plan.json says.
        cells: progress of every cell, in the order of the plan.
    """

    folder: Path
    description: Mapping[str, Any]
    cells: list[CellProgress] = field(repr=False)

    @property
    def counts(self) -> dict[str, int]:
        """Number of cells in each state."""
        return {state: sum(cell.state == state for cell in self.cells) for state in STATES}

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "folder": str(self.folder),
            **self.description,
            "counts": self.counts,
            "cells": [asdict(cell) for cell in self.cells],
        }


def progress_of(folder: Path) -> Progress:
    """Progress of every cell in a folder.

    Without a plan, as in a copy of the records, the cells are those that have begun and those that result.json misses.

    Raises:
        InputError: the folder does not belong to a reproduction or a sweep.
    """
    plan = read_plan(folder)
    result = _document(folder / "result.json")
    begun = [path.stem for path in sorted((folder / "cells").glob("*.json"))]
    begun += [path.name for path in sorted((folder / "runs").glob("*")) if RunDirectory(path).record.exists()]
    names = list(dict.fromkeys([*plan.get("cells", ()), *begun, *result.get("missing", ())]))
    if not names:
        raise InputError(f"{folder} is not the folder of a reproduction or a sweep: it has no plan and no cells")
    head = plan or {name: result[name] for name in ("experiment", "scale") if name in result}
    description = {name: value for name, value in head.items() if name != "cells"}
    return Progress(folder, description, [_cell_progress(folder, name) for name in names])


def _cell_progress(folder: Path, name: str) -> CellProgress:
    held, (log, has_failed) = is_held(cell_lock(folder, name)), last_line(log_path(folder, name))
    record = folder / "cells" / f"{name}.json"
    # the record of a cell that is measured again says how the last attempt ended
    if record.exists() and not held:
        try:
            found = read_json(record)
            failed = found["failed"]
        except (InputError, KeyError, TypeError) as error:
            return CellProgress(name, "damaged", f"{record}: {error}", log)
        return CellProgress(name, "failed" if failed else "done", failed or "", log)
    crash = log if has_failed and not held else ""
    run = RunDirectory(folder / "runs" / name)
    if not run.record.exists():
        return CellProgress(name, "running" if held else "failed" if crash else "waiting", crash, log)
    state = state_of(run)
    if state.name == "damaged":
        return CellProgress(name, "damaged", state.reason, log)
    shown = "running" if held or state.is_held else "failed" if crash else "stopped"
    return CellProgress(name, shown, crash, log, state.step, state.num_steps, state.latest, _seconds_left(state))


def _seconds_left(state: RunState) -> float | None:
    if not state.is_held or not state.steps_per_s or state.num_steps is None:
        return None
    return (state.num_steps - state.step) / state.steps_per_s


def _document(path: Path) -> dict[str, Any]:
    """A JSON object; empty if the file is missing or damaged."""
    try:
        found = read_json(path)
    except InputError:
        return {}
    return found if isinstance(found, dict) else {}
