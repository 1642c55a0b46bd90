"""Cells as jobs and data sets in parts, from the command line."""

import json
import os
import sys

import pytest

from slotssm.experiments.overview.progress import progress_of
from slotssm.experiments.reproductions.cells import cell_lock, read_plan, write_plan
from slotssm.files import exclusive
from slotssm_cli.reproduce import _words

SWEEP = ("sweep", "--preset", "tiny-oc", "--seeds", "0,1", "--device", "cpu")
FEW = [f"train.{each}" for each in ("num_steps=3", "batch_size=4", "eval_every_steps=0", "log_every_steps=1")]
SETTINGS = [word for each in (*FEW, "data.num_train=8", "data.num_test=2") for word in ("--set", each)]


def test_cells_side_by_side_are_those_one_after_the_other(workplace, slotssm, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    one = slotssm(*SWEEP, *SETTINGS, "--out", "one", "--json")
    assert one.code == 0, one.err
    two = slotssm(*SWEEP, *SETTINGS, "--out", "two", "--jobs", "2", "--json")
    assert two.code == 0, two.err
    rows = [json.loads(done.out)["rows"] for done in (one, two)]
    assert rows[0] == rows[1]
    for name in ("s0", "s1"):
        logs = [(workplace / folder / "runs" / name / "metrics.jsonl").read_text() for folder in ("one", "two")]
        assert logs[0] == logs[1]
        assert (workplace / "two" / "logs" / f"{name}.log").exists()
    found = json.loads(slotssm("status", "two", "--json").out)
    assert found["counts"]["done"] == 2
    # everything is done: no process is started
    again = slotssm(*SWEEP, *SETTINGS, "--out", "two", "--jobs", "2")
    assert again.code == 0
    assert "started" not in again.err


@pytest.mark.slow
def test_a_cell_that_crashes_fails_and_the_others_go_on(workplace, slotssm, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    (workplace / "sweep" / "runs" / "s0").mkdir(parents=True)
    (workplace / "sweep" / "runs" / "s0" / "run.json").write_text("damaged")
    done = slotssm(*SWEEP, *SETTINGS, "--out", "sweep", "--jobs", "2")
    assert done.code == 1
    assert done.error_lines == ["slotssm: 1 cells could not be measured: s0; sweep/logs says why"]
    states = {cell["name"]: cell for cell in json.loads(slotssm("status", "sweep", "--json").out)["cells"]}
    assert states["s1"]["state"] == "done"
    assert states["s0"]["state"] == "damaged"
    assert "run.json" in states["s0"]["log"]
    assert "ended with exit code 2" in states["s0"]["log"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--executor", "cloud"), "--executor cloud is unknown; there are local and slurm"),
        (("--slurm", "partition=gpu"), "--slurm has no effect without --executor slurm"),
        (("--executor", "slurm", "--slurm", "partition"), "--slurm partition: expected KEY=VALUE"),
        (("--executor", "slurm"), "--executor slurm: there is no srun here"),
    ],
)
def test_executors_that_cannot_serve_are_one_line(workplace, slotssm, monkeypatch, options, message):
    monkeypatch.setenv("PATH", str(workplace))
    done = slotssm(*SWEEP, *SETTINGS, "--out", "sweep", *options)
    assert done.code == 2
    (line,) = done.error_lines
    assert message in line


def test_words_of_a_command_line():
    words = _words(
        "reproduce", "efficiency", scale="cpu", models="", data=["a.h5", "b c.h5"], retry_failed=True, set=None
    )
    expected = ["reproduce", "efficiency", "--scale", "cpu", "--data", "a.h5", "--data", "b c.h5", "--retry-failed"]
    assert words == expected


def test_status_tells_a_cell_that_is_scored_or_measured_again_as_running(tmp_path):
    write_plan(tmp_path, {"experiment": "sweep"}, ["a", "b", "c"])
    (tmp_path / "cells").mkdir()
    (tmp_path / "logs").mkdir()
    (tmp_path / "cells" / "a.json").write_text(json.dumps({"failed": "out of memory"}))
    (tmp_path / "logs" / "a.log").write_text("trying again\n")
    (tmp_path / "logs" / "c.log").write_text("slotssm: no such file\nended with exit code 2\n")

    def states():
        return {cell.name: (cell.state, cell.log) for cell in progress_of(tmp_path).cells}

    crash = "slotssm: no such file; ended with exit code 2"
    assert states() == {"a": ("failed", "trying again"), "b": ("waiting", ""), "c": ("failed", crash)}
    with exclusive(cell_lock(tmp_path, "a")), exclusive(cell_lock(tmp_path, "b")):
        found = states()
    assert (found["a"][0], found["b"][0]) == ("running", "running")


def test_plans_of_processes_that_start_together_lose_no_cell(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    names = [f"cell-{number}" for number in range(12)]
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda name: write_plan(tmp_path, {"experiment": "sweep"}, [name]), names))
    assert sorted(read_plan(tmp_path)["cells"]) == sorted(names)


def test_parts_of_a_data_set(workplace, slotssm):
    command = ("generate", "bouncing", "--size", "24", "--train", "6", "--val", "2", "--test", "0", "--workers", "1")
    assert slotssm(*command, "--out", "whole.h5").code == 0
    parts = [slotssm(*command, "--out", "parts.h5", "--part", f"{number}/2", "--json") for number in (1, 2)]
    assert [done.code for done in parts] == [0, 0]
    assert sum(json.loads(done.out)["num_episodes"] for done in parts) == 8
    assert slotssm(*command, "--out", "parts.h5").code == 0
    assert (workplace / "parts.h5").read_bytes() == (workplace / "whole.h5").read_bytes()
    for options, message in [
        (("--part", "3/2"), "--part 3/2: the parts are 1/2 to 2/2"),
        (("--part", "second"), "--part second: expected a part and the number of parts"),
        (("--part", "1/2", "--force"), "--force would remove what other parts have made"),
    ]:
        done = slotssm(*command, "--out", "other.h5", *options)
        assert done.code == 2
        assert message in done.error_lines[0]
        assert not (workplace / "other.h5").exists()
