"""A cell as a job: a command line of its own, whose output goes into a log.

A scheduler's job imports this module and starts the command: it loads nothing heavy itself.
"""

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slotssm.errors import Interrupted, SlotSSMError
from slotssm.files import make_folder

POLL_S = 0.2
BUSY_S = 30.0
"""Time after which a cell is tried again whose run, or the run that it starts from, another process trains."""
SCONTROL_S = 60.0
"""How long Slurm may take to tell the state of a job."""
ENDED = "ended with exit code"
_TAIL_BYTES = 8192

PREEMPTION = getattr(signal, "SIGUSR2", None)
"""The signal that Slurm sends to all processes of a job before it ends it, as submitit asks; None on Windows."""


def log_path(folder: Path, name: str) -> Path:
    """Path of the log of a cell, to which every attempt is appended."""
    return folder / "logs" / f"{name}.log"


def last_line(log: Path) -> tuple[str, bool]:
    """The last line of a log that is not empty, and whether the command has failed; empty without a log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            lines = [line.strip() for line in file.read().decode(errors="replace").split("\n") if line.strip()]
    except OSError:
        lines = []
    if not lines or not lines[-1].startswith(ENDED):
        return (lines[-1] if lines else ""), False
    return "; ".join(lines[-2:]), True


@dataclass
class CellJob:
    """A command that measures one cell; calling it runs the command, as a job of a scheduler does.

    Attributes:
        name: name of the cell.
        command: the command line.
        folder: folder of the reproduction.
        variables: environment variables that are set for it.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    variables: Mapping[str, str]

    @property
    def log(self) -> Path:
        """Its log."""
        return log_path(self.folder, self.name)

    @property
    def is_recorded(self) -> bool:
        """Whether the cell has a record."""
        return (self.folder / "cells" / f"{self.name}.json").exists()

    def start(self) -> subprocess.Popen[bytes]:
        """Start the command."""
        make_folder(self.log.parent)
        with self.log.open("ab") as file:
            return subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.variables},
                preexec_fn=_ignore_preemption if PREEMPTION is not None else None,
            )

    def close(self, code: int) -> None:
        """Note in the log that the command has failed."""
        if code not in (0, Interrupted.exit_code):
            with self.log.open("a", encoding="utf-8") as file:
                file.write(f"{ENDED} {code}\n")

    def __call__(self) -> None:
        """Run the command as a job of Slurm, and again while another process works on the same runs.

        If it was stopped by a signal to all processes of the job, and has saved its state, the job is put back into
        the queue, by the handler that submitit has for the signal of preemption; not if the job was cancelled.

        Raises:
            SlotSSMError: the command failed.
        """
        while True:
            process = self.start()
            self._process = process
            while not _has_ended(process):
                time.sleep(POLL_S)
            code = process.wait()
            self.close(code)
            if code == Interrupted.exit_code and PREEMPTION is not None and not _is_cancelled():
                os.kill(os.getpid(), PREEMPTION)
            if code:
                raise SlotSSMError(f"{self.name} {ENDED} {code}; {self.log} has its output")
            if self.is_recorded:
                return
            time.sleep(BUSY_S)

    def checkpoint(self) -> Any:
        """Stop the command at its next safe point; returns the job that goes on, as submitit submits it again."""
        from submitit.helpers import DelayedSubmission

        process = getattr(self, "_process", None)
        if process is not None and not _has_ended(process):
            process.terminate()
            while not _has_ended(process):
                time.sleep(POLL_S)
        return DelayedSubmission(replace(self))


def _ignore_preemption() -> None:
    """Leave the signal of preemption to the job, which stops its command in the usual way."""
    assert PREEMPTION is not None
    signal.signal(PREEMPTION, signal.SIG_IGN)


def _is_cancelled() -> bool:
    """Whether Slurm ends this job for good, as after `scancel`; False where it does not say."""
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return False
    command = ["scontrol", "show", "job", "-o", job]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SCONTROL_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    state = re.search(r"\bJobState=(\w+)", done.stdout)
    # a job that is preempted, or near its limit, is still running
    return state is not None and state[1] in ("CANCELLED", "COMPLETING")


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process has ended; unlike `poll` it holds no lock, which a signal handler might find taken."""
    if process.returncode is not None:
        return True
    if not hasattr(os, "waitid"):
        return process.poll() is not None
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
