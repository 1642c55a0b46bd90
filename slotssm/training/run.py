"""The run directory: what a run is, what it logged, and where its checkpoints lie (layout: docs/data-format.md)."""

import json
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

from slotssm.config import RunConfig
from slotssm.documents import load
from slotssm.errors import InputError
from slotssm.files import explained, make_folder, read_json, write_json, write_text

RUNS = Path("runs")


@dataclass(frozen=True)
class RunDirectory:
    """Paths and records of one run.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def record(self) -> Path:
        """run.json: configuration, arguments, versions, commit, fingerprint of the data, device."""
        return self.path / "run.json"

    @property
    def metrics(self) -> Path:
        """metrics.jsonl: one line for every logged step; a function of the configuration alone."""
        return self.path / "metrics.jsonl"

    @property
    def timing(self) -> Path:
        """timing.jsonl: how long the steps took."""
        return self.path / "timing.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def lock(self) -> Path:
        """Held while a process trains the run."""
        return self.path / ".lock"

    @property
    def figures(self) -> Path:
        """Folder of pictures."""
        return self.path / "figures"

    def evaluation(self, split: str) -> Path:
        """eval/<split>.json."""
        return self.path / "eval" / f"{split}.json"

    def create(self, config: RunConfig, data: Path, fingerprint: str, device: str, argv: list[str]) -> None:
        """Make the folder and save what the run is, before its first step."""
        make_folder(self.path)
        write_json(
            self.record,
            {
                "created": time.time(),
                "config": config.model_dump(mode="json"),
                "data": str(data.resolve()),
                "data_sha256": fingerprint,
                "device": device,
                "argv": argv,
                "versions": _versions(),
                "git_commit": _git_commit(),
            },
        )

    def read(self) -> dict[str, Any]:
        """The content of run.json."""
        if not self.record.exists():
            raise InputError(f"{self.path} is no run directory: it has no run.json")
        return read_json(self.record)

    def config(self) -> RunConfig:
        """The resolved configuration of the run."""
        return load(RunConfig, self.read()["config"], str(self.record))

    def data(self) -> Path:
        """The data set that the run was trained on."""
        return Path(self.read()["data"])

    def append(self, file: Path, line: dict[str, Any]) -> None:
        """Add one line to metrics.jsonl or timing.jsonl and hand it to the operating system."""
        with explained(file), file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, allow_nan=False) + "\n")

    def is_empty(self) -> bool:
        """Whether the folder is absent or holds nothing but the lock."""
        return not self.path.exists() or all(path == self.lock for path in self.path.iterdir())

    def is_complete(self) -> bool:
        """Whether the checkpoint of the last step is there."""
        if not self.record.exists():
            return False
        num_steps = self.config().train.num_steps
        return (self.checkpoints / f"step-{num_steps:08d}").is_dir()

    def clear(self) -> None:
        """Remove what belongs to a run, and nothing else."""
        for folder in (self.checkpoints, self.figures, self.path / "eval"):
            if folder.exists():
                shutil.rmtree(folder)
        for file in (self.metrics, self.timing, self.record):
            file.unlink(missing_ok=True)

    def forget_after(self, step: int) -> None:
        """Drop logged lines beyond `step`: the steps will be taken again."""
        for file in (self.metrics, self.timing):
            if file.exists():
                kept = [json.dumps(line) for line in read_lines(file) if line["step"] <= step]
                write_text(file, "".join(line + "\n" for line in kept))


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Lines of a .jsonl file; a last line cut short by a kill is left out."""
    return list(_complete_lines(file.read_text(encoding="utf-8"))) if file.exists() else []


def _complete_lines(text: str) -> Iterator[dict[str, Any]]:
    for line in text.splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)


def next_run(name: str, parent: Path = RUNS) -> RunDirectory:
    """The next free folder runs/<name>-001, -002, ..., not created."""
    number = 1
    while (parent / f"{name}-{number:03d}").exists():
        number += 1
    return RunDirectory(parent / f"{name}-{number:03d}")


def reserve_run(name: str, parent: Path = RUNS) -> RunDirectory:
    """Create the next free folder; runs that start together get different ones."""
    make_folder(parent)
    while True:
        run = next_run(name, parent)
        try:
            run.path.mkdir()
        except FileExistsError:
            continue
        return run


def newest_run(parent: Path = RUNS) -> RunDirectory:
    """The run that was begun last."""
    runs = [RunDirectory(path.parent) for path in parent.glob("*/run.json")]
    if not runs:
        raise InputError(f"no run in {parent.resolve()}; train one first (slotssm train), or name its folder")
    return max(runs, key=lambda run: run.read()["created"])


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("slotssm", "torch", "numpy", "numba", "h5py", "accelerate", "pymunk"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def _git_commit() -> str | None:
    """Commit of the source tree that is running; None for an installed package."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None if result.returncode == 0 else None


def command_line() -> list[str]:
    """How this program was called."""
    return list(sys.argv)
