"""A job that is killed at any moment loses nothing."""

import json
import os
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
from safetensors.torch import load_file

from generators.writer import verify

COMMAND = [sys.executable, "-m", "slotssm_cli.main", "train", "--preset", "tiny-oc"]
OPTIONS = ["--set", "train.checkpoint_every_steps=10", "--set", "train.log_every_steps=1"]


def wait_for(condition, process) -> None:
    for _ in range(1200):
        if condition():
            return
        assert process.poll() is None, f"ended early with {process.returncode}"
        time.sleep(0.02)
    raise AssertionError("never happened")


def steps(run) -> int:
    log = run / "metrics.jsonl"
    return log.read_text().count('"train"') if log.exists() else 0


def start(run, environment):
    return subprocess.Popen([*COMMAND, *OPTIONS, "--out", str(run)], env=environment, stderr=subprocess.DEVNULL)


def weights(run):
    return load_file(run / "checkpoints" / "step-00000060" / "model.safetensors")


@pytest.fixture
def whole(workplace, environment):
    """60 steps in one go."""
    run = workplace / "whole"
    assert start(run, environment).wait() == 0
    return run


def test_killed_and_resumed_is_bitwise_the_whole(whole, workplace, environment):
    run = workplace / "parted"
    process = start(run, environment)
    wait_for(lambda: steps(run) >= 33, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert steps(run) < 60
    resume = [*COMMAND, *OPTIONS, "--out", str(run), "--resume", "--json"]
    done = subprocess.run(resume, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"] == str(run)
    ours, theirs = weights(whole), weights(run)
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)
    assert (whole / "metrics.jsonl").read_text() == (run / "metrics.jsonl").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_polite_signal_saves_and_exits_with_3(workplace, environment, number):
    run = workplace / "run"
    process = start(run, environment)
    wait_for(lambda: steps(run) >= 12, process)
    process.send_signal(number)
    assert process.wait() == 3
    taken = steps(run)
    assert 12 <= taken < 60
    assert (run / "checkpoints" / "last").read_text().strip() == f"step-{taken:08d}"


# --- generation and import --------------------------------------------------------------------------------

SLOTSSM = [sys.executable, "-m", "slotssm_cli.main"]
GENERATE = [*SLOTSSM, "generate", "bouncing", "--size", "32", "--train", "1600", "--val", "0", "--test", "0"]


def parts(out):
    return list(out.with_name(out.name + ".parts").glob("*.h5"))


def run(command, environment):
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_generation_is_stopped_and_resumed(workplace, environment):
    out = workplace / "d.h5"
    command = [*GENERATE, "--out", str(out), "--json"]
    two = [*command, "--workers", "2"]
    process = subprocess.Popen(two, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
    wait_for(lambda: len(parts(out)) >= 2, process)
    os.killpg(process.pid, signal.SIGTERM)
    words, _ = process.communicate()
    assert process.returncode == 3
    assert json.loads(words)["exit_code"] == 3
    assert "of 1600 episodes are kept" in json.loads(words)["error"]
    assert len(parts(out)) >= 2
    unwilling = run(command, environment)
    assert unwilling.returncode == 2
    assert "unfinished generation" in unwilling.stderr
    for _ in range(2):  # the second time there is nothing left to do
        done = run([*command, "--resume"], environment)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["num_episodes"] == {"train": 1600}
    assert [path.name for path in workplace.iterdir()] == ["d.h5"]
    assert verify(out).mismatches == []


def test_an_import_is_stopped_and_resumed(workplace, environment):
    with h5py.File(workplace / "balls.h5", "w") as file:
        rng = np.random.default_rng(0)
        for split in ("training", "test"):
            file[f"{split}/features"] = rng.integers(0, 2, (10, 400, 24, 24, 1)).astype(np.float32)
            file[f"{split}/groups"] = rng.integers(0, 3, (10, 400, 24, 24, 1)).astype(np.float32)
    out = workplace / "d.h5"
    command = [*SLOTSSM, "import", "rnem", str(workplace / "balls.h5"), "--out", str(out)]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len(parts(out)) >= 1, process)
    process.send_signal(signal.SIGTERM)
    _, words = process.communicate()
    assert process.returncode == 3, words
    assert "of 800 episodes are kept" in words
    assert run(command, environment).returncode == 2
    for _ in range(2):
        done = run([*command, "--resume", "--json"], environment)
        assert done.returncode == 0, done.stderr
        assert sum(json.loads(done.stdout)["num_episodes"].values()) == 800
    assert sorted(path.name for path in workplace.iterdir()) == ["balls.h5", "d.h5"]
