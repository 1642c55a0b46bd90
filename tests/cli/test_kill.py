"""A job that is killed at any moment loses nothing."""

import json
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

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
