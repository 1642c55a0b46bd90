"""Cells of a reproduction: one model in one setting with one seed, measured once and recorded.

The folder of a reproduction contains `cells/<cell>.json` (and a picture) for every finished cell, from which tables and
figures are made, the training runs `runs/<cell>/`, and `data/`. An interrupted cell resumes from its last checkpoint;
several processes or machines may work on different cells. A cell may start from the weights of another cell, which is
then trained first.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from slotssm.config import FileData, InitialConfig, RecipeData, RunConfig
from slotssm.data.episodes import EpisodeFile
from slotssm.documents import load
from slotssm.errors import InputError, Interrupted, SlotSSMError
from slotssm.evaluation import Report, Result, ScoringOptions
from slotssm.evaluation.pictures.examples import draw_example_picture
from slotssm.experiments.datasets import ensure_own_data, spec_of
from slotssm.experiments.measurement.provenance import free_memory, machine
from slotssm.experiments.runs import evaluate_run, load_run, resume_run, start_run
from slotssm.files import exclusive, make_folder, read_json, write_json
from slotssm.plotting import write_picture
from slotssm.training.checkpoint import chosen_checkpoint, step_of
from slotssm.training.device import resolve_device
from slotssm.training.run import RunDirectory, read_lines
from slotssm.training.trainer import StepReport

Record = dict[str, Any]
"""The recorded result of a cell, as JSON; see `run_cell`."""
Setting = dict[str, int | str]
"""What the cells of different models in one comparison have in common, such as the sequence length."""

FOLDER_WAIT_S = 600.0
"""How long to wait for other processes that write the plan or the table of the same folder."""


@dataclass(frozen=True)
class ProgressCallbacks:
    """Functions that are called with the progress of a cell.

    Attributes:
        on_generate: called with the numbers of episodes generated and in total.
        on_step: called with a report of every optimiser step.
        on_evaluate: called with the numbers of episodes scored and in total.
    """

    on_generate: Callable[[int, int], None] = lambda done, total: None
    on_step: Callable[[StepReport], None] = lambda report: None
    on_evaluate: Callable[[int, int], None] = lambda done, total: None


class Cell(Protocol):
    """One measurement of an experiment."""

    @property
    def name(self) -> str:
        """File name; unique in its experiment."""

    @property
    def model(self) -> str:
        """Name of the model."""

    @property
    def setting(self) -> Setting:
        """The setting in which models are compared."""

    @property
    def seed(self) -> int:
        """Seed of weights and batches."""

    def fingerprint(self) -> Any:
        """JSON-ready description of everything that determines the result."""

    def agrees(self, recorded: Any) -> bool:
        """Whether a recorded fingerprint describes this cell; missing fields are taken to be at their defaults."""

    def measure(self, folder: Path, device: str, callbacks: ProgressCallbacks) -> Record:
        """Measure; returns `values` and further fields of the record."""


@dataclass(frozen=True)
class TrainingCell:
    """A cell that trains a run and scores it.

    Attributes:
        name: name of the cell.
        model: name of the model.
        setting: the setting in which models are compared.
        config: configuration of the run; its name is that of the data set, which cells share.
        metrics: metrics to compute on the test split.
        start: cell whose scored weights training starts from; None for random weights.
        start_parts: parts of the task whose weights are taken from `start`; empty takes all.
        split: split that is scored, for data without a test split.
        network_probes: properties that are also probed by networks with a hidden layer, as `probe/position@mlp`.
        checkpoint: checkpoint that is scored: `last`, or `best` if the run keeps that.
        tests: data whose splits are scored in place of the run's own, by name; the results are named `mse@<name>`.
    """

    name: str
    model: str
    setting: Setting
    config: RunConfig
    metrics: tuple[str, ...] = ()
    start: "TrainingCell | None" = None
    start_parts: tuple[str, ...] = ()
    split: str = "test"
    network_probes: tuple[str, ...] = ()
    checkpoint: str = "last"
    tests: Mapping[str, RecipeData] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # these are of the run's own data, which `tests` replace
        assert not (self.tests and self.network_probes)

    @property
    def seed(self) -> int:
        """Seed of weights and batches."""
        return self.config.seed

    def fingerprint(self) -> Any:
        """The configuration, that of the cell that it starts from with the parts that it takes, and the tests."""
        own = self.config.model_dump(mode="json")
        if self.tests:
            own["tests"] = {name: data.model_dump(mode="json") for name, data in self.tests.items()}
        if self.start is None:
            return own
        parts = {"start_parts": list(self.start_parts)} if self.start_parts else {}
        return {**own, "start": self.start.fingerprint(), **parts}

    def agrees(self, recorded: Any) -> bool:
        """Whether a recorded fingerprint describes this cell; data files are compared by content, not by path."""
        own = {name: value for name, value in recorded.items() if name not in ("start", "start_parts", "tests")}
        start = recorded.get("start")
        if tuple(recorded.get("start_parts", ())) != self.start_parts:
            return False
        if (start is None) != (self.start is None) or (self.start is not None and not self.start.agrees(start)):
            return False
        try:
            found = load(RunConfig, own, self.name)
            tests = {name: load(RecipeData, data, name) for name, data in recorded.get("tests", {}).items()}
        except InputError:
            return False
        if isinstance(found.data, FileData) and isinstance(self.config.data, FileData):
            found = found.replace(data=found.data.replace(path=self.config.data.path))
        return found == self.config and tests == self.tests

    def train(self, folder: Path, device: str, callbacks: ProgressCallbacks) -> tuple[RunDirectory, Path]:
        """Complete the training of this cell and of the cell that it starts from; returns the run and its data.

        Raises:
            BusyError: another process is training one of them.
        """
        run, config = RunDirectory(folder / "runs" / self.name), self.config
        if self.start is not None:
            before, _ = self.start.train(folder, device, callbacks)
            which = self.start.checkpoint
            weights = before.path if which == "last" else chosen_checkpoint(before.checkpoints, which)
            initial = InitialConfig(run=str(weights), parts=self.start_parts)
            config = config.replace(train=config.train.replace(initial=initial))
        data = ensure_own_data(config, folder / "data", callbacks.on_generate)
        if not run.record.exists():
            start_run(config, spec_of(config.data), data, run, device, callbacks.on_step)
        elif _without_start(run.config()) != _without_start(config):
            raise InputError(f"{run.path} was started with another configuration; remove it, or choose another `out`")
        elif not run.is_complete():
            resume_run(run, device, callbacks.on_step, data)
        return run, data

    def measure(self, folder: Path, device: str, callbacks: ProgressCallbacks) -> Record:
        """Train to the last step and score the test split, or `split`."""
        device = resolve_device(device)
        run, data = self.train(folder, device, callbacks)
        report = self.score(run, data, device, callbacks)
        write_picture(self.draw(run, data, device), picture_path(self, folder))
        made = run.read()
        return {
            "values": report.values(),
            "results": report.document(None)["results"],
            "num_episodes": report.num_episodes,
            "checkpoint_step": step_of(chosen_checkpoint(run.checkpoints, self.checkpoint)),
            "starts_from": self.start.name if self.start else None,
            "parameters": sum(p.numel() for p in load_run(run)[0].parameters()),
            "validation": [line for line in read_lines(run.metrics) if line["split"] == "val"],
            "training_s": round(sum(line.get("seconds", 0.0) for line in read_lines(run.timing)), 1),
            "data_sha256": made["data_sha256"],
            "versions": made["versions"],
            "git_commit": made["git_commit"],
            "device": made["device"],
        }

    def score(self, run: RunDirectory, data: Path, device: str, callbacks: ProgressCallbacks) -> Report:
        """Scores of a complete run; the names of its results are unique."""

        def scored(names: Sequence[str], options: ScoringOptions) -> Report:
            return evaluate_run(run, data, self.split, names, options, device, callbacks.on_evaluate, self.checkpoint)

        if self.tests:
            return self._score_tests(run, data.parent, device, callbacks)
        report = scored(self.metrics, ScoringOptions())
        if not self.network_probes:
            return report
        further = scored(("probe",), ScoringOptions(probe="mlp", properties=self.network_probes))
        named = [replace(result, convention="mlp") for result in further.results]
        return replace(report, results=[*report.results, *named])

    def _score_tests(self, run: RunDirectory, folder: Path, device: str, callbacks: ProgressCallbacks) -> Report:
        """Scores on the data of `tests`, which are kept in `folder`."""
        results: list[Result] = []
        num_episodes = 0
        for name, data in self.tests.items():
            path = ensure_own_data(self.config.replace(data=data), folder, callbacks.on_generate)
            options, told = ScoringOptions(), callbacks.on_evaluate
            report = evaluate_run(run, path, self.split, self.metrics, options, device, told, self.checkpoint)
            results += [replace(result, convention=name) for result in report.results]
            num_episodes += report.num_episodes
        return replace(report, results=results, num_episodes=num_episodes)

    def draw(self, run: RunDirectory, data: Path, device: str) -> np.ndarray:
        """The example picture, uint8 [H, W, 3]: truth in the upper half, prediction in the lower half."""
        with EpisodeFile(data) as truth:
            return draw_example_picture(load_run(run, device, self.checkpoint)[0], truth, self.split)


def record_path(cell: Cell, folder: Path) -> Path:
    """Path of the record of a cell."""
    return folder / "cells" / f"{cell.name}.json"


def cell_lock(folder: Path, name: str) -> Path:
    """The lock file of a cell, held while a process measures it, from its data to its scores."""
    return folder / "cells" / f".{name}.lock"


def folder_lock(folder: Path) -> Path:
    """The lock file of a reproduction, held while its plan or its table is written."""
    return folder / ".lock"


def picture_path(cell: Cell, folder: Path) -> Path:
    """Path of the example picture of a cell, if any: truth in the upper half, prediction in the lower half."""
    return folder / "cells" / f"{cell.name}.png"


def write_plan(folder: Path, description: Mapping[str, Any], names: Sequence[str]) -> None:
    """Write plan.json: what is compared, and the names of all cells, for those who look at the folder meanwhile.

    Cells of earlier calls with another selection stay in it.
    """
    with exclusive(folder_lock(folder), FOLDER_WAIT_S):
        earlier = read_plan(folder)
        cells = list(dict.fromkeys([*earlier.get("cells", ()), *names]))
        plan = {**description, "cells": cells}
        if plan != earlier:
            write_json(folder / "plan.json", plan)


def read_plan(folder: Path) -> dict[str, Any]:
    """The content of plan.json; empty if it is missing or damaged."""
    try:
        found = read_json(folder / "plan.json")
    except InputError:
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("cells"), list) else {}


def read_record(cell: Cell, folder: Path) -> Record | None:
    """The record of a cell; None if it has not been measured yet.

    Raises:
        InputError: the record is damaged, or belongs to a cell of the same name with another configuration.
    """
    path = record_path(cell, folder)
    if not path.exists():
        return None
    record: Record = read_json(path)
    fields = (("config", dict), ("setting", dict), ("values", dict), ("model", str), ("seed", int))
    if not isinstance(record, dict) or any(not isinstance(record.get(name), kind) for name, kind in fields):
        raise InputError(f"{path} is damaged; remove it to measure the cell again")
    if not cell.agrees(record["config"]):
        raise InputError(
            f"{path} was made with another configuration than that of this version of the experiment; "
            "choose another `out`, or remove the file to measure it again"
        )
    return record


def run_cell(cell: Cell, folder: Path, device: str, callbacks: ProgressCallbacks, retry_failed: bool = False) -> Record:
    """Measure a cell and record it, or read its record.

    A run that diverges or does not fit into memory is recorded as failed. When out of memory, the record states how
    much memory was free before, since another process may have used the rest.

    Args:
        cell: cell to measure.
        folder: folder of the reproduction.
        device: device to run on.
        callbacks: called with the progress.
        retry_failed: measure again if the record says that the cell failed.

    Raises:
        BusyError: another process is measuring this cell.
        Interrupted: a signal arrived; the same call continues.
    """
    make_folder(folder / "cells")
    with exclusive(cell_lock(folder, cell.name)):
        # read with the lock held: another process may have measured the cell in the meantime
        done = read_record(cell, folder)
        if done is not None and not (retry_failed and done["failed"]):
            return done
        record = _measured(cell, folder, device, callbacks)
        write_json(record_path(cell, folder), record)
    return record


def _measured(cell: Cell, folder: Path, device: str, callbacks: ProgressCallbacks) -> Record:
    memory = free_memory(device)
    try:
        measured = {"failed": None, **cell.measure(folder, device, callbacks)}
    except Interrupted as stop:
        raise Interrupted(f"{str(stop).split(';')[0]}; the same command continues") from None
    except SlotSSMError as error:
        if error.exit_code != SlotSSMError.exit_code:
            raise
        measured = {"failed": f"not converged: {error}", "values": {}}
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        measured = {"failed": f"out of memory ({memory / 2**30:.1f} GiB were free before)", "values": {}}
    return {
        "cell": cell.name,
        "model": cell.model,
        "setting": cell.setting,
        "seed": cell.seed,
        **measured,
        "machine": machine(),
        "config": cell.fingerprint(),
    }


def _without_start(config: RunConfig) -> RunConfig:
    """The configuration without the path of the run that it starts from, which can be written in several ways."""
    return config.replace(train=config.train.replace(initial=None))


def _is_out_of_memory(error: Exception) -> bool:
    known = ("can't allocate memory", "OutOfMemoryError", "MemoryError")
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in str(error) for words in known)
