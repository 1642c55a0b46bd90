"""Several processes train one run: the same run as one process, and decisions that all of them share."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from slotssm.documents import override, parse_assignments
from slotssm.errors import InputError
from slotssm.experiments.datasets import spec_of
from slotssm.experiments.presets import preset
from slotssm.experiments.runs import resume_run, start_run
from slotssm.training import checkpoint
from slotssm.training.processes import Processes, refuse_unequal
from slotssm.training.run import RunDirectory, read_lines
from slotssm.training.trainer import Trainer

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SMALL = ["model.num_slots=3", "model.slot_dim=16", "model.num_heads=2", "model.num_layers=1"]
SETTINGS = [*SMALL, "train.log_every_steps=1", "train.checkpoint_every_steps=10", "train.eval_every_steps=10"]
LENGTHS = {"whole": 100, "stopped": 12, "continued": 12, "infinite": 12}


def config_of(num_steps, *further):
    assigned = parse_assignments([*SETTINGS, f"train.num_steps={num_steps}", "train.num_eval_episodes=5", *further])
    return override(preset("tiny-oc"), assigned, "test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_data, environment):
    """Runs of one process and of two, and what each of the two saw."""
    folder = tmp_path_factory.mktemp("two")
    shutil.copy(tiny_data["tiny-oc"], folder / "data.h5")
    one = config_of(100)
    start_run(one, spec_of(one.data), folder / "data.h5", RunDirectory(folder / "one"), "cpu", lambda report: None)
    for name, num_steps in LENGTHS.items():
        (folder / f"{name}.json").write_text(config_of(num_steps).model_dump_json())
    # no error is half of the one before, so that only the first validation counts as better
    early = config_of(12, *("train.eval_every_steps=1", "train.keep_best=mse", "train.patience=4"))
    early = early.replace(train=early.train.replace(min_improvement=0.5))
    (folder / "early.json").write_text(early.model_dump_json())
    # a run that one process has begun, and two continue
    config = config_of(12)
    begun = RunDirectory(folder / "continued")

    def leave(report):
        if report.step == 11:
            raise KeyboardInterrupt

    # ended by force after step 11, so that the checkpoint of step 10 is the last
    with pytest.raises(KeyboardInterrupt):
        start_run(config, spec_of(config.data), folder / "data.h5", begun, "cpu", leave)
    script = str(Path(__file__).parent / "two_processes.py")
    done = subprocess.run(
        [*TORCHRUN, script, str(folder)], env=environment, capture_output=True, text=True, check=False, timeout=1200
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def seen(folder):
    return [json.loads((folder / f"seen-{rank}.json").read_text()) for rank in range(2)]


@pytest.fixture(scope="module")
def resumed(folder):
    """The same folder, once one process has continued the run that two were told to stop."""
    resume_run(RunDirectory(folder / "stopped"), "cpu", lambda report: None)
    return folder


def lines(run, split):
    return [line for line in read_lines(RunDirectory(run).metrics) if line["split"] == split]


def test_gradients_are_means_and_unused_parameters_keep_none(seen):
    for one in seen:
        assert one["averages"] == [[1.5, 3.0], [2.0, 4.0], None]


def test_a_signal_to_one_process_is_a_signal_to_all(seen):
    for one in seen:
        assert one["signals"] == ["SIGTERM", ""]


def test_only_the_process_that_fails_tells_why(seen):
    first, second = (one["failure"] for one in seen)
    assert second == ["InputError", "the second has no file", 2, False]
    assert first == ["FailedElsewhere", "another process of this training has ended", 2, True]


def test_results_of_the_first_process_reach_all(seen):
    assert [one["order"] for one in seen] == [["from 0", rank, [0, 1]] for rank in range(2)]


def test_two_processes_train_the_run_of_one(folder, seen):
    assert [one["whole"] for one in seen] == [[], []]
    ours, theirs = lines(folder / "one", "train"), lines(folder / "whole", "train")
    assert [line["step"] for line in theirs] == list(range(1, 101))
    for one, two in zip(ours, theirs, strict=True):
        assert math.isclose(one["loss"], two["loss"], rel_tol=1e-3), one["step"]
        assert one["learning_rate"] == two["learning_rate"]
    # before rounding has grown, the runs agree almost to the last digit
    assert all(math.isclose(a["loss"], b["loss"], rel_tol=1e-6) for a, b in zip(ours[:10], theirs[:10], strict=True))


def test_validation_is_shared_out_without_a_trace(folder):
    ours, theirs = lines(folder / "one", "val"), lines(folder / "whole", "val")
    assert [line["step"] for line in theirs] == list(range(10, 101, 10))
    for one, two in zip(ours, theirs, strict=True):
        assert one.keys() == two.keys()
        assert math.isclose(one["mse"], two["mse"], rel_tol=1e-3)
        assert one["mse-mean-image"] == two["mse-mean-image"]


def test_one_process_writes(folder):
    record = RunDirectory(folder / "whole").read()
    assert record["processes"] == 2
    assert RunDirectory(folder / "one").read()["processes"] == 1
    assert len(read_lines(RunDirectory(folder / "whole").timing)) == 100


def test_a_signal_to_one_process_saves_once_and_any_number_continues(resumed, seen):
    assert seen[0]["stopped"][0] == "Interrupted"
    assert "SIGTERM: saved step 5 of 12" in seen[0]["stopped"][1]
    assert [one["stopped"][2] for one in seen] == [3, 3]
    # the schedule of a run depends on its length, so the comparison is with the other run of 12 steps
    two = lines(resumed / "continued", "train")
    for one, other in zip(lines(resumed / "stopped", "train"), two, strict=True):
        assert one["step"] == other["step"]
        assert math.isclose(one["loss"], other["loss"], rel_tol=1e-5)


def test_two_processes_continue_what_one_began(resumed, seen):
    assert [one["continued"] for one in seen] == [[], []]
    assert [line["step"] for line in lines(resumed / "continued", "train")] == list(range(1, 13))
    (ours,), (theirs,) = (lines(resumed / name, "val")[-1:] for name in ("stopped", "continued"))
    assert math.isclose(ours["mse"], theirs["mse"], rel_tol=1e-4)


def test_two_processes_stop_early_together_and_have_nothing_to_continue(folder, seen):
    assert [one["early"] for one in seen] == [[], []]
    run = RunDirectory(folder / "early")
    assert run.is_complete()
    assert run.num_steps() == 5
    assert [line["step"] for line in lines(folder / "early", "train")] == [1, 2, 3, 4, 5]


def test_a_step_that_is_not_finite_in_one_process_changes_no_weights_in_any(folder, seen):
    assert seen[0]["infinite"][0] == "SlotSSMError"
    assert "not finite at step 4" in seen[0]["infinite"][1]
    assert seen[1]["infinite"][0] == "FailedElsewhere"
    assert [line["step"] for line in lines(folder / "infinite", "train")] == [1, 2, 3]


def test_batches_must_be_divisible(tiny_run):
    config, data, run = tiny_run("tiny-oc", "train.batch_size=6", "train.accumulation_steps=2")
    with pytest.raises(InputError, match="accumulation_steps 2 does not divide the 3 episodes that each of 2"):
        Trainer(config, spec_of(config.data), data, run, "cpu", processes=Processes(0, 2))
    config, data, run = tiny_run("tiny-oc", "train.batch_size=6", folder="other")
    with pytest.raises(InputError, match="a batch of 6 episodes cannot be divided equally among 4 processes"):
        Trainer(config, spec_of(config.data), data, run, "cpu", processes=Processes(0, 4))


def test_unequal_files_are_refused():
    refuse_unequal(["a", "a"], "the content")
    with pytest.raises(InputError, match="the content of process 1, 3 differs from that of process 0"):
        refuse_unequal(["a", "b", "a", "c"], "the content")


# --- killed -----------------------------------------------------------------------------------------------

COMMAND = [*TORCHRUN, "-m", "slotssm", "train", "--preset", "tiny-oc", "--device", "cpu"]
OPTIONS = [word for each in (*SETTINGS, "train.num_steps=30") for word in ("--set", each)]


def start(run, environment, *options):
    return subprocess.Popen(
        [*COMMAND, *options, "--out", str(run)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        cwd=run.parent,
        start_new_session=True,
    )


def workers(process) -> list[int]:
    """The training processes that a launcher has started."""
    children = [child for child in psutil.Process(process.pid).children() if "slotssm" in child.cmdline()]
    return [child.pid for child in children]


def logged(run) -> int:
    return len(lines(run, "train")) if (run / "metrics.jsonl").exists() else 0


@pytest.mark.slow
def test_a_killed_run_resumes_bitwise(tmp_path, environment):
    whole = tmp_path / "whole"
    process = start(whole, environment, *OPTIONS)
    _, words = process.communicate(timeout=600)
    assert process.returncode == 0, words
    for victims in ("one", "all", "politely"):
        run = tmp_path / victims
        process = start(run, environment, *OPTIONS)
        while logged(run) < 13:
            assert process.poll() is None
            time.sleep(0.02)
        trained_by = workers(process)
        assert len(trained_by) == 2
        if victims == "one":
            os.kill(trained_by[1], signal.SIGKILL)
        elif victims == "all":
            for each in (process.pid, *trained_by):
                os.kill(each, signal.SIGKILL)
        else:
            process.terminate()
        _, words = process.communicate(timeout=300)
        assert process.returncode != 0
        saved = checkpoint.latest(RunDirectory(run).checkpoints).name
        if victims == "politely":
            assert "SIGTERM: saved step" in words
        else:
            assert saved in ("step-00000010", "step-00000020")
        resumed = start(run, environment, *OPTIONS, "--resume")
        _, words = resumed.communicate(timeout=600)
        assert resumed.returncode == 0, words
        ours, theirs = (
            load_file(checkpoint.latest(RunDirectory(each).checkpoints) / checkpoint.MODEL) for each in (whole, run)
        )
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert (whole / "metrics.jsonl").read_text() == (run / "metrics.jsonl").read_text()
