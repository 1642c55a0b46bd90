"""From what a person asked for to a complete run: preset < TOML file < assignments, and the data that is there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slotssm.config import RunConfig
from slotssm.documents import load, merged, parse_assignments, read_toml
from slotssm.errors import InputError
from slotssm.experiments.datasets import own_data_path, recorded_data
from slotssm.presets import PRESETS, preset
from slotssm.tasks import build_task
from slotssm.training.run import RunDirectory


@dataclass(frozen=True)
class Request:
    """What the command line said.

    Attributes:
        preset: name, or None.
        file: TOML file, or None.
        assignments: `key.path=value` texts.
        data: existing episode file, whose recipe replaces the preset's; or None.
        seed: of the run, or None.
    """

    preset: str | None = None
    file: Path | None = None
    assignments: tuple[str, ...] = ()
    data: Path | None = None
    seed: int | None = None


def resolve(request: Request, base: RunConfig | None = None) -> RunConfig:
    """The run that is asked for; `base` stands in for the preset if none is named."""
    if request.preset is None and request.file is None and base is None:
        raise InputError(f"name what to train: --preset {'|'.join(PRESETS)}, or --config FILE")
    start = preset(request.preset) if request.preset else base
    document: dict[str, Any] = start.model_dump(mode="json") if start else {}
    if request.file is not None:
        document = merged(document, read_toml(request.file))
        load(RunConfig, _with_data(document, request), f"--config {request.file}")
    changes = parse_assignments(request.assignments)
    if request.data is not None and "data" in changes:
        raise InputError("--set data.* and --data exclude each other: the recipe of an existing file is fixed")
    document = merged(document, changes)
    if request.seed is not None:
        document["seed"] = request.seed
    source = "--set" if request.assignments else "configuration"
    return load(RunConfig, _with_data(document, request), source)


def _with_data(document: dict[str, Any], request: Request) -> dict[str, Any]:
    if request.data is None:
        return document
    return {**document, "data": recorded_data(request.data).model_dump(mode="json")}


def check_same(request: Request, run: RunDirectory) -> None:
    """Refuse to resume a run under a configuration other than its own.

    Repeating the command that began the run is fine, and so is naming nothing but the run.
    """
    recorded = run.config()
    asked = resolve(request, recorded)
    fault = _first_difference(recorded.model_dump(mode="json"), asked.model_dump(mode="json"), "")
    if fault:
        raise InputError(f"{run.path} was begun with another configuration: {fault}; resume without options")


def _first_difference(ours: Any, theirs: Any, path: str) -> str:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        found = (_first_difference(ours.get(key), theirs.get(key), f"{path}.{key}") for key in {**ours, **theirs})
        return next(filter(None, found), "")
    return "" if ours == theirs else f"{path.lstrip('.')} is {ours!r} there and {theirs!r} here"


def plan(config: RunConfig, data: Path | None) -> dict[str, Any]:
    """What a training run would do: data, sizes of the model's parts, steps."""
    task = build_task(config)
    path = data or own_data_path(config)
    parameters = {
        name: sum(parameter.numel() for parameter in part.parameters()) for name, part in task.named_children()
    }
    return {
        "data": f"{path}" + ("" if path.exists() else " (to be generated)"),
        "task": config.task.kind,
        "model": config.model.kind,
        "parameters": {**parameters, "total": sum(parameters.values())},
        "num_steps": config.train.num_steps,
        "batch_size": config.train.batch_size,
    }
