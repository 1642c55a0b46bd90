"""Cells in a real Slurm cluster: an array, preemption, a lost node; skipped where Slurm is not installed."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from private_cluster import Cluster, missing

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(missing()), reason=missing() or "-")]

NUM_STEPS, LOGGED = 24, 4
SLOTSSM = [sys.executable, "-m", "slotssm"]
SETTINGS = {
    "model.num_slots": 3,
    "model.slot_dim": 16,
    "model.num_layers": 1,
    "model.num_heads": 2,
    "train.num_steps": NUM_STEPS,
    "train.log_every_steps": LOGGED,
    "train.checkpoint_every_steps": 12,
    "train.eval_every_steps": 12,
}
SWEEP = [*SLOTSSM, "sweep", "--preset", "tiny-oc", "--seeds", "0,1", "--device", "cpu"]
SWEEP += ["--plugin", "held.py"]
SWEEP += [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
USUAL = ["--executor", "slurm", "--slurm", "partition=usual", "--slurm", "cpus-per-task=1"]
PATIENCE_S = 1800
"""How long anything may take on a machine with other work."""
HELD = """
import time
from pathlib import Path
from slotssm.interrupts import stop_requests
from slotssm.training.trainer import Trainer

take_step = Trainer._take_step


def held(self, batch):
    with stop_requests() as stop:
        began = time.monotonic()
        while self.step >= int(Path(GATE).read_text()) and not stop and time.monotonic() < began + PATIENCE_S:
            time.sleep(0.05)
    return take_step(self, batch)


Trainer._take_step = held
"""


@pytest.fixture(scope="module")
def cluster():
    # a short path, since sockets have short names
    folder = Path(tempfile.mkdtemp(prefix="slurm"))
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)
    assert not cluster.processes()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a plugin that holds every training at the step in a file, so that it can be interrupted there."""
    place = tmp_path_factory.mktemp("sweeps")
    constants = f"GATE, PATIENCE_S = {str(place / 'gate')!r}, {PATIENCE_S}\n"
    (place / "held.py").write_text(constants + HELD)
    return place


def hold_at(place: Path, step: int) -> None:
    """Let trainings go on to a step, and wait there until they may go on or are told to stop."""
    new = place / "gate.new"
    new.write_text(str(step))
    new.replace(place / "gate")


def wait_for(condition, what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.2)


def cells(folder: Path) -> list[dict]:
    done = subprocess.run([*SLOTSSM, "status", str(folder), "--json"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)["cells"]


def steps(folder: Path) -> list[int]:
    logs = sorted(folder.glob("runs/*/metrics.jsonl"))
    return [LOGGED * log.read_text().count('"train"') for log in logs]


def submitted(cluster, place: Path, folder: Path) -> dict[str, str]:
    """Submit the sweep; returns the job of each cell."""
    done = cluster.run(*SWEEP, "--out", str(folder), *USUAL, "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["jobs"]


def test_a_preempted_sweep_on_a_lost_node_is_the_local_one(cluster, place):
    folder = place / "slurm"
    hold_at(place, 8)
    jobs = submitted(cluster, place, folder)
    assert list(jobs) == ["s0", "s1"]
    array = jobs["s0"].partition("_")[0]
    assert list(jobs.values()) == [f"{array}_0", f"{array}_1"]

    # both are running when a job with a higher priority takes their node
    wait_for(lambda: steps(folder) == [8, 8], "both cells are trained")
    assert [cell["state"] for cell in cells(folder)] == ["running", "running"]
    urgent = cluster.run("sbatch", "--partition=urgent", "--cpus-per-task=2", "--output=/dev/null", "--wrap=sleep 1")
    assert urgent.returncode == 0, urgent.stderr
    wait_for(lambda: all(cluster.restarts(job) >= 1 for job in jobs.values()), "both jobs are back in the queue")
    for name in jobs:
        log = (folder / "logs" / f"{name}.log").read_text()
        assert "SIGTERM: saved step 9" in log

    # they go on by themselves, until their node is lost, four steps after the last checkpoint
    hold_at(place, 16)
    wait_for(lambda: steps(folder) == [16, 16], "both go on")
    cluster.kill_node()
    wait_for(lambda: cluster.node_state().startswith("down"), "the node is missed")
    assert {last.read_text().strip() for last in folder.glob("runs/*/checkpoints/last")} == {"step-00000012"}
    hold_at(place, NUM_STEPS)
    cluster.start_node()
    wait_for(lambda: not cluster.queue(), "all jobs are done")
    assert [cell["state"] for cell in cells(folder)] == ["done", "done"], list((folder / "logs").rglob("*"))

    # the same as on one machine
    local = place / "local"
    done = cluster.run(*SWEEP, "--out", str(local), "--executor", "local", "--jobs", "2", cwd=place)
    assert done.returncode == 0, done.stderr
    for name in jobs:
        log = Path("runs") / name / "metrics.jsonl"
        assert (folder / log).read_text() == (local / log).read_text()
    assert (folder / "table.csv").read_text() == (local / "table.csv").read_text()


def test_a_cancelled_sweep_stays_cancelled_until_it_is_submitted_again(cluster, place):
    folder = place / "cancelled"
    hold_at(place, 8)
    jobs = submitted(cluster, place, folder)
    wait_for(lambda: steps(folder) == [8, 8], "both cells are trained")
    cluster.run("scancel", *jobs.values())
    wait_for(lambda: not cluster.queue(), "both jobs end")
    time.sleep(5)
    assert not cluster.queue()
    for name, job in jobs.items():
        assert cluster.restarts(job) == 0
        assert "SIGTERM: saved step 9" in (folder / "logs" / f"{name}.log").read_text()
    hold_at(place, NUM_STEPS)
    submitted(cluster, place, folder)
    wait_for(lambda: not cluster.queue(), "all jobs are done")
    assert [cell["state"] for cell in cells(folder)] == ["done", "done"], list((folder / "logs").rglob("*"))


def test_refused_settings_are_one_line(cluster, place):
    folder = place / "refused"
    options = ["--out", str(folder), "--executor", "slurm", "--slurm", "partition=nowhere"]
    done = cluster.run(*SWEEP, *options, cwd=place)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("slotssm: ")]
    assert "invalid partition" in line


def test_the_script_of_the_page_goes_on_after_a_signal(cluster, place):
    page = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text(encoding="utf-8")
    script = next(block for block in page.split("```bash\n") if block.startswith("#!/bin/bash")).partition("```")[0]
    settings = {"num_steps": 8, "log_every_steps": 4, "eval_every_steps": 0}
    further = " ".join(f"--set train.{key}={value}" for key, value in settings.items())
    script = script.replace("--resume &", f"--resume {further} --plugin held.py &")
    (place / "train.sbatch").write_text(script)
    hold_at(place, 4)
    done = cluster.run("sbatch", "train.sbatch", cwd=place)
    assert done.returncode == 0, done.stderr
    job = done.stdout.split()[-1]
    run = place / "runs" / "cluster"
    wait_for(lambda: (run / "metrics.jsonl").exists(), "two processes train")
    cluster.run("scancel", "--signal=TERM", "--batch", job)
    wait_for(lambda: cluster.restarts(job) == 1, "the job is back in the queue")
    log = place / f"train-{job}.log"
    assert "SIGTERM: saved step 5" in log.read_text()
    hold_at(place, 8)
    wait_for(lambda: job not in cluster.queue(), "the job ends")
    assert (run / "checkpoints" / "step-00000008").is_dir(), log.read_text()[-2000:]
    record = json.loads((run / "run.json").read_text())
    assert record["processes"] == 2
