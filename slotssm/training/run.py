"""The run directory: configuration, logs and checkpoints of a run (layout: docs/data-format.md)."""

import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from slotssm.config import RunConfig
from slotssm.errors import InputError
from slotssm.files import explained, make_folder, read_json, write_json, write_text
from slotssm.training.checkpoint import MODEL, Description, latest

RUNS = Path("runs")


@dataclass(frozen=True)
class RunDirectory:
    """Paths and records of one run.

    Attributes:
        path: the run directory.
    """

    path: Path

    @property
    def record(self) -> Path:
        """run.json: configuration, arguments, versions, commit, content hash of the data, device."""
        return self.path / "run.json"

    @property
    def metrics(self) -> Path:
        """metrics.jsonl: one line for every logged step; depends on the configuration only."""
        return self.path / "metrics.jsonl"

    @property
    def timing(self) -> Path:
        """timing.jsonl: durations of the steps."""
        return self.path / "timing.jsonl"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def lock(self) -> Path:
        """The lock file, held while a process trains the run."""
        return self.path / ".lock"

    @property
    def figures(self) -> Path:
        """The folder of pictures."""
        return self.path / "figures"

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def tracking(self) -> Path:
        """tracking.json: id of the run at Weights & Biases, and how far it is tracked there."""
        return self.path / "tracking.json"

    def evaluation(self, split: str) -> Path:
        """eval/<split>.json."""
        return self.path / "eval" / f"{split}.json"

    def create(
        self, description: Description, data: Path, fingerprint: str, device: str, num_processes: int = 1
    ) -> None:
        """Create the folder and write run.json, before the first step.

        Args:
            description: configuration and data specification.
            data: the episode file.
            fingerprint: its content hash.
            device: device of the training.
            num_processes: number of processes that train it together.
        """
        make_folder(self.path)
        write_json(
            self.record,
            {
                "created": time.time(),
                **description.document(),
                "data": str(data.resolve()),
                "data_sha256": fingerprint,
                "device": device,
                "processor": processor(),
                "threads": torch.get_num_threads(),
                "processes": num_processes,
                "argv": list(sys.argv),
                "versions": _versions(),
                "git_commit": _git_commit(),
            },
        )

    def stop_early(self, step: int) -> None:
        """Record in run.json, unless it is there, that the training stopped after a step, before `train.num_steps`."""
        record = self.read()
        if "stopped_early" not in record:
            write_json(self.record, {**record, "stopped_early": {"created": time.time(), "step": step}})

    def num_steps(self) -> int:
        """Steps of the whole training: those of the configuration, or those after which it stopped early.

        The configuration is not validated, since that needs the plugins of the run.

        Raises:
            InputError: run.json is missing or damaged.
        """
        record = self.read()
        stopped, train = record.get("stopped_early"), record["config"].get("train")
        found = stopped["step"] if stopped else train.get("num_steps") if isinstance(train, dict) else None
        if not isinstance(found, int):
            raise InputError(f"{self.record} is damaged: train.num_steps is missing")
        return found

    def extend(self, config: RunConfig) -> None:
        """Record in run.json that the run goes on with another configuration.

        Args:
            config: the configuration from now on.
        """
        record = self.read()
        before = self.num_steps()
        record.pop("stopped_early", None)
        event = {
            "created": time.time(),
            "from_step": before,
            "num_steps": config.train.num_steps,
            "argv": list(sys.argv),
        }
        extended = [*record.get("extended", ()), event]
        write_json(self.record, {**record, "config": config.model_dump(mode="json"), "extended": extended})

    def read(self) -> dict[str, Any]:
        """The content of run.json.

        Raises:
            InputError: it is missing or damaged.
        """
        if not self.record.exists():
            if (self.path / MODEL).exists():
                raise InputError(
                    f"{self.path} is a checkpoint, not a run directory; slotssm predict takes it, and slotssm eval "
                    "scores what it writes"
                )
            raise InputError(f"{self.path} is not a run directory: it has no run.json")
        document = read_json(self.record)
        if not isinstance(document, dict):
            raise InputError(f"{self.record} is damaged: it is not a JSON object")
        for name, kind in (("created", (int, float)), ("data", str), ("data_sha256", str), ("config", dict)):
            if not isinstance(document.get(name), kind):
                raise InputError(f"{self.record} is damaged: {name} is missing or has the wrong type")
        if not isinstance(document.get("extended", []), list):
            raise InputError(f"{self.record} is damaged: extended has the wrong type")
        stopped = document.get("stopped_early", {"step": 0})
        if not isinstance(stopped, dict) or not isinstance(stopped.get("step"), int):
            raise InputError(f"{self.record} is damaged: stopped_early has the wrong type")
        return document

    def description(self) -> Description:
        """Configuration of the run and specification of its data."""
        return Description.read(self.read(), self.record)

    def config(self) -> RunConfig:
        """The resolved configuration of the run."""
        return self.description().config

    def data(self) -> Path:
        """The episode file that the run was trained on."""
        return Path(self.read()["data"])

    def append(self, file: Path, line: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl or timing.jsonl and pass it to the operating system."""
        text = json.dumps(line, allow_nan=False) + "\n"
        with explained(file), file.open("a", encoding="utf-8") as stream:
            stream.write(text)

    def is_free(self) -> bool:
        """Whether a new run may start here: the folder is absent, empty, or holds only leftovers of a killed start.

        A run exists once run.json exists; starting one removes run.json first and writes it before anything else.
        """
        if self.record.exists() or not self.path.is_dir():
            return not self.path.exists()
        own = {self.lock, *self._files, *self._folders}
        return all(path in own or _is_temporary(path) for path in self.path.iterdir())

    def is_complete(self) -> bool:
        """Whether the last step is saved."""
        newest = latest(self.checkpoints)
        if not self.record.exists() or newest is None:
            return False
        return newest.name == f"step-{self.num_steps():08d}"

    def clear(self) -> None:
        """Remove the files of a run, and nothing else; run.json first, so that a partly removed run does not count."""
        self.record.unlink(missing_ok=True)
        for folder in self._folders:
            if folder.exists():
                shutil.rmtree(folder)
        for file in self._files:
            file.unlink(missing_ok=True)
        for path in self.path.iterdir():
            if _is_temporary(path):
                path.unlink(missing_ok=True)

    @property
    def _folders(self) -> tuple[Path, ...]:
        return self.checkpoints, self.figures, self.path / "eval", self.tensorboard, self.path / "wandb"

    @property
    def _files(self) -> tuple[Path, ...]:
        """Files besides run.json."""
        return self.metrics, self.timing, self.tracking

    def drop_log_after(self, step: int) -> None:
        """Drop logged lines after `step`, since those steps will be taken again."""
        for file in (self.metrics, self.timing):
            if file.exists():
                kept = [json.dumps(line) for line in read_lines(file) if line["step"] <= step]
                write_text(file, "".join(line + "\n" for line in kept))


def _is_temporary(path: Path) -> bool:
    """Whether a path is a temporary file of a process that was killed."""
    return path.name.startswith(".") and ".partial" in path.name


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Records of a .jsonl file; an incomplete last line, left by a killed process, is omitted.

    Raises:
        InputError: any other line is damaged.
    """
    return list(_complete_lines(file)) if file.exists() else []


def _complete_lines(file: Path) -> Iterator[dict[str, Any]]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read: {error}") from None
    for number, line in enumerate(text.splitlines(keepends=True), 1):
        if not line.endswith("\n"):
            continue
        try:
            found = json.loads(line)
            json.dumps(found, allow_nan=False)
        except (ValueError, RecursionError):
            found = None
        if not _is_log_line(found, file.name):
            raise InputError(f"{file} is damaged at line {number}; remove that line")
        yield found


def _is_log_line(found: Any, name: str) -> bool:
    """Whether a document is a line of metrics.jsonl or timing.jsonl: a step, and numbers beside the name of a split."""
    if not isinstance(found, dict) or type(found.get("step")) is not int:
        return False
    others = {key: value for key, value in found.items() if key != "split"}
    if any(type(value) not in (int, float) for value in others.values()):
        return False
    return isinstance(found.get("split"), str) if name == "metrics.jsonl" else "seconds" in found


def next_run(name: str, parent: Path = RUNS) -> RunDirectory:
    """The next free run directory runs/<name>-001, -002, ..., without creating it."""
    number = 1
    while (parent / f"{name}-{number:03d}").exists():
        number += 1
    return RunDirectory(parent / f"{name}-{number:03d}")


def reserve_run(name: str, parent: Path = RUNS) -> RunDirectory:
    """Create the next free run directory; runs that start at the same time get different ones."""
    make_folder(parent)
    while True:
        run = next_run(name, parent)
        try:
            run.path.mkdir()
        except FileExistsError:
            continue
        return run


def newest_run(parent: Path = RUNS) -> RunDirectory:
    """The run that was started last; unreadable runs are skipped with a warning."""
    started: dict[float, RunDirectory] = {}
    for path in sorted(parent.glob("*/run.json")):
        run = RunDirectory(path.parent)
        try:
            started[run.read()["created"]] = run
        except InputError as error:
            logging.getLogger("slotssm").warning("skipped: %s", error)
    if not started:
        raise InputError(f"no run in {parent.resolve()}; train one first, or name a run directory")
    return started[max(started)]


def processor() -> dict[str, Any]:
    """Name of the processor, the vector instructions that torch uses, and the number of cores."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        name = names[0] if names else name
    return {"name": name, "instructions": torch.backends.cpu.get_cpu_capability(), "cores": os.cpu_count()}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("slotssm", "torch", "numpy", "numba", "h5py", "pymunk"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def _git_commit() -> str | None:
    """Commit of the source tree; None for an installed package."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None if result.returncode == 0 else None
