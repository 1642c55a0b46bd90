"""Checkpoints: folders of safetensors and JSON, complete or absent; loading one never runs code from it."""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from slotssm.config import RunConfig
from slotssm.data.spec import DataSpec
from slotssm.documents import load
from slotssm.errors import InputError
from slotssm.files import atomic_folder, make_folder, read_json, restore_moved_aside, write_text
from slotssm.plugins import needed_plugins, refuse_missing
from slotssm.tasks import Task, build_task

MODEL, CONFIG = "model.safetensors", "config.json"
TRAINER, TRAINER_STATE = "trainer.safetensors", "trainer.json"
BEST, BEST_RECORD = "best", "best.json"
"""Folder of the best checkpoint, beside those of steps, and the file in it that says why it is the best."""
_ADAM = {"step", "exp_avg", "exp_avg_sq"}
_RAW = "weights."
"""Prefix of the weights under training if the saved model is their moving average."""


@dataclass(frozen=True)
class Description:
    """Description of a run: enough to build its task again without its data.

    Attributes:
        config: configuration of the run.
        spec: specification of its data.
    """

    config: RunConfig
    spec: DataSpec

    def document(self) -> dict[str, Any]:
        """The description as a JSON document, with the plugins that are needed to read it."""
        return {
            "config": self.config.model_dump(mode="json"),
            "data_spec": self.spec.model_dump(mode="json"),
            "plugins": needed_plugins(self.config),
        }

    @classmethod
    def read(cls, document: Any, source: Path) -> "Description":
        """Parse a JSON document.

        Args:
            document: the result of `document`.
            source: the file, for error messages.

        Raises:
            InputError: it is damaged, or needs a plugin that is not loaded.
        """
        if not isinstance(document, dict):
            raise InputError(f"{source} is damaged: it is not a JSON object")
        for name in ("config", "data_spec"):
            if name not in document:
                raise InputError(f"{source} is damaged: {name} is missing")
        refuse_missing(document.get("plugins"), source)
        config = load(RunConfig, document["config"], str(source))
        return cls(config, load(DataSpec, document["data_spec"], str(source)))


@dataclass(frozen=True)
class TrainerState:
    """State that a run needs, besides the weights, to continue as if it had never stopped.

    Attributes:
        step: optimiser steps taken.
        optimizer: tensors of the optimiser state, named `exp_avg.<parameter>` and so on.
        weights: the weights under training if the checkpoint's model is their moving average; otherwise empty.
    """

    step: int
    optimizer: dict[str, Tensor]
    weights: dict[str, Tensor]


def save(
    folder: Path,
    description: Description,
    task: nn.Module,
    state: TrainerState,
    average: Mapping[str, Tensor],
    keep: int,
) -> Path:
    """Write `folder`/step-<8 digits> and record its name in `folder`/last.

    The checkpoint is written under a temporary name, flushed and renamed; only then are older checkpoints beyond
    `keep` removed.

    Args:
        folder: folder of all checkpoints of the run.
        description: description of the run.
        task: the task whose weights are saved.
        state: state of the trainer.
        average: weights to save in place of those of the task, by name.
        keep: how many of the newest checkpoints to keep.

    Returns:
        The checkpoint's folder.
    """
    make_folder(folder)
    target = folder / f"step-{state.step:08d}"
    _remove_left_over(folder, "step-*")
    with atomic_folder(target) as place:
        _write_model(place, description, {**task.state_dict(), **average})
        trainer = state.optimizer | {_RAW + name: value for name, value in state.weights.items()}
        _write_tensors(place / TRAINER, trainer)
        (place / TRAINER_STATE).write_text(json.dumps({"step": state.step}) + "\n", encoding="utf-8")
    write_text(folder / "last", target.name + "\n")
    for old in complete_checkpoints(folder)[:-keep]:
        if old != target:
            shutil.rmtree(old, ignore_errors=True)
    return target


def save_best(
    folder: Path, description: Description, task: nn.Module, average: Mapping[str, Tensor], reason: Mapping[str, Any]
) -> None:
    """Write `folder`/best, which replaces an earlier one; it holds the weights, and no state to resume from.

    Args:
        folder: folder of all checkpoints of the run.
        description: description of the run.
        task: the task whose weights are saved.
        average: weights to save in place of those of the task, by name.
        reason: step, metric and value, for best.json.
    """
    make_folder(folder)
    _remove_left_over(folder, BEST)
    with atomic_folder(folder / BEST) as place:
        _write_model(place, description, {**task.state_dict(), **average})
        (place / BEST_RECORD).write_text(json.dumps(reason, allow_nan=False) + "\n", encoding="utf-8")


def _remove_left_over(folder: Path, names: str) -> None:
    """Remove what processes killed while saving left, on any machine; the caller holds the lock of the run."""
    for left in folder.glob(f".{names}.*"):
        shutil.rmtree(left, ignore_errors=True)


def _write_model(folder: Path, description: Description, weights: Mapping[str, Tensor]) -> None:
    document = json.dumps(description.document(), indent=2, allow_nan=False)
    (folder / CONFIG).write_text(document + "\n", encoding="utf-8")
    _write_tensors(folder / MODEL, weights)


def _write_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    try:
        save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, file)
    except SafetensorError as error:
        raise OSError(None, str(error), str(file)) from None
    # safetensors writes for the owner alone, whatever the umask says
    shutil.copymode(file.with_name(CONFIG), file)


def complete_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a run, oldest first; a checkpoint gets its name when it is complete."""
    found = [path for path in folder.glob("step-*") if re.fullmatch(r"step-\d{8,}", path.name) and path.is_dir()]
    return sorted(found, key=_step_of)


def latest(folder: Path) -> Path | None:
    """The newest checkpoint of a run; None if there is none.

    Runs are resumed and evaluated from this one. The file `last` is for people and scripts, and may lag behind if a
    process was killed.
    """
    checkpoints = complete_checkpoints(folder)
    return checkpoints[-1] if checkpoints else None


def chosen_checkpoint(folder: Path, which: str) -> Path:
    """A checkpoint of a run by name.

    Args:
        folder: folder of all checkpoints of the run.
        which: `last`, the newest; `best`, kept by `train.keep_best`; or the number of a step that is kept.

    Raises:
        InputError: there is no such checkpoint.
    """
    steps = complete_checkpoints(folder)
    if which == "last" and not steps:
        raise InputError(f"{folder.parent} has no checkpoint yet; train it further with `resume`")
    if which == "last":
        return steps[-1]
    if which == BEST:
        restore_moved_aside(folder / BEST)
        if not (folder / BEST / MODEL).exists():
            raise InputError(
                f"{folder.parent} keeps no best checkpoint; train a run whose train.keep_best names a metric"
            )
        return folder / BEST
    named = {str(_step_of(path)): path for path in steps}
    step = which.removeprefix("step-").lstrip("0")
    if step not in named:
        raise InputError(
            f"`checkpoint` {which} must be last, best, or a step that is kept: {', '.join(named) or 'none'}"
        )
    return named[step]


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def step_of(folder: Path) -> int | None:
    """Steps after which a checkpoint of a run was saved; None if the best checkpoint does not say so.

    Raises:
        InputError: the record of the best checkpoint cannot be read.
    """
    if folder.name != BEST:
        return _step_of(folder)
    record = read_json(folder / BEST_RECORD)
    step = record.get("step") if isinstance(record, dict) else None
    return step if isinstance(step, int) else None


def folder_of(path: Path) -> Path:
    """The checkpoint at a path: the path itself, what a file `last` names, or the newest checkpoint of a run directory.

    Raises:
        InputError: the path is neither.
    """
    if (path / MODEL).exists():
        return path
    found = latest(path.parent if path.name == "last" and path.is_file() else path / "checkpoints")
    if found is None:
        raise InputError(f"{path} is neither a checkpoint nor a run with one")
    return found


def load_task(folder: Path, device: str = "cpu") -> tuple[Task, Description]:
    """Rebuild the task of a checkpoint with its weights, in eval mode."""
    description = Description.read(read_json(folder / CONFIG), folder / CONFIG)
    weights = _read(folder / MODEL)
    _refuse_unlike(description, weights, folder)
    task = build_task(description.config, description.spec)
    _load(task, weights, folder)
    return task.to(device).eval(), description


def _refuse_unlike(description: Description, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Refuse weights of another architecture before that of the description takes memory."""
    try:
        with torch.device("meta"):
            expected = build_task(description.config, description.spec).state_dict()
    except (RuntimeError, NotImplementedError):  # a model of a plugin that needs values; compared when it is there
        return
    _refuse_differences(expected, weights, folder)


def load_weights(task: nn.Module, folder: Path) -> None:
    """Load weights strictly: every name and shape must agree.

    Raises:
        InputError: the file is missing or damaged, or is from another architecture.
    """
    _load(task, _read(folder / MODEL), folder)


def _load(task: nn.Module, weights: Mapping[str, Tensor], folder: Path) -> None:
    _refuse_differences(task.state_dict(), weights, folder)
    task.load_state_dict(weights, strict=True)


def load_parts(task: nn.Module, folder: Path, parts: Sequence[str]) -> str:
    """Load the weights of some parts of a task from a checkpoint, possibly of another task.

    Args:
        task: the task to load into.
        folder: the checkpoint.
        parts: names of children of the task, each loaded strictly; empty loads all.

    Returns:
        A sentence that says which parts were loaded and which were not.

    Raises:
        InputError: the task or the checkpoint lacks a part, or the part has another architecture.
    """
    own = [name for name, _ in task.named_children()]
    weights = _read(folder / MODEL)
    if not parts:
        _load(task, weights, folder)
        return f"loaded all weights from {folder}"
    there = list(dict.fromkeys(name.split(".", 1)[0] for name in weights))
    for part in parts:
        if part not in own:
            raise InputError(f"train.initial.parts names {part}; the parts of this task are {', '.join(own)}")
        if part not in there:
            raise InputError(f"train.initial.parts names {part}; {folder} has {', '.join(there)}")
    chosen = {name: value for name, value in weights.items() if name.split(".", 1)[0] in parts}
    expected = {name: value for name, value in task.state_dict().items() if name.split(".", 1)[0] in parts}
    _refuse_differences(expected, chosen, folder)
    task.load_state_dict(chosen, strict=False)
    others = [name for name in own if name not in parts]
    return f"loaded {', '.join(parts)} from {folder}; randomly initialised: {', '.join(others) or 'nothing'}"


def _refuse_differences(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], folder: Path) -> None:
    faults = [f"{name} is missing" for name in expected if name not in found]
    faults += [f"{name} is unknown" for name in found if name not in expected]
    faults += [
        f"{name} has shape {tuple(found[name].shape)}, expected {tuple(value.shape)}"
        for name, value in expected.items()
        if name in found and found[name].shape != value.shape
    ]
    faults += [
        f"{name} is {found[name].dtype}, expected {value.dtype}"
        for name, value in expected.items()
        if name in found and found[name].dtype != value.dtype
    ]
    if faults:
        raise InputError(
            f"{folder} is from another architecture: {faults[0]}"
            + (f" (and {len(faults) - 1} more)" if len(faults) > 1 else "")
            + "; load it with the configuration it was trained with"
        )


def load_trainer(folder: Path) -> TrainerState:
    """The trainer state of a checkpoint.

    Raises:
        InputError: it is missing or damaged.
    """
    document = read_json(folder / TRAINER_STATE)
    step = document.get("step") if isinstance(document, dict) else None
    if type(step) is not int or step != _step_of(folder):
        raise InputError(f"{folder / TRAINER_STATE} is damaged: step is not that of the folder's name")
    tensors = _read(folder / TRAINER)
    weights = {name.removeprefix(_RAW): value for name, value in tensors.items() if name.startswith(_RAW)}
    return TrainerState(step, {name: v for name, v in tensors.items() if not name.startswith(_RAW)}, weights)


def _read(file: Path) -> dict[str, Tensor]:
    if not file.exists():
        raise InputError(f"{file} does not exist")
    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{file} is damaged: {str(error).splitlines()[0]}") from None


def trainer_state(
    step: int, task: nn.Module, optimizer: torch.optim.Optimizer, average: Mapping[str, Tensor]
) -> TrainerState:
    """The state of a trainer, as `restore` takes it."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in task.named_parameters()}
    moments = {
        f"{key}.{names[parameter]}": value
        for parameter, entries in optimizer.state.items()
        for key, value in entries.items()
    }
    weights = {name: value for name, value in task.named_parameters() if name in average}
    return TrainerState(step, moments, {name: value.detach() for name, value in weights.items()})


def restore(
    task: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Mapping[str, Tensor],
    state: TrainerState,
    folder: Path,
) -> None:
    """Restore what `save` wrote: weights, their moving average, and the optimiser state.

    Raises:
        InputError: the checkpoint is damaged, or is from another configuration.
    """
    load_weights(task, folder)
    parameters = dict(task.named_parameters())
    if set(state.weights) != set(average):
        raise InputError(f"{folder / TRAINER} is damaged: the weights under training are missing")
    with torch.no_grad():
        for name, value in average.items():
            value.copy_(parameters[name])
        _refuse_differences({name: parameters[name] for name in average}, state.weights, folder)
        for name, value in state.weights.items():
            parameters[name].copy_(value)
    for name, entries in _optimizer_entries(state, parameters, folder / TRAINER).items():
        parameter = parameters[name]
        optimizer.state[parameter] = {key: value.to(parameter.device, copy=True) for key, value in entries.items()}


def _optimizer_entries(
    state: TrainerState, parameters: Mapping[str, Tensor], file: Path
) -> dict[str, dict[str, Tensor]]:
    """The optimiser state of each parameter that has any: a step and two moments."""
    found: dict[str, dict[str, Tensor]] = {}
    for full_name, value in state.optimizer.items():
        key, _, name = full_name.partition(".")
        if name not in parameters:
            raise InputError(f"{file} is damaged: it has optimiser state for an unknown parameter {name!r}")
        found.setdefault(name, {})[key] = value
    for name, entries in found.items():
        if set(entries) != _ADAM:
            raise InputError(f"{file} is damaged: the optimiser state of {name} is incomplete")
        for key, value in entries.items():
            shape = torch.Size() if key == "step" else parameters[name].shape
            if value.shape != shape or value.dtype != parameters[name].dtype:
                raise InputError(f"{file} is damaged: {key}.{name} is {value.dtype} of shape {tuple(value.shape)}")
    return found
