"""Trackers: the lines of metrics.jsonl, passed on to TensorBoard or Weights & Biases.

A tracker is only a copy of the log: if it fails, one warning says so, and the training goes on without it. Packages are
imported only when a run asks for them, and nothing needs a network.
"""

import importlib.util
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from slotssm.config import RunConfig
from slotssm.errors import InputError
from slotssm.files import read_json, write_json
from slotssm.training.run import RunDirectory, read_lines


class Tracker(Protocol):
    """A record of a run outside metrics.jsonl."""

    def write(self, line: Mapping[str, Any]) -> None:
        """Add a line of metrics.jsonl."""

    def close(self) -> None:
        """Write what is still in memory."""


class TensorBoard:
    """Scalars in RUN/tensorboard, named `train/loss`, `val/fg-ari` and so on.

    The record is written anew from metrics.jsonl whenever training begins or resumes, so that it never holds a step
    twice; steps before that carry the time of writing.

    Args:
        run: run directory.
        config: its configuration.
    """

    def __init__(self, run: RunDirectory, config: RunConfig) -> None:
        from torch.utils.tensorboard import SummaryWriter

        shutil.rmtree(run.tensorboard, ignore_errors=True)
        self._writer = SummaryWriter(str(run.tensorboard))
        for line in read_lines(run.metrics):
            self.write(line)

    def write(self, line: Mapping[str, Any]) -> None:
        """Add the values of a line."""
        for name, value in _values(line).items():
            self._writer.add_scalar(name, value, line["step"])

    def close(self) -> None:
        """Flush the event file."""
        self._writer.close()


class WandB:
    """A run of Weights & Biases in RUN/wandb, offline unless the environment variable WANDB_MODE says otherwise.

    After an interruption or a failure the run continues under the same id. Lines that it already has are left out,
    since the repeated steps give the same values.

    Args:
        run: run directory.
        config: its configuration.
    """

    def __init__(self, run: RunDirectory, config: RunConfig) -> None:
        import wandb

        self._record = _record(run) | {"failed": False}
        self._path = run.tracking
        self._reached: dict[str, int] = self._record["reached"]
        write_json(self._path, self._record)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "slotssm"),
            name=run.path.resolve().name,
            id=self._record["id"],
            resume="allow",
            dir=str(run.path),
            mode=os.environ.get("WANDB_MODE", "offline"),
            config=config.model_dump(mode="json"),
            settings=wandb.Settings(silent=True, console="off"),
        )
        for line in read_lines(run.metrics):
            self.write(line)

    def write(self, line: Mapping[str, Any]) -> None:
        """Add the values of a line, unless the record has them."""
        if line["step"] > self._reached.get(line["split"], -1):
            try:
                self._run.log(_values(line), step=line["step"])
            except Exception:
                write_json(self._path, self._record | {"failed": True})
                raise
            self._reached[line["split"]] = line["step"]

    def close(self) -> None:
        """End the run on this machine; it can be resumed."""
        self._run.finish()


_KINDS: dict[str, Callable[[RunDirectory, RunConfig], Tracker]] = {"tensorboard": TensorBoard, "wandb": WandB}


class Trackers:
    """The trackers of a run; each is dropped with one warning when it fails.

    Args:
        run: run directory.
        config: its configuration, which names the trackers.
    """

    def __init__(self, run: RunDirectory, config: RunConfig) -> None:
        self._open: dict[str, Tracker] = {}
        for name in config.train.trackers:
            try:
                self._open[name] = _KINDS[name](run, config)
            except Exception as error:
                _warn(name, error)

    def write(self, line: Mapping[str, Any]) -> None:
        """Pass a line of metrics.jsonl on."""
        for name, tracker in list(self._open.items()):
            try:
                tracker.write(line)
            except Exception as error:
                del self._open[name]
                _warn(name, error)

    def close(self) -> None:
        """Close all trackers."""
        for name, tracker in self._open.items():
            try:
                tracker.close()
            except Exception as error:
                _warn(name, error)
        self._open = {}


def refuse_absent(names: Sequence[str]) -> None:
    """Refuse trackers whose package is not installed, with the command that installs it."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise InputError(f"train.trackers: the package {name} is missing; pip install 'slotssm[{name}]' brings it")


def remember_reached(run: RunDirectory) -> None:
    """Record how far a run has been tracked, before lines of steps that will be taken again are dropped.

    A tracker that did not fail has every line; one that failed wrote down how far it came.
    """
    record = _record(run)
    for line in [] if record["failed"] else read_lines(run.metrics):
        reached: dict[str, int] = record["reached"]
        reached[line["split"]] = max(line["step"], reached.get(line["split"], -1))
    write_json(run.tracking, record)


def _record(run: RunDirectory) -> dict[str, Any]:
    """Id of the tracked run, the last tracked step of each split, and whether tracking failed after it."""
    try:
        found = read_json(run.tracking)
        reached = {str(name): int(step) for name, step in found["reached"].items()}
        return {"id": str(found["id"]), "reached": reached, "failed": bool(found.get("failed"))}
    except (InputError, KeyError, TypeError, ValueError, AttributeError):
        return {"id": uuid.uuid4().hex[:12], "reached": {}, "failed": False}


def _values(line: Mapping[str, Any]) -> dict[str, float]:
    """Numbers of a line, named by split."""
    return {f"{line['split']}/{name}": value for name, value in line.items() if name not in ("step", "split")}


def _warn(name: str, error: Exception) -> None:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    logging.getLogger("slotssm").warning("%s failed and no longer follows the run: %s", name, reason)
