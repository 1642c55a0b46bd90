"""Checkpoints: folders of safetensors and JSON, complete or absent; loading one runs no code of its author."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from slotssm.config import RunConfig
from slotssm.documents import load
from slotssm.errors import InputError
from slotssm.files import explained, make_folder, read_json, sync, write_text
from slotssm.tasks import Task, build_task

MODEL, CONFIG = "model.safetensors", "config.json"
TRAINER, TRAINER_STATE = "trainer.safetensors", "trainer.json"


@dataclass(frozen=True)
class TrainerState:
    """What a run needs, beside the weights, to go on as if it had never stopped.

    Attributes:
        step: optimiser steps taken.
        optimizer: `exp_avg.<parameter>` and so on to tensors.
    """

    step: int
    optimizer: dict[str, Tensor]


def save(folder: Path, config: RunConfig, task: nn.Module, state: TrainerState, keep: int) -> Path:
    """Write `folder`/step-<8 digits> and point `folder`/last to it.

    The checkpoint is built under a temporary name, flushed and renamed; older ones beyond `keep` are removed
    only afterwards.

    Returns:
        The checkpoint's folder.
    """
    make_folder(folder)
    target = folder / f"step-{state.step:08d}"
    temporary = folder / f".{target.name}.{os.getpid()}.partial"
    for left in folder.glob(".step-*"):  # of a process that was killed while it saved
        shutil.rmtree(left, ignore_errors=True)
    with explained(target):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            _write(temporary, config, task, state)
            if target.exists():
                # moved aside first: at every moment one whole checkpoint of this step exists
                aside = temporary.with_suffix(".old")
                os.rename(target, aside)
                os.rename(temporary, target)
                shutil.rmtree(aside)
            else:
                os.rename(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        sync(folder)
    write_text(folder / "last", target.name + "\n")
    for old in _complete(folder)[:-keep]:
        if old != target:
            shutil.rmtree(old)
    return target


def _write(folder: Path, config: RunConfig, task: nn.Module, state: TrainerState) -> None:
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in task.state_dict().items()}
    optimizer = {name: tensor.detach().cpu().contiguous() for name, tensor in state.optimizer.items()}
    try:
        save_file(weights, folder / MODEL)
        save_file(optimizer, folder / TRAINER)
    except SafetensorError as error:
        raise OSError(str(error)) from None
    (folder / CONFIG).write_text(json.dumps(config.model_dump(mode="json"), indent=2) + "\n", encoding="utf-8")
    (folder / TRAINER_STATE).write_text(json.dumps({"step": state.step}) + "\n", encoding="utf-8")
    for file in folder.iterdir():
        sync(file)
    sync(folder)


def _complete(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if path.is_dir())


def latest(folder: Path) -> Path | None:
    """The checkpoint that `last` names, else the newest one; None if there is none."""
    pointer = folder / "last"
    if pointer.exists() and (found := folder / pointer.read_text(encoding="utf-8").strip()).is_dir():
        return found
    checkpoints = _complete(folder)
    return checkpoints[-1] if checkpoints else None


def load_task(folder: Path, device: str = "cpu") -> tuple[Task, RunConfig]:
    """Rebuild the task of a checkpoint with its weights, in eval mode."""
    config = load(RunConfig, read_json(folder / CONFIG), str(folder / CONFIG))
    task = build_task(config)
    load_weights(task, folder)
    return task.to(device).eval(), config


def load_weights(task: nn.Module, folder: Path) -> None:
    """Load weights strictly: every name and shape must agree.

    Raises:
        InputError: the file is missing or damaged, or belongs to another architecture.
    """
    weights = _read(folder / MODEL)
    expected = task.state_dict()
    faults = _differences({name: tuple(tensor.shape) for name, tensor in expected.items()}, weights)
    if faults:
        raise InputError(
            f"{folder} holds another architecture: {faults[0]}"
            + (f" (and {len(faults) - 1} more)" if len(faults) > 1 else "")
            + "; load it with the configuration that it was trained with"
        )
    task.load_state_dict(weights, strict=True)


def _differences(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, Tensor]) -> list[str]:
    faults = [f"{name} is missing" for name in expected if name not in found]
    faults += [f"{name} is unknown" for name in found if name not in expected]
    faults += [
        f"{name} has shape {tuple(found[name].shape)}, expected {shape}"
        for name, shape in expected.items()
        if name in found and tuple(found[name].shape) != shape
    ]
    return faults


def load_trainer(folder: Path) -> TrainerState:
    """The trainer's part of a checkpoint."""
    return TrainerState(int(read_json(folder / TRAINER_STATE)["step"]), _read(folder / TRAINER))


def _read(file: Path) -> dict[str, Tensor]:
    if not file.exists():
        raise InputError(f"{file} does not exist")
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} is damaged: {error}") from None


def optimizer_tensors(optimizer: torch.optim.Optimizer, task: nn.Module) -> dict[str, Tensor]:
    """State of an optimiser by parameter name."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in task.named_parameters()}
    return {
        f"{key}.{names[parameter]}": value
        for parameter, entries in optimizer.state.items()
        for key, value in entries.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, task: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` took; a parameter without state has not been stepped yet."""
    parameters = dict(task.named_parameters())
    for full_name, value in tensors.items():
        key, name = full_name.split(".", 1)
        if name not in parameters:
            raise InputError(f"the optimiser's state names an unknown parameter {name}")
        entries: dict[str, Any] = optimizer.state[parameters[name]]
        # step counters stay on the CPU, as torch keeps them
        entries[key] = value.clone() if key == "step" else value.to(parameters[name].device, copy=True)
