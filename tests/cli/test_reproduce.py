"""`slotssm reproduce` as a newcomer types it, and as a scheduler stops it."""

import json
import signal
import subprocess
import sys
import time

import pytest

from slotssm.experiments.reproductions.studies.catalog import EXPERIMENTS
from slotssm.training.checkpoint import latest
from slotssm.training.run import RunDirectory

CHAIN = "earliest-T6-L5-slotssm-s0", "earliest-T6-L20-slotssm-s0"
"""Cells of long-context at scale tiny: the second starts from the weights of the first."""


def document(outcome):
    """The one JSON document on stdout."""
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


# --- what it prints ---------------------------------------------------------------------------------------


def test_json_is_one_document_with_every_seeds_values(slotssm, workplace):
    command = ("reproduce", "video-prediction", "--scale", "tiny", "--models", "slotssm", "--seeds", "3")
    found = document(slotssm(*command, "--json"))
    (row,) = found["rows"]
    assert (row["model"], row["cells"], found["num_done"], found["missing"]) == ("slotssm", ["slotssm-s3"], 1, [])
    assert set(row["metrics"]["mse"]["values"]) == {"3"}
    assert all((workplace / file).stat().st_size > 0 for file in found["files"])
    kept = json.loads((workplace / "reproductions/video-prediction-tiny/result.json").read_text())
    assert kept["rows"] == found["rows"]
    # again, for people: the same table, and where everything lies
    again = slotssm(*command)
    assert (again.code, again.err) == (0, "")
    table = (workplace / "reproductions/video-prediction-tiny/table.txt").read_text()
    assert again.out.splitlines() == [*table.splitlines(), "", *found["files"]]


@pytest.mark.parametrize("out", [(), ("--out", "elsewhere")])
def test_a_dry_run_lists_the_cells_and_does_nothing(slotssm, workplace, out):
    command = ("reproduce", "long-context", "--scale", "tiny", "--models", "slotssm", *out, "--dry-run")
    plan = slotssm(*command)
    assert plan.code == 0, plan.err
    lines = plan.out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == [*CHAIN, "frequent-T6-L20-slotssm-s0"]
    assert all(" steps" in line and "22,056 parameters" in line and "about" in line for line in lines[:-1])
    assert lines[-1].startswith("3 of 3 cells to do, about ")
    assert lines[-1].endswith(f" in {out[1] if out else 'reproductions/long-context-tiny'}")
    found = document(slotssm(*command, "--json"))
    assert [cell["name"] for cell in found["cells"]] == [*CHAIN, "frequent-T6-L20-slotssm-s0"]
    assert found["seconds"] > 0
    assert not list(workplace.iterdir())


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (
            ("long-contxt",),
            ("experiment long-contxt is unknown", "did you mean long-context?"),
        ),
        (("efficiency", "--scale", "huge"), ("--scale huge is unknown", "paper, cpu, tiny")),
        (("long-context", "--models", "slotssm,mamba"), ("--models mamba is unknown", "slotssm, slot-transformer")),
        (("long-context", "--scale", "tiny", "--lengths", "20,21"), ("--lengths 21 is not one of 5, 20",)),
        (("long-context", "--lengths", "long"), ("--lengths", "whole numbers")),
        (("video-prediction", "--seeds", "one"), ("--seeds", "whole numbers")),
        (("video-prediction", "--lengths", "80"), ("--lengths", "does not vary the sequence length")),
        (("video-prediction", "--cell", "slotssm-s9"), ("--cell slotssm-s9 is unknown", "slotssm-s0")),
        (("video-prediction", "--device", "warp"), ("--device warp is not available",)),
        ((), ("Missing argument",)),
    ],
)
def test_what_does_not_exist_is_refused_in_one_line(slotssm, workplace, arguments, fragments):
    outcome = slotssm("reproduce", *arguments)
    assert outcome.code == 2, outcome.err
    assert "Traceback" not in outcome.err
    (line,) = outcome.error_lines
    assert all(fragment in line for fragment in fragments), line
    assert not list(workplace.iterdir())


def test_help_names_every_experiment(slotssm):
    shown = "".join(slotssm("reproduce", "--help").out.split())
    assert all(name in shown for name in EXPERIMENTS)


def test_help_is_quick_to_import():
    code = (
        "import sys\nsys.argv = ['slotssm', 'reproduce', '--help']\n"
        "from slotssm_cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert stop.code == 0, stop.code\n"
        "heavy = {'torch', 'h5py', 'matplotlib', 'numba', 'numpy', 'pymunk', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "EXPERIMENT" in done.stdout


# --- stopped and continued --------------------------------------------------------------------------------

COMMAND = [sys.executable, "-m", "slotssm_cli.main", "reproduce", "long-context", "--scale", "tiny"]
OPTIONS = ["--models", "slotssm", "--lengths", "5,20", "--cell", CHAIN[0], "--cell", CHAIN[1], "--device", "cpu"]


def start(out, environment):
    command = [*COMMAND, *OPTIONS, "--out", str(out)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def stop_after(lines, cell, out, environment, number):
    """Begin or continue, and send a signal when a cell has logged so many lines; exit code and stderr."""
    log = out / "runs" / cell / "metrics.jsonl"
    process = start(out, environment)
    for _ in range(60_000):
        if log.exists() and log.read_text().count("\n") >= lines:
            break
        assert process.poll() is None, f"ended early with {process.returncode}: {process.stderr.read()}"
        time.sleep(0.002)
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


def finish(out, environment):
    process = start(out, environment)
    table, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return table


@pytest.mark.slow
def test_stopped_and_continued_is_bitwise_the_whole(workplace, environment):
    whole, parted = workplace / "whole", workplace / "parted"
    table = finish(whole, environment)
    # killed in the first of the chain, asked to stop in the second, then left alone
    code, _ = stop_after(1, CHAIN[0], parted, environment, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert not list((parted / "cells").glob("*.json"))
    code, errors = stop_after(1, CHAIN[1], parted, environment, signal.SIGTERM)
    assert code == 3, errors
    (line,) = (line for line in errors.splitlines() if line.startswith("slotssm: "))
    assert line.startswith("slotssm: SIGTERM: saved step ")
    assert line.endswith("; the same command continues")
    assert [path.stem for path in (parted / "cells").glob("*.json")] == [CHAIN[0]]
    assert finish(parted, environment).replace("parted", "whole") == table
    ours, theirs = (json.loads((out / "result.json").read_text()) for out in (parted, whole))
    assert ours["rows"] == theirs["rows"]
    for name in ("table.txt", "table.csv"):
        assert (parted / name).read_bytes() == (whole / name).read_bytes()
    for cell in CHAIN:
        ours_run, theirs_run = (RunDirectory(out / "runs" / cell) for out in (parted, whole))
        weights, expected = (latest(run.checkpoints) / "model.safetensors" for run in (ours_run, theirs_run))
        assert weights.read_bytes() == expected.read_bytes()
        assert ours_run.metrics.read_text() == theirs_run.metrics.read_text()
        assert ours["provenance"][cell]["data_sha256"] == theirs["provenance"][cell]["data_sha256"]
