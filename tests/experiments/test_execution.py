"""Cells as jobs: their order, their logs, several at a time, settings of Slurm."""

import os
import signal
import sys
import threading
import time
from itertools import pairwise

import pytest

from slotssm.errors import InputError, Interrupted, SlotSSMError
from slotssm.experiments.execution import jobs as jobs_module
from slotssm.experiments.execution.jobs import CellJob, last_line
from slotssm.experiments.execution.local import THREADS, run_side_by_side, threads_each
from slotssm.experiments.execution.order import predecessors
from slotssm.experiments.execution.slurm import minutes, settings_of
from slotssm.experiments.presets import preset
from slotssm.experiments.reproductions.cells import TrainingCell


def cell(name, start=None):
    return TrainingCell(name, "slotssm", {}, preset("tiny-oc"), start=start)


def job(folder, name, code, **variables):
    return CellJob(name, (sys.executable, "-c", code), folder, variables)


def test_cells_wait_for_the_weights_they_start_from():
    first, shared = cell("first"), cell("shared")
    cells = [first, cell("second", first), cell("third", shared), cell("fourth", shared), cell("fifth")]
    # `shared` is no cell of its own: the first that needs it trains it
    assert predecessors(cells) == {
        "first": None,
        "second": "first",
        "third": None,
        "fourth": "third",
        "fifth": None,
    }


def test_jobs_run_side_by_side_but_after_the_one_they_wait_for(tmp_path):
    code = "import time, sys; print('start', time.monotonic()); time.sleep(0.5); print('end', time.monotonic())"
    jobs = [job(tmp_path, name, code) for name in "abcd"]
    assert run_side_by_side(jobs, {"b": "a"}, 2) == dict.fromkeys("abcd", 0)
    spans = {}
    for each in jobs:
        words = each.log.read_text().split()
        spans[each.name] = float(words[1]), float(words[3])
    assert spans["b"][0] > spans["a"][1]
    moments = sorted([(start, 1) for start, _ in spans.values()] + [(end, -1) for _, end in spans.values()])
    running, most = 0, 0
    for _, change in moments:
        running += change
        most = max(most, running)
    assert most == 2
    assert all(earlier <= later for earlier, later in pairwise(time for time, _ in moments))


def test_a_crash_is_told_in_the_log_and_stops_no_other(tmp_path):
    jobs = [job(tmp_path, "a", "print('why'); raise SystemExit(7)"), job(tmp_path, "b", "print('fine')")]
    assert run_side_by_side(jobs, {"b": "a"}, 2) == {"a": 7, "b": 0}
    assert last_line(jobs[0].log) == ("why; ended with exit code 7", True)
    assert last_line(jobs[1].log) == ("fine", False)
    assert last_line(tmp_path / "absent.log") == ("", False)


def test_a_signal_is_passed_on_to_the_jobs(tmp_path):
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: (print('saved'), sys.exit(3)))\n"
    code += "print('ready', flush=True)\ntime.sleep(60)"
    jobs = [job(tmp_path, name, code) for name in "abc"]

    def interrupt():
        while not all(each.log.exists() and "ready" in each.log.read_text() for each in jobs[:2]):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(Interrupted, match="SIGTERM: 2 cells were stopped"):
        run_side_by_side(jobs, {}, 2)
    assert [each.log.read_text() for each in jobs[:2]] == ["ready\nsaved\n"] * 2
    assert not jobs[2].log.exists()


def test_threads_are_divided_unless_the_environment_says(monkeypatch):
    monkeypatch.delenv(THREADS, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    assert threads_each(3) == {THREADS: "2"}
    assert threads_each(20) == {THREADS: "1"}
    monkeypatch.setenv(THREADS, "4")
    assert threads_each(3) == {}


def test_a_job_tries_again_while_another_process_has_the_cell(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs_module, "BUSY_S", 0.01)
    code = (
        "import os, pathlib\nroot = pathlib.Path(os.environ['ROOT'])\n"
        "with (root / 'tries').open('a') as file: file.write('x')\n"
        "if len((root / 'tries').read_text()) == 3:\n"
        "    (root / 'cells').mkdir(); (root / 'cells' / 'a.json').write_text('{}')\n"
    )
    job(tmp_path, "a", code, ROOT=str(tmp_path))()
    assert (tmp_path / "tries").read_text() == "xxx"


def test_a_job_that_fails_raises(tmp_path):
    with pytest.raises(SlotSSMError, match=r"a ended with exit code 1; .*a\.log has its output"):
        job(tmp_path, "a", "raise SystemExit(1)")()


def test_a_job_that_has_saved_asks_for_the_queue(tmp_path):
    received = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: received.append(number))
    try:
        # the command itself does not receive the signal, which the scheduler sends to all processes
        code = "import os, signal; os.kill(os.getpid(), signal.SIGUSR2); raise SystemExit(3)"
        with pytest.raises(SlotSSMError):
            job(tmp_path, "a", code)()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert received == [signal.SIGUSR2]


@pytest.mark.skipif(os.name != "posix", reason="Slurm runs on POSIX systems")
@pytest.mark.parametrize(
    ("answer", "is_requeued"),
    [("JobId=7 JobState=RUNNING", 1), ("JobId=7 JobState=CANCELLED", 0), ("JobState=COMPLETING x", 0), ("", 1)],
)
def test_a_cancelled_job_is_not_put_back_into_the_queue(tmp_path, monkeypatch, answer, is_requeued):
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    scontrol.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\necho {answer}\n')
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    received = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: received.append(number))
    try:
        with pytest.raises(SlotSSMError):
            job(tmp_path, "a", "raise SystemExit(3)")()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert received == [signal.SIGUSR2] * is_requeued
    assert (tmp_path / "asked").read_text() == "show job -o 7\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90), ("90:00", 90), ("90:01", 91), ("1:30:00", 90), ("2-12", 3600), ("1-0:30", 1470), ("1-00:30:10", 1471)],
)
def test_time_limits(text, expected):
    assert minutes(text) == expected


def test_settings_of_slurm():
    found = settings_of(["partition=gpu", "cpus-per-task=4", "time=2:00:00", "gres=gpu:h100:1"])
    assert found == {"partition": "gpu", "cpus_per_task": 4, "time": 120, "gres": "gpu:h100:1"}
    for wrong, message in [
        ("partition", "expected KEY=VALUE"),
        ("=gpu", "expected KEY=VALUE"),
        ("nodes=two", "expected a whole number"),
        ("time=soon", "expected minutes"),
    ]:
        with pytest.raises(InputError, match=message):
            settings_of([wrong])
