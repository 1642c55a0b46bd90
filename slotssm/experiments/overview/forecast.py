"""Forecast of the cost of a reproduction: a few steps are timed on this machine and extrapolated."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slotssm.config import RecipeData
from slotssm.experiments.datasets import own_data_path, spec_of
from slotssm.experiments.measurement.cost import RunCost, cost_of_run
from slotssm.experiments.reproductions.cells import Cell, TrainingCell, read_record
from slotssm.training.run import RunDirectory


@dataclass(frozen=True)
class CellForecast:
    """Expected cost of one cell.

    Attributes:
        name: name of the cell.
        done: whether it is recorded already.
        num_steps: optimiser steps.
        parameters: number of parameters of the task.
        seconds: training time on this machine when it is otherwise idle.
        may_end_early: whether the training ends sooner once a metric has stopped improving.
        disk_bytes: size of the checkpoints.
    """

    name: str
    done: bool
    num_steps: int
    parameters: int
    seconds: float
    may_end_early: bool
    disk_bytes: int


@dataclass(frozen=True)
class Forecast:
    """Expected cost of a reproduction.

    Attributes:
        cells: cost of each cell.
        data_bytes: size of the data sets that have yet to be generated.
    """

    cells: list[CellForecast]
    data_bytes: int

    @property
    def seconds(self) -> float:
        """Training time of all cells that are not done."""
        return sum(cell.seconds for cell in self.cells if not cell.done)

    @property
    def may_end_early(self) -> bool:
        """Whether some of these cells may take less."""
        return any(cell.may_end_early for cell in self.cells if not cell.done)

    @property
    def disk_bytes(self) -> int:
        """Size of data and checkpoints that have yet to be written."""
        return self.data_bytes + sum(cell.disk_bytes for cell in self.cells if not cell.done)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        cells = [asdict(cell) for cell in self.cells]
        return {"dry_run": True, "cells": cells, "seconds": self.seconds, "disk_bytes": self.disk_bytes}


def forecast(
    cells: Sequence[Cell], folder: Path, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> Forecast:
    """Time a small batch of every kind of cell and extrapolate.

    Args:
        cells: cells that would be run.
        folder: folder of the reproduction.
        on_progress: called with the numbers of cells examined and in total.
    """
    known: dict[str, RunCost] = {}
    data: dict[Path, int] = {}
    found = []
    every = _with_prerequisites(cells, folder)
    for index, cell in enumerate(every):
        on_progress(index, len(every))
        record = read_record(cell, folder)
        if record is not None or not isinstance(cell, TrainingCell):
            steps = cell.config.train.num_steps if isinstance(cell, TrainingCell) else 0
            parameters = record.get("parameters", 0) if record else 0
            found.append(CellForecast(cell.name, record is not None, steps, parameters, 0.0, False, 0))
            continue
        config, path = cell.config, own_data_path(cell.config, folder / "data")
        key = config.replace(seed=0, name="trial").model_dump_json()
        if key not in known:
            known[key] = cost_of_run(config, spec_of(config.data), path)
        cost = known[key]
        data[path] = cost.data_bytes
        if isinstance(config.data, RecipeData):
            size = path.stat().st_size if path.exists() else cost.data_bytes
            an_episode = size / sum(config.data.num_episodes.values())
            for test in cell.tests.values():
                file = own_data_path(config.replace(data=test), folder / "data")
                data[file] = 0 if file.exists() else round(an_episode * sum(test.num_episodes.values()))
        steps = config.train.num_steps
        expected = (cost.seconds, cost.may_end_early, cost.checkpoint_bytes)
        found.append(CellForecast(cell.name, False, steps, cost.parameters, *expected))
    on_progress(len(every), len(every))
    return Forecast(found, sum(data.values()))


def _with_prerequisites(cells: Sequence[Cell], folder: Path) -> list[Cell]:
    """The cells, each preceded by the untrained cells that it starts from."""
    found: dict[str, Cell] = {}
    for cell in cells:
        starts: list[Cell] = []
        start = cell.start if isinstance(cell, TrainingCell) else None
        while start is not None and not RunDirectory(folder / "runs" / start.name).is_complete():
            starts.append(start)
            start = start.start
        if read_record(cell, folder) is not None:
            starts = []
        for each in (*reversed(starts), cell):
            found.setdefault(each.name, each)
    return list(found.values())
