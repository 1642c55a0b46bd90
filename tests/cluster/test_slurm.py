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

NUM_STEPS, LOGGED = 900, 10
SLOTSSM = [sys.executable, "-m", "slotssm"]
SETTINGS = {
    "model.num_slots": 3,
    "model.slot_dim": 16,
    "model.num_layers": 1,
    "model.num_heads": 2,
    "train.num_steps": NUM_STEPS,
    "train.log_every_steps": LOGGED,
    "train.checkpoint_every_steps": 100,
    "train.eval_every_steps": 450,
}
SWEEP = [*SLOTSSM, "sweep", "--preset", "tiny-oc", "--seeds", "0,1", "--device", "cpu"]
SWEEP += ["--plugin", "slower.py"]
SWEEP += [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
PATIENCE_S = 900
SLOWER = """
import time
from slotssm.training.trainer import Trainer

take_step = Trainer._take_step


def slower(self, batch):
    time.sleep(0.03)
    return take_step(self, batch)


Trainer._take_step = slower
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


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("sweeps")
    # also on a fast machine there is time to interrupt a run
    (place / "slower.py").write_text(SLOWER)
    return place


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


def test_a_preempted_sweep_on_a_lost_node_is_the_local_one(cluster, place):
    folder = place / "slurm"
    options = ["--out", str(folder), "--executor", "slurm", "--slurm", "partition=usual", "--slurm", "cpus-per-task=1"]
    done = cluster.run(*SWEEP, *options, "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    jobs = json.loads(done.stdout)["jobs"]
    assert list(jobs) == ["s0", "s1"]
    array = jobs["s0"].partition("_")[0]
    assert list(jobs.values()) == [f"{array}_0", f"{array}_1"]

    # both are running when a job with a higher priority takes their node
    wait_for(lambda: len(steps(folder)) == 2 and min(steps(folder)) > 0, "both cells are trained")
    assert [cell["state"] for cell in cells(folder)] == ["running", "running"]
    assert max(steps(folder)) < NUM_STEPS
    urgent = cluster.run("sbatch", "--partition=urgent", "--cpus-per-task=2", "--output=/dev/null", "--wrap=sleep 3")
    assert urgent.returncode == 0, urgent.stderr
    wait_for(lambda: all(cluster.restarts(job) >= 1 for job in jobs.values()), "both jobs are back in the queue")
    for name in jobs:
        log = (folder / "logs" / f"{name}.log").read_text()
        assert "SIGTERM: saved step" in log
    reached = steps(folder)

    # they go on by themselves, until their node is lost
    wait_for(lambda: all(now > before for now, before in zip(steps(folder), reached, strict=True)), "both go on")
    cluster.kill_node()
    wait_for(lambda: cluster.node_state().startswith("down"), "the node is missed")
    assert min(steps(folder)) < NUM_STEPS
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
    # long enough to be interrupted
    script = script.replace("--resume &", "--resume --set train.num_steps=600 --plugin slower.py &")
    (place / "train.sbatch").write_text(script)
    done = cluster.run("sbatch", "train.sbatch", cwd=place)
    assert done.returncode == 0, done.stderr
    job = done.stdout.split()[-1]
    run = place / "runs" / "cluster"
    wait_for(lambda: (run / "metrics.jsonl").exists(), "two processes train")
    cluster.run("scancel", "--signal=TERM", "--batch", job)
    wait_for(lambda: cluster.restarts(job) == 1, "the job is back in the queue")
    log = place / f"train-{job}.log"
    assert "SIGTERM: saved step" in log.read_text()
    wait_for(lambda: job not in cluster.queue(), "the job ends")
    assert (run / "checkpoints" / "step-00000600").is_dir(), log.read_text()[-2000:]
    record = json.loads((run / "run.json").read_text())
    assert record["processes"] == 2
