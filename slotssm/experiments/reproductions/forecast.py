"""Forecast of the cost of a reproduction: a few steps are timed on this machine and extrapolated."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from generators.writer import generate
from slotssm.config import FileData, RunConfig
from slotssm.data.clips import Clips
from slotssm.data.loader import Loader
from slotssm.experiments.datasets import own_data_path, spec_of
from slotssm.experiments.reproductions.cells import Cell, TrainingCell, read_record
from slotssm.tasks import Task, build_task
from slotssm.training.run import RunDirectory

SAMPLE_EPISODES = 4
"""Episodes of the trial batch and of the trial data set."""
BYTES_A_PARAMETER = 3 * 4 * 3
"""Disk space per parameter: weights and two Adam moments in float32, in three checkpoints (one being written)."""


@dataclass(frozen=True)
class CellForecast:
    """Expected cost of one cell.

    Attributes:
        name: name of the cell.
        done: whether it is recorded already.
        num_steps: optimiser steps.
        parameters: number of parameters of the task.
        seconds: training time on this machine when it is otherwise idle.
        disk_bytes: size of the checkpoints.
    """

    name: str
    done: bool
    num_steps: int
    parameters: int
    seconds: float
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
    known: dict[str, tuple[float, int]] = {}
    data: dict[Path, int] = {}
    found = []
    every = _with_prerequisites(cells, folder)
    with tempfile.TemporaryDirectory() as place:
        for index, cell in enumerate(every):
            on_progress(index, len(every))
            record = read_record(cell, folder)
            if record is not None or not isinstance(cell, TrainingCell):
                steps = cell.config.train.num_steps if isinstance(cell, TrainingCell) else 0
                parameters = record.get("parameters", 0) if record else 0
                found.append(CellForecast(cell.name, record is not None, steps, parameters, 0.0, 0))
                continue
            config = cell.config
            key = config.replace(seed=0, name="trial").model_dump_json()
            if key not in known:
                known[key] = _measure(config, Path(place), data, folder)
            seconds, parameters = known[key]
            found.append(
                CellForecast(
                    cell.name, False, config.train.num_steps, parameters, seconds, parameters * BYTES_A_PARAMETER
                )
            )
        on_progress(len(every), len(every))
    return Forecast(found, sum(size for path, size in data.items() if not path.exists()))


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


def _measure(config: RunConfig, place: Path, data: dict[Path, int], folder: Path) -> tuple[float, int]:
    """Seconds of training, and number of parameters; adds the size of the data set to `data`."""
    path = own_data_path(config, folder / "data")
    if not isinstance(config.data, FileData):
        trial = config.data.replace(num_train=SAMPLE_EPISODES, num_val=0, num_test=0)
        sample = place / "trial.h5"
        generate(trial, sample, force=True)
        data[path] = sample.stat().st_size * sum(config.data.num_episodes.values()) // SAMPLE_EPISODES
        path = sample
    train = config.train
    task = build_task(config, spec_of(config.data)).train()
    clips = Clips(train.clips, train.clip_len, train.clip_stride) if train.clip_len else Clips()
    seconds, scale = 0.0, train.batch_size / SAMPLE_EPISODES
    with Loader(path, "train", task.fields, batch_size=SAMPLE_EPISODES, clips=clips, seed=0) as loader:
        for first, last in task.stages(train.num_steps):
            task.begin_step(first)
            seconds += (last - first) * scale * _seconds_a_step(task, loader)
    return seconds, sum(parameter.numel() for parameter in task.parameters())


def _seconds_a_step(task: Task, loader: Loader) -> float:
    best = float("inf")
    for attempt in range(2):  # the first is a warm-up
        began = time.perf_counter()
        loss, _ = task(loader.batch(attempt))
        loss.backward()
        best = min(best, time.perf_counter() - began)
    task.zero_grad()
    return best
