"""Start, resume, load and evaluate runs: the operations shared by the command line, the demo and reproductions."""

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slotssm.config import RunConfig
from slotssm.data.contents import known_content_hash
from slotssm.data.episodes import EpisodeFile
from slotssm.data.spec import DataSpec, read_spec
from slotssm.errors import InputError
from slotssm.evaluation import Report, ScoringOptions, Source, TaskSource, evaluate
from slotssm.evaluation.pairing import scores_document
from slotssm.files import exclusive, make_folder, read_json, write_json
from slotssm.tasks import Task, build_task, check_run
from slotssm.training.best import check_metric
from slotssm.training.checkpoint import (
    Description,
    chosen_checkpoint,
    folder_of,
    latest,
    load_parts,
    load_task,
    step_of,
)
from slotssm.training.processes import ALONE, Processes, refuse_unequal
from slotssm.training.run import RunDirectory, read_lines
from slotssm.training.trackers import refuse_absent
from slotssm.training.trainer import StepReport, Trainer


def refuse_used(run: RunDirectory, force: bool) -> None:
    """Refuse a folder that holds anything other than a run, and without `force` one that holds a run."""
    if run.path.exists() and not run.path.is_dir():
        raise InputError(f"{run.path} is a file; choose a folder for `out`")
    if run.is_free():
        return
    if not run.record.exists():
        raise InputError(f"{run.path} exists and is not a run directory; choose another `out`")
    if not force:
        raise InputError(f"{run.path} exists already; `resume` continues it, `force` starts it again")


def check_start(config: RunConfig, spec: DataSpec, data: Path, run: RunDirectory, force: bool) -> None:
    """Refuse what `start_run` would refuse, without writing anything; the data may still have to be made."""
    refuse_used(run, force)
    refuse_absent(config.train.trackers)
    metric, initial = config.train.keep_best, config.train.initial
    if metric and data.exists():
        check_metric(metric, build_task(config, spec), data)
    if initial is not None:
        load_parts(build_task(config, spec), folder_of(Path(initial.run)), initial.parts)


def refuse_incomplete(run: RunDirectory) -> None:
    """Refuse to extend a run whose last step is not saved."""
    if not run.is_complete():
        raise InputError(f"{run.path} is not complete; `resume` continues it, and it can be extended afterwards")


def start_run(
    config: RunConfig,
    spec: DataSpec,
    data: Path,
    run: RunDirectory,
    device: str,
    on_step: Callable[[StepReport], None],
    force: bool = False,
    processes: Processes = ALONE,
) -> dict[str, float]:
    """Train a new run; with `force` it replaces the run in the same directory.

    `processes` train it together, each with the same arguments; the first one writes.

    Returns:
        The last logged values.
    """
    processes.from_first(lambda: refuse_used(run, force))

    def prepared() -> Trainer:
        # the trainer checks configuration, data and device before any file is written or removed
        trainer = Trainer(config, spec, data, run, device, on_step, processes)
        trainer.initialize()
        return trainer

    trainer = processes.together(prepared)
    fingerprint = _content_hash(data, processes)

    def create() -> None:
        make_folder(run.path)
        stack.enter_context(exclusive(run.lock))
        refuse_used(run, force)  # again, since another process may have trained it in the meantime
        run.clear()
        run.create(Description(config, spec), data, fingerprint, trainer.device, processes.size)

    with ExitStack() as stack:
        processes.from_first(create)
        return trainer.train()


def _content_hash(data: Path, processes: Processes) -> str:
    """The content hash of the data, which must be the same in all processes."""
    hashes = processes.gather(processes.first_before_others(lambda: known_content_hash(data)))
    refuse_unequal(hashes, f"the content of {data}")
    return hashes[0]


def resume_run(
    run: RunDirectory,
    device: str,
    on_step: Callable[[StepReport], None],
    data: Path | None = None,
    processes: Processes = ALONE,
) -> dict[str, float]:
    """Continue a run from its last checkpoint.

    Args:
        run: run directory.
        device: `auto`, `cpu`, ...
        on_step: called with a report of every step.
        data: new path of the episode file, if it has moved; its content must be the same.
        processes: the processes that train the run from now on; their number may differ from before.

    Returns:
        The last logged values; empty if the run was complete already.
    """
    processes.from_first(run.read)  # a folder that is no run is left as it is
    with ExitStack() as stack:
        processes.from_first(lambda: stack.enter_context(exclusive(run.lock)))
        if data is None and processes.from_first(run.is_complete):
            return {}
        data = _own_data(run, data, processes)
        description = processes.together(run.description)
        trainer = processes.together(
            lambda: Trainer(description.config, description.spec, data, run, device, on_step, processes)
        )
        trainer.resume()
        return trainer.train()


def extend_run(
    run: RunDirectory,
    num_steps: int,
    device: str,
    on_step: Callable[[StepReport], None],
    data: Path | None = None,
    processes: Processes = ALONE,
) -> dict[str, float]:
    """Train a complete run further.

    The learning rate keeps the value that it had at the end of the schedule. run.json records the new number of steps,
    so that the run is resumed as any other.

    Args:
        run: run directory.
        num_steps: further steps.
        device: `auto`, `cpu`, ...
        on_step: called with a report of every step.
        data: new path of the episode file, if it has moved.
        processes: the processes that train it further.

    Returns:
        The last logged values.

    Raises:
        InputError: the run is not complete.
    """
    data = _own_data(run, data, processes)
    with ExitStack() as stack:
        processes.from_first(lambda: stack.enter_context(exclusive(run.lock)))
        processes.from_first(lambda: refuse_incomplete(run))
        description = processes.together(run.description)
        train = description.config.train
        schedule_steps = train.schedule_steps or train.num_steps
        # the new steps are all taken, also by a run that stopped early
        longer = train.replace(num_steps=run.num_steps() + num_steps, schedule_steps=schedule_steps, patience=0)
        config = description.config.replace(train=longer)
        trainer = processes.together(lambda: Trainer(config, description.spec, data, run, device, on_step, processes))
        processes.from_first(lambda: run.extend(config))
        trainer.resume()
        return trainer.train()


def _own_data(run: RunDirectory, data: Path | None, processes: Processes) -> Path:
    """The data of a run, or the path they have moved to; they must be the same."""
    data = processes.from_first(lambda: data_of(run, data))
    if _content_hash(data, processes) != run.read()["data_sha256"]:
        raise InputError(f"{data} is not the data that {run.path} was trained on (its content hash differs)")
    return data


def data_of(run: RunDirectory, data: Path | None = None) -> Path:
    """The episode file to use with a run: `data`, or else the one that it was trained on.

    Raises:
        InputError: the file does not exist, as after it has moved.
    """
    if data is None:
        data = run.data()
        if not data.exists():
            raise InputError(f"{run.record} names the data {data}, which does not exist; say where it is with `data`")
    elif not data.exists():
        raise InputError(f"{data} does not exist")
    return data


def load_run(run: RunDirectory, device: str = "cpu", checkpoint: str = "last") -> tuple[Task, RunConfig, Path]:
    """The task with the weights of a checkpoint, the configuration, and the folder of the checkpoint.

    Args:
        run: run directory.
        device: device to load the weights to.
        checkpoint: `last`, `best` or a step; see `chosen_checkpoint`.
    """
    run.read()
    folder = chosen_checkpoint(run.checkpoints, checkpoint)
    task, description = load_task(folder, device)
    return task, description.config, folder


@dataclass(frozen=True)
class Evaluation:
    """Scores of one checkpoint of a run.

    Attributes:
        run: the run.
        checkpoint: folder of the checkpoint.
        data: episode file that was scored on.
        report: the scores.
        step: steps after which the checkpoint was saved; None if it does not say so.
    """

    run: RunDirectory
    checkpoint: Path
    data: Path
    report: Report
    step: int | None

    @property
    def file(self) -> Path:
        """The file of the run that keeps these scores: eval/<split>.json for the last checkpoint on the run's own data.

        Scores on other data are kept in eval/<split>-<data>.json, and those of another checkpoint in
        eval/<split>@<checkpoint>.json, so that they do not replace the former.
        """
        name = self.report.split
        name += "" if self._is_of_own_data() else f"-{self.data.stem}"
        return self.run.evaluation(
            name if self.checkpoint == latest(self.run.checkpoints) else f"{name}@{self.checkpoint.name}"
        )

    def _is_of_own_data(self) -> bool:
        """Whether the data are those of the run, wherever they are now."""
        return known_content_hash(self.data) == self.run.read()["data_sha256"]

    def save(self) -> Path | None:
        """Keep the scores with the run, as a score file; returns the file.

        Earlier results of the same checkpoint and data, for other metrics or conventions, stay in the file. If the run
        directory is not writable, nothing is saved and a warning is logged.
        """
        file = self.file
        try:
            make_folder(file.parent)
            document = scores_document(self.report, str(self.run.path), None)
            document |= {"checkpoint": self.checkpoint.name, "checkpoint_step": self.step}
            document["results"] = document["results"] + _still_valid(file, document, self.data)
            write_json(file, document)
        except InputError as error:
            logging.getLogger("slotssm").warning("the scores are not saved with the run: %s", error)
            return None
        return file


def score_run(
    run: RunDirectory,
    data: Path | None,
    split: str,
    names: Sequence[str],
    options: ScoringOptions,
    device: str,
    on_progress: Callable[[int, int], None],
    checkpoint: str = "last",
) -> Evaluation:
    """Score a checkpoint of a run, without writing anything.

    Args:
        run: run directory.
        data: episode file; None for the run's own.
        split: split to score.
        names: metrics; empty computes all that apply.
        options: scoring options.
        device: device to run on.
        on_progress: called with the numbers of episodes scored and in total.
        checkpoint: `last`, `best` or a step.
    """
    task, config, folder = load_run(run, device, checkpoint)
    path = data_of(run, data)
    step = step_of(folder)  # before scoring, since a run in training may replace its best checkpoint
    with EpisodeFile(path) as truth:
        check_fits(config, run.description().spec, truth)
        report = evaluate(TaskSource(task, options.mask_source), truth, split, names, options, on_progress=on_progress)
    return Evaluation(run, folder, path, report, step)


def evaluate_run(
    run: RunDirectory,
    data: Path | None,
    split: str,
    names: Sequence[str],
    options: ScoringOptions,
    device: str,
    on_progress: Callable[[int, int], None],
    checkpoint: str = "last",
) -> Report:
    """Score a checkpoint of a run and keep the scores with it; see `score_run` and `Evaluation.save`."""
    scored = score_run(run, data, split, names, options, device, on_progress, checkpoint)
    scored.save()
    return scored.report


def _still_valid(kept: Path, document: dict[str, Any], data: Path) -> list[dict[str, Any]]:
    """Results of an earlier report on the same checkpoint and data that the new report does not contain."""
    if not kept.exists() or kept.stat().st_mtime < data.stat().st_mtime:
        return []
    try:
        earlier = read_json(kept)
    except InputError:
        # a damaged report is replaced, and must not prevent the new one
        return []
    facts = earlier if isinstance(earlier, dict) else {}
    same = ("format", "format_version", "data_sha256", "split", "num_episodes", "checkpoint", "checkpoint_step")
    if any(facts.get(name) != document[name] for name in same):
        return []
    identity = ("metric", "property", "convention", "options")
    results = facts.get("results")
    earlier_results = [each for each in results if isinstance(each, dict)] if isinstance(results, list) else []
    new = [[result.get(name) for name in identity] for result in document["results"]]
    return [each for each in earlier_results if [each.get(name) for name in identity] not in new]


def check_fits(config: RunConfig, trained: DataSpec, truth: EpisodeFile) -> None:
    """Refuse data that the model of a run cannot process; what only its loss needs, such as depth, may be absent.

    Args:
        config: configuration of the run.
        trained: specification of the data that the run was trained on.
        truth: the data to check.
    """
    spec = read_spec(truth)
    if (spec.height, spec.width) != (trained.height, trained.width):
        raise InputError(
            f"{truth.path} has frames of {spec.width} x {spec.height} px; the run was trained on {trained.width} x "
            f"{trained.height} px; generate or import data of that size"
        )
    spec = spec.replace(fields=trained.fields | spec.fields)
    train = config.train.replace(phases=(), clip_len=0, clip_stride=1, clips="contiguous")
    try:
        check_run(config.replace(train=train), spec)
    except InputError as error:
        raise InputError(f"{truth.path} does not fit the run: {error}") from None


def evaluate_predictions(
    source: Source,
    data: Path,
    split: str,
    names: Sequence[str],
    options: ScoringOptions,
    on_progress: Callable[[int, int], None],
) -> Report:
    """Score predictions that do not come from a run, such as those of a file."""
    with EpisodeFile(data, needs_frames=False) as truth:
        return evaluate(source, truth, split, names, options, on_progress=on_progress)


def describe_run(run: RunDirectory) -> dict[str, Any]:
    """Configuration, provenance and progress of a run, as a JSON-ready document."""
    record, folder = run.read(), latest(run.checkpoints)
    lines = read_lines(run.metrics)
    newest = {split: next((x for x in reversed(lines) if x.get("split") == split), None) for split in ("train", "val")}
    facts = ("data", "data_sha256", "device", "versions", "git_commit")
    return {
        "run": str(run.path),
        "checkpoint": folder.name if folder else None,
        "num_steps": run.num_steps(),
        **{name: record.get(name) for name in facts},
        "train": newest["train"],
        "val": newest["val"],
        "config": record["config"],
    }
