"""Complete configuration of a requested run: preset, overridden by a TOML file, overridden by assignments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slotssm.config import FileData, PhaseConfig, RunConfig
from slotssm.data.spec import DataSpec
from slotssm.documents import load, merged, parse_assignments, read_toml
from slotssm.errors import InputError
from slotssm.experiments.datasets import check_is_named, file_data, own_data_path, spec_of
from slotssm.experiments.presets import PRESETS, preset
from slotssm.tasks import build_task, check_run
from slotssm.training.run import RunDirectory


@dataclass(frozen=True)
class Request:
    """A request for a run.

    Attributes:
        preset: name of a preset, or None.
        file: TOML file, or None.
        assignments: texts of the form `key.path=value`.
        data: episode file that replaces the preset's data, or None.
        seed: seed of the run, or None.
    """

    preset: str | None = None
    file: Path | None = None
    assignments: tuple[str, ...] = ()
    data: Path | None = None
    seed: int | None = None


def resolve(request: Request, base: RunConfig | None = None) -> tuple[RunConfig, DataSpec]:
    """Configuration of the requested run, and specification of its data; `base` is used if no preset is named.

    Raises:
        InputError: a name or key is unknown, or settings are incompatible.
    """
    if request.preset is None and request.file is None and base is None:
        raise InputError(f"name what to train: `preset` {'|'.join(PRESETS)}, or a `config` file")
    start = preset(request.preset) if request.preset else base
    document: dict[str, Any] = start.model_dump(mode="json") if start else {}
    if request.file is not None:
        document = _laid_over(document, read_toml(request.file))
    if request.data is not None:
        document = _laid_over(document, {"data": file_data(request.data).model_dump(mode="json", exclude_none=True)})
    if request.file is not None:
        load(RunConfig, document, str(request.file))
    document = _laid_over(document, parse_assignments(request.assignments))
    if request.seed is not None:
        document["seed"] = request.seed
    config = load(RunConfig, document, "`assignments`" if request.assignments else "configuration")
    if isinstance(config.data, FileData):
        named = file_data(Path(config.data.path), num_train=config.data.num_train, num_val=config.data.num_val)
        if config.data.sha256 not in ("", named.sha256):
            raise InputError(f"{named.path} is not the data set that data.sha256 names: its content hash differs")
        config = config.replace(data=named)
    spec = spec_of(config.data)
    try:
        check_run(config, spec)
    except InputError as error:
        if not isinstance(config.data, FileData):
            raise
        raise InputError(f"{error} (the data are {config.data.path})") from None
    return config, spec


def _laid_over(document: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes over a run: a file takes the place of a recipe with its counts, and leaves counts of another file."""
    old, new = document.get("data"), changes.get("data")
    is_recipe = isinstance(old, Mapping) and "path" not in old
    if is_recipe and isinstance(new, Mapping) and "path" in new:
        document = {name: value for name, value in document.items() if name != "data"}
    found: dict[str, Any] = merged(document, changes)
    return found


def check_same(request: Request, run: RunDirectory) -> None:
    """Refuse to resume a run with a configuration other than its own.

    Allowed are repeating the options that started the run, and giving none.
    """
    recorded = run.config()
    if request.data is not None and isinstance(recorded.data, FileData):
        # a file that has moved is the same by its content
        moved = recorded.data.replace(path=str(request.data.resolve()))
        check_is_named(moved)
        recorded = recorded.replace(data=moved)
    elif isinstance(recorded.data, FileData) and not Path(recorded.data.path).exists():
        raise InputError(
            f"{run.record} names the data {recorded.data.path}, which does not exist; say where it is with `data`"
        )
    elif request.data is not None:
        request = Request(request.preset, request.file, request.assignments, None, request.seed)
    asked, _ = resolve(request, recorded)
    fault = _first_difference(recorded.model_dump(mode="json"), asked.model_dump(mode="json"), "")
    if fault:
        raise InputError(f"{run.path} was started with another configuration: {fault}; resume without options")


def _first_difference(ours: Any, theirs: Any, path: str) -> str:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        found = (_first_difference(ours.get(key), theirs.get(key), f"{path}.{key}") for key in {**ours, **theirs})
        return next(filter(None, found), "")
    return "" if ours == theirs else f"{path.lstrip('.')} is {ours!r} there and {theirs!r} here"


def plan(config: RunConfig, spec: DataSpec, data: Path | None = None) -> dict[str, Any]:
    """Facts of a training run before it starts: data, numbers of parameters, steps."""
    task = build_task(config, spec)
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
    } | ({"phases": _words_of(config.train.phases)} if config.train.phases else {})


def _words_of(phases: Sequence[PhaseConfig]) -> str:
    """For example `1500 steps of 24 clips of 2 frames`."""
    clips = [f"clips of {phase.clip_len} frames" if phase.clip_len else "whole episodes" for phase in phases]
    return ", ".join(
        f"{phase.num_steps} steps of {phase.batch_size} {each}" for phase, each in zip(phases, clips, strict=True)
    )
