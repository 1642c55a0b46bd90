"""Cells as a job array of Slurm, submitted through submitit."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slotssm.errors import InputError, SlotSSMError
from slotssm.experiments.execution.jobs import CellJob
from slotssm.files import make_folder

SAVE_S = 120
"""Seconds before the end of a job at which Slurm asks it to save its state, unless the settings say otherwise."""
MOST_REQUEUES = 1000
"""How often a job goes on after its time limit."""
MINUTES = 60
"""Time limit of a job in minutes, unless the settings name one."""

_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?P<parts>\d+(?::\d+){0,2})")
_WHOLE_NUMBERS = {"nodes", "ntasks_per_node", "cpus_per_task", "gpus_per_node", "signal_delay_s", "array_parallelism"}


def settings_of(assignments: Sequence[str]) -> dict[str, Any]:
    """Settings of a job from KEY=VALUE, as Slurm's options name them: `partition`, `time`, `cpus_per_task`, ...

    Raises:
        InputError: an assignment is malformed.
    """
    found: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not key or not value.strip():
            raise InputError(f"`slurm` {assignment}: expected KEY=VALUE, for example partition=gpu")
        found[key] = value.strip()
    for key in _WHOLE_NUMBERS & found.keys():
        if not found[key].isdecimal():
            raise InputError(f"`slurm` {key}={found[key]}: expected a whole number")
        found[key] = int(found[key])
    if "time" in found:
        found["time"] = minutes(found["time"])
    return found


def minutes(text: str) -> int:
    """A time limit as Slurm takes it (`90`, `1:30:00`, `2-12`), in minutes, rounded up."""
    matched = _TIME.fullmatch(text)
    if matched is None:
        raise InputError(f"`slurm` time={text}: expected minutes, [days-]hours:minutes:seconds or days-hours")
    parts = [int(part) for part in matched["parts"].split(":")]
    if matched["days"] is not None:
        hours, mins, seconds = [*parts, 0, 0][:3]
        hours += 24 * int(matched["days"])
    else:
        # one number is minutes, two are minutes and seconds
        hours, mins, seconds = {1: [0, *parts, 0], 2: [0, *parts], 3: parts}[len(parts)]
    return 60 * hours + mins + (seconds > 0)


def submit(
    jobs: Sequence[CellJob], before: Mapping[str, str | None], folder: Path, settings: Mapping[str, Any]
) -> dict[str, str]:
    """Submit jobs as arrays: one of those that need not wait, and one for each cell that others wait for.

    A job that runs into its time limit, is preempted or loses its node goes back into the queue and continues.

    Args:
        jobs: the jobs, in order; a job comes after the one that it waits for.
        before: for every cell the one to wait for, as `predecessors` finds it.
        folder: folder of the reproduction, which all nodes see.
        settings: from `settings_of`.

    Returns:
        Slurm's id of every job, by cell.

    Raises:
        InputError: submitit or Slurm is missing, or Slurm refuses the settings.
    """
    executor_class = _submitit()
    scripts = folder / "logs" / "slurm"
    make_folder(scripts)
    submitted: dict[str, str] = {}
    left = list(jobs)
    while left:
        names = {job.name for job in left}
        waits_for = {job.name: before.get(job.name) for job in left}
        first = next(waits_for[job.name] for job in left if waits_for[job.name] not in names)
        group = [job for job in left if waits_for[job.name] == first]
        left = [job for job in left if waits_for[job.name] != first]
        dependency = {"dependency": f"afterany:{submitted[first]}"} if first in submitted else {}
        try:
            executor = executor_class(folder=scripts, max_num_timeout=MOST_REQUEUES)
            executor.update_parameters(**_parameters({**settings, **dependency}))
            with executor.batch():
                found = [executor.submit(job) for job in group]
        except RuntimeError as error:
            raise SlotSSMError(f"Slurm refused the jobs: {_reason(error)}") from None
        submitted |= {job.name: each.job_id for job, each in zip(group, found, strict=True)}
    return submitted


def _submitit() -> Any:
    try:
        from submitit import SlurmExecutor
    except ModuleNotFoundError:
        raise InputError(
            "`executor` slurm needs the package submitit; pip install 'slotssm[cluster]' brings it"
        ) from None
    if SlurmExecutor.affinity() <= 0:
        raise InputError("`executor` slurm: there is no srun here; call it on a machine that submits jobs to Slurm")
    # what submitit prints is for those who call it
    logging.getLogger("submitit").setLevel(logging.ERROR)
    return SlurmExecutor


def _parameters(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as submitit takes them; options that it does not know are passed on to sbatch."""
    from submitit import SlurmExecutor

    known = SlurmExecutor._valid_parameters()
    own = {"time": MINUTES, "job_name": "slotssm", "signal_delay_s": SAVE_S, "wckey": None}
    own |= {key: value for key, value in settings.items() if key in known}
    further = {"requeue": True, **{key: value for key, value in settings.items() if key not in known}}
    if "cpus_per_task" in own:
        cores = own["cpus_per_task"]
        # srun does not take it over from sbatch
        own["srun_args"] = [f"-c{cores}"]
        own["setup"] = [f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{cores}}}"]
    return {**own, "additional_parameters": further}


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[-300:] or type(error).__name__
