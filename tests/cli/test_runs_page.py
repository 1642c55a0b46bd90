"""The commands of docs/runs.md, one after the other in an empty folder."""

import csv
import json
import re
import shlex
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "runs.md").read_text(encoding="utf-8")
(CONSOLE,) = re.findall(r"^```console\n(.*?)^```", PAGE, re.M | re.S)
FEW = ("train.num_steps=4", "train.checkpoint_every_steps=2", "train.eval_every_steps=2", "train.num_eval_episodes=2")
FEW += ("data.num_train=8", "data.num_val=2", "data.num_test=2")


def words(line):
    """A documented command with the smallest preset, few steps, one seed, and patterns of files as a shell expands."""
    found = shlex.split(line.removeprefix("$ slotssm ").replace("cpu-oc", "tiny-oc"))
    if "--preset" in found:
        found += [word for each in FEW for word in ("--set", each)]
    if "--seeds" in found:
        found[found.index("--seeds") + 1] = "0"
    if "--extend" in found:
        found[found.index("--extend") + 1] = "3"
    return [path for word in found for path in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]


@pytest.fixture
def told(slotssm, workplace):
    """What every command printed, by its line on the page."""
    found = {}
    for line in CONSOLE.splitlines():
        before = {path for path in workplace.rglob("*") if path.is_file()}
        if "checkpoints/last" in line:  # a text that names the newest checkpoint
            line = line.replace("checkpoints/last", "checkpoints/step-00000004")
        found[line] = slotssm(*words(line))
        assert found[line].code == 0, found[line].err
        if "--dry-run" in line:
            assert {path for path in workplace.rglob("*") if path.is_file()} == before
    return found


def test_the_page(told, workplace, slotssm):
    listed = next(outcome.out for line, outcome in told.items() if line == "$ slotssm runs")
    rows = [line.replace("│", " ").split() for line in listed.splitlines() if line.startswith("runs/")]
    assert [row[:2] for row in rows] == [[f"runs/{name}", "complete"] for name in ("three-0", "three-1", "four-0")]
    with (workplace / "slots.csv").open(newline="") as file:
        counts = {line["model.num_slots"]: line["n"] for line in csv.DictReader(file) if line["metric"] == "mse"}
    assert counts == {"3": "2", "4": "1"}
    table = next(outcome.out for line, outcome in told.items() if " table " in line)
    assert "model.num_slots=3 - model.num_slots=4" in " ".join(table.split())
    plan = next(outcome.out for line, outcome in told.items() if "--out runs/four-0 --dry-run" in line)
    assert all(re.search(rf"^{name} +about", plan, re.M) for name in ("time", "memory", "disk"))
    assert json.loads((workplace / "runs/three-0/run.json").read_text())["config"]["train"]["num_steps"] == 7
    assert "2 cells: 2 done" in told["$ slotssm status sweeps/slots"].out
    assert (workplace / "runs/three-0/checkpoints/best/best.json").exists()
    # a complete run that is resumed says so
    again = slotssm("train", "--resume", "--out", "runs/three-1")
    assert (again.code, "was complete already" in again.err) == (0, True)
    refused = slotssm("train", "--extend", "5", "--out", "runs/three-1", "--seed", "3")
    assert (refused.code, "--extend trains a run with its own configuration" in refused.err) == (2, True)
