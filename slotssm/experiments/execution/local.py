"""Several cells at a time on this machine, each in a process of its own."""

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

from slotssm.errors import Interrupted
from slotssm.experiments.execution.jobs import POLL_S, CellJob
from slotssm.interrupts import stop_requests

THREADS = "OMP_NUM_THREADS"


def threads_each(num_jobs: int) -> dict[str, str]:
    """Variables that give each of several jobs its share of the cores, unless the environment says how many."""
    if THREADS in os.environ:
        return {}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {THREADS: str(max(1, cores // num_jobs))}


def run_side_by_side(
    jobs: Sequence[CellJob],
    before: Mapping[str, str | None],
    num_jobs: int,
    on_note: Callable[[str], None] = lambda text: None,
) -> dict[str, int]:
    """Run jobs, at most `num_jobs` at a time, each when the one that it waits for has ended.

    Args:
        jobs: the jobs, in order.
        before: for every cell the one to wait for, as `predecessors` finds it.
        num_jobs: number of jobs at a time.
        on_note: called when a job begins or ends.

    Returns:
        Exit code of every job.

    Raises:
        Interrupted: a signal arrived; the jobs were passed the signal and have saved their state.
    """
    waiting, running, ended = list(jobs), dict[str, tuple[CellJob, subprocess.Popen[bytes]]](), dict[str, int]()
    names = {job.name for job in jobs}
    with stop_requests() as stop:
        try:
            while (waiting or running) and not stop:
                free = [job for job in waiting if before.get(job.name) not in names - ended.keys()]
                for job in free[: num_jobs - len(running)]:
                    waiting.remove(job)
                    running[job.name] = job, job.start()
                    on_note(f"{job.name}: started, {job.log}")
                time.sleep(POLL_S)
                for job, process in list(running.values()):
                    code = process.poll()
                    if code is not None:
                        del running[job.name]
                        ended[job.name] = code
                        job.close(code)
                        on_note(f"{job.name}: ended" + (f" with exit code {code}" if code else ""))
        finally:
            for _, process in running.values():
                process.terminate()
            for _, process in running.values():
                process.wait()
        if stop:
            raise Interrupted(f"{stop.signal_name}: {len(running)} cells were stopped; the same command continues")
    return ended
