"""Train a run, evaluate it, draw it: the steps that commands, the demo and reproductions share."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from slotssm.config import RunConfig
from slotssm.data.contents import known_content_hash
from slotssm.data.episodes import EpisodeFile
from slotssm.data.spec import DataSpec, read_spec
from slotssm.errors import InputError
from slotssm.evaluation import Report, ScoringOptions, Source, TaskSource, evaluate
from slotssm.files import exclusive, make_folder, read_json, write_json
from slotssm.tasks import Task, check_run
from slotssm.training.checkpoint import Description, latest, load_task
from slotssm.training.run import RunDirectory, read_lines
from slotssm.training.trainer import StepReport, Trainer


def refuse_used(run: RunDirectory, force: bool) -> None:
    """Refuse a folder that holds something else, and without `force` one that holds a run."""
    if run.path.exists() and not run.path.is_dir():
        raise InputError(f"{run.path} is a file; choose a folder for `out`")
    if run.is_free():
        return
    if not run.record.exists():
        raise InputError(f"{run.path} exists and is not a run directory; choose another `out`")
    if not force:
        raise InputError(f"{run.path} exists already; `resume` continues it, `force` starts it again")


def start_run(
    config: RunConfig,
    spec: DataSpec,
    data: Path,
    run: RunDirectory,
    device: str,
    on_step: Callable[[StepReport], None],
    force: bool = False,
) -> dict[str, float]:
    """Train a new run from its first step; with `force` in place of the run that is there.

    Returns:
        The last logged values.
    """
    refuse_used(run, force)
    # the trainer checks configuration, data and device before anything is written or removed
    trainer = Trainer(config, spec, data, run, device, on_step)
    trainer.load_initial_weights()
    fingerprint = known_content_hash(data)
    make_folder(run.path)
    with exclusive(run.lock):
        refuse_used(run, force)  # again: another process may have trained it meanwhile
        run.clear()
        run.create(Description(config, spec), data, fingerprint, trainer.device)
        return trainer.train()


def resume_run(
    run: RunDirectory, device: str, on_step: Callable[[StepReport], None], data: Path | None = None
) -> dict[str, float]:
    """Continue a run from its last checkpoint.

    Args:
        run: run directory.
        device: `auto`, `cpu`, ...
        on_step: told of every step.
        data: where the data lies now, if it has moved; its content must be the same.

    Returns:
        The last logged values; empty if the run was complete.
    """
    data = data or run.data()
    if not data.exists():
        raise InputError(f"{run.record} names the data {data}, which does not exist; say where it is with `data`")
    if known_content_hash(data) != run.read()["data_sha256"]:
        raise InputError(f"{data} is not the data that {run.path} was trained on (its content hash differs)")
    with exclusive(run.lock):
        description = run.description()
        trainer = Trainer(description.config, description.spec, data, run, device, on_step)
        trainer.resume()
        return trainer.train()


def load_run(run: RunDirectory, device: str = "cpu") -> tuple[Task, RunConfig, Path]:
    """Task with the weights of the last checkpoint, configuration, and the checkpoint's folder."""
    run.read()
    folder = latest(run.checkpoints)
    if folder is None:
        raise InputError(f"{run.path} has no checkpoint yet; train it further with `resume`")
    task, description = load_task(folder, device)
    return task, description.config, folder


def evaluate_run(
    run: RunDirectory,
    data: Path | None,
    split: str,
    names: Sequence[str],
    options: ScoringOptions,
    device: str,
    on_progress: Callable[[int, int], None],
) -> Report:
    """Score the last checkpoint of a run and keep the report in eval/<split>.json (eval/<split>-<data>.json).

    Results that the file has of the same checkpoint and data, under other conventions or of other metrics, stay there.
    Where the run cannot be written, the scores are not kept, which a note says.
    """
    task, config, folder = load_run(run, device)
    own = run.data()
    path = data or own
    if not path.exists():
        hint = "" if data else "; say where it is with `data`"
        raise InputError(f"{path} does not exist{hint}")
    with EpisodeFile(path) as truth:
        check_fits(config, run.description().spec, truth)
        report = evaluate(TaskSource(task, options.mask_source), truth, split, names, options, on_progress=on_progress)
    # scores on other data do not replace those on the run's own
    kept = run.evaluation(split if path.resolve() == own else f"{split}-{path.stem}")
    document = {**report.document(str(run.path)), "checkpoint": folder.name}
    document["results"] = document["results"] + _still_valid(kept, document, path)
    try:
        make_folder(kept.parent)
        write_json(kept, document)
    except InputError as error:
        logging.getLogger("slotssm").warning("the scores are not kept with the run: %s", error)
    return report


def _still_valid(kept: Path, document: dict[str, Any], data: Path) -> list[dict[str, Any]]:
    """Results of an earlier report on the same weights and data that the new one does not have."""
    if not kept.exists() or kept.stat().st_mtime < data.stat().st_mtime:
        return []
    try:
        earlier = read_json(kept)
    except InputError:
        # it is about to be replaced, and must not cost the new one
        return []
    facts = earlier if isinstance(earlier, dict) else {}
    if any(facts.get(name) != document[name] for name in ("data", "split", "num_episodes", "checkpoint")):
        return []
    identity = ("metric", "property", "convention", "options")
    results = facts.get("results")
    earlier_results = [each for each in results if isinstance(each, dict)] if isinstance(results, list) else []
    new = [[result.get(name) for name in identity] for result in document["results"]]
    return [each for each in earlier_results if [each.get(name) for name in identity] not in new]


def check_fits(config: RunConfig, trained: DataSpec, truth: EpisodeFile) -> None:
    """Refuse data that the model cannot read.

    Args:
        config: of the run.
        trained: what is known of the data that it was trained on.
        truth: the other data.
    """
    spec = read_spec(truth)
    if (spec.height, spec.width) != (trained.height, trained.width):
        raise InputError(
            f"{truth.path} has frames of {spec.width} x {spec.height} px; the run was trained on {trained.width} x "
            f"{trained.height} px"
        )
    train = config.train.replace(clip_len=0, clip_stride=1, clips="contiguous")
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
    """Score a predictions file against the truth."""
    with EpisodeFile(data, needs_frames=False) as truth:
        return evaluate(source, truth, split, names, options, on_progress=on_progress)


def describe_run(run: RunDirectory) -> dict[str, Any]:
    """What a run is and how far it has come, as one JSON-ready document."""
    record, folder = run.read(), latest(run.checkpoints)
    lines = read_lines(run.metrics)
    newest = {split: next((x for x in reversed(lines) if x.get("split") == split), None) for split in ("train", "val")}
    facts = ("data", "data_sha256", "device", "versions", "git_commit")
    return {
        "run": str(run.path),
        "checkpoint": folder.name if folder else None,
        "num_steps": run.config().train.num_steps,
        **{name: record.get(name) for name in facts},
        "train": newest["train"],
        "val": newest["val"],
        "config": record["config"],
    }
