"""Sweeps: which cells there are, what they are made of, and what is compared at the end."""

import csv
import itertools
import json

import pytest

from slotssm.documents import override, parse_assignments
from slotssm.errors import InputError
from slotssm.experiments.overview.progress import progress_of
from slotssm.experiments.presets import preset
from slotssm.experiments.reproductions.cells import read_record, record_path
from slotssm.experiments.reproductions.experiment import Choice
from slotssm.experiments.reproductions.reproduce import reproduce
from slotssm.experiments.reproductions.studies.catalog import EXPERIMENTS
from slotssm.experiments.reproductions.sweep import Sweep, axes_of
from slotssm.experiments.resolve import Request
from slotssm.files import exclusive, write_json
from slotssm.training.run import RunDirectory

FEW = "train.num_steps=4", "train.checkpoint_every_steps=2", "train.log_every_steps=1", "train.eval_every_steps=2"


def sweep(*assignments, seeds=(), **request):
    return Sweep(Request(preset="tiny-oc", assignments=(*FEW, *assignments), **request), seeds)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("4,6", [4, 6]),
        ("0.1, 1e-3", [0.1, 1e-3]),
        ("cosine,constant", ["cosine", "constant"]),
        ("true,false", [True, False]),
        ("[32,32],[64,64]", [[32, 32], [64, 64]]),
        ('"a,b",c', ["a,b", "c"]),
        ('"a\\",b","c"', ['a",b', "c"]),
        ('{"kind": "mamba", "d_state": 4},{"kind": "s5"}', [{"kind": "mamba", "d_state": 4}, {"kind": "s5"}]),
    ],
)
def test_commas_outside_brackets_and_quotes_separate_values(text, values):
    fixed, (axis,) = axes_of(["train.num_steps=5", f"a.b={text}"])
    assert fixed == ("train.num_steps=5",)
    assert (axis.key, list(axis.values)) == ("a.b", values)


@pytest.mark.parametrize("text", ["4", "[32,32]", '"a,b"', "", "cosine"])
def test_a_single_value_is_left_to_the_run(text):
    assert axes_of([f"a.b={text}"]) == ((f"a.b={text}",), [])


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        (("seed=0,1",), "name the seeds of a sweep with `seeds`"),
        (("a=1,2", "a=3,4"), "a already has several values"),
        (("a=1,2", "a=3"), "this setting also has several values"),
        (("a=1,,2",), "a value between two commas is empty"),
        (("a=1,1",), "a value is named twice"),
    ],
)
def test_what_is_not_a_sweep_is_refused(assignments, said):
    with pytest.raises(InputError) as refusal:
        axes_of(assignments)
    assert said in str(refusal.value)


def test_cells_are_all_combinations_each_the_run_that_its_assignments_give():
    found = sweep("model.num_slots=2,3", "model.slot_dim=16,32", seeds=(0, 5)).cells(Choice())
    combinations = list(itertools.product((2, 3), (16, 32), (0, 5)))
    assert [cell.name for cell in found] == [f"num_slots-{k}-slot_dim-{d}-s{seed}" for k, d, seed in combinations]
    for cell, (num_slots, slot_dim, seed) in zip(found, combinations, strict=True):
        alone = override(
            preset("tiny-oc"),
            parse_assignments([*FEW, f"model.num_slots={num_slots}", f"model.slot_dim={slot_dim}", f"seed={seed}"]),
            "test",
        )
        assert cell.config == alone
        assert cell.setting == {"model.num_slots": num_slots, "model.slot_dim": slot_dim}


def test_names_of_cells_are_unique_and_names_of_files():
    values = "task.encoder_channels=[32,32],[32,32.0]", "train.learning_rate=1e-3,1e-4", "data.seed=1,2"
    names = [cell.name for cell in sweep(*values).cells(Choice())]
    assert len(set(names)) == 8
    assert all(not set(name) & set('/\\:*?"<>|[], ') for name in names)


def test_a_value_that_does_not_fit_is_refused_before_anything_runs():
    with pytest.raises(InputError, match="num_slots"):
        sweep("model.num_slots=2,-1")
    with pytest.raises(InputError, match="did you mean num_slots"):
        sweep("model.num_slot=2,3")


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Two values, two seeds; the first cell was measured by a call of its own."""
    folder = tmp_path_factory.mktemp("sweep")
    chosen = sweep("model.num_slots=2,3", "data.num_train=8", "data.num_test=4", seeds=(0, 1))
    cells = chosen.cells(Choice())
    alone = reproduce(chosen, Choice(), folder, cells[:1], "cpu")
    between = progress_of(folder)
    whole = reproduce(chosen, Choice(), folder, cells, "cpu")
    return folder, alone, between, whole


def test_cells_of_separate_calls_make_one_table(swept):
    folder, alone, _, whole = swept
    assert (alone.num_done, len(alone.missing), whole.missing) == (1, 3, [])
    first = json.loads((folder / "cells" / "num_slots-2-s0.json").read_text())
    with (folder / "table.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    records = [json.loads(path.read_text()) for path in (folder / "cells").glob("*.json")]
    for line in lines:
        values = [
            record["values"][line["metric"]]
            for record in records
            if record["setting"] == {"model.num_slots": int(line["model.num_slots"])}
        ]
        assert float(line["mean"]) == pytest.approx(sum(values) / 2)
        assert int(line["n"]) == len(values) == 2
    assert {line["metric"] for line in lines} == set(first["values"]) >= {"fg-ari", "mse"}
    result = json.loads((folder / "result.json").read_text())
    assert (result["varied"], result["seeds"]) == ({"model.num_slots": [2, 3]}, [0, 1])
    assert "| model.num_slots |" in (folder / "table.txt").read_text()
    assert (folder / "figures" / "fg-ari.png").stat().st_size > 1000


def test_progress_tells_done_from_waiting(swept):
    folder, _, between, _ = swept
    assert [cell.state for cell in between.cells] == ["done", "waiting", "waiting", "waiting"]
    after = progress_of(folder)
    assert after.counts == {"done": 4, "failed": 0, "running": 0, "stopped": 0, "waiting": 0, "damaged": 0}
    assert [cell["name"] for cell in after.document()["cells"]] == [cell.name for cell in between.cells]


def test_progress_of_cells_that_run_stopped_failed_or_are_damaged(swept, tmp_path):
    import shutil

    folder = shutil.copytree(swept[0], tmp_path / "copy")
    names = [cell.name for cell in progress_of(folder).cells]
    paths = [folder / "cells" / f"{name}.json" for name in names]
    write_json(paths[0], json.loads(paths[0].read_text()) | {"failed": "not converged: nan"})
    for path in paths[1:3]:
        path.unlink()
    for name in names[1:3]:
        shutil.rmtree(folder / "runs" / name / "checkpoints" / "step-00000004")
    paths[3].write_text("{")
    with exclusive(RunDirectory(folder / "runs" / names[1]).lock):
        found = progress_of(folder).cells
    assert [cell.state for cell in found] == ["failed", "running", "stopped", "damaged"]
    assert found[0].reason == "not converged: nan"
    # of a running cell, the steps that are logged; of a stopped one, those that are saved
    assert [(cell.step, cell.num_steps) for cell in found[1:3]] == [(4, 4), (2, 4)]
    assert found[1].latest["step"] == 4


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(InputError, match="it has no plan and no cells"):
        progress_of(tmp_path)


def test_a_record_of_another_sweep_is_not_taken_for_this_one(swept):
    folder = swept[0]
    other = sweep("model.num_slots=2,3", "data.num_train=8", "data.num_test=4", "train.batch_size=4", seeds=(0,))
    assert record_path(other.cells(Choice())[0], folder).exists()
    with pytest.raises(InputError, match="another configuration"):
        read_record(other.cells(Choice())[0], folder)
    before = {path: path.read_bytes() for path in folder.glob("*.*")}
    same = ("data.num_train=8", "data.num_test=4")
    others = [other, sweep("model.num_slots=2", *same, seeds=(0,)), sweep("train.batch_size=2,4", *same, seeds=(0,))]
    for each in others:
        with pytest.raises(InputError, match=r"holds another comparison .*num_slots.*choose another `out`"):
            reproduce(each, Choice(), folder, each.cells(Choice()), "cpu")
    assert {path: path.read_bytes() for path in folder.glob("*.*")} == before


def test_further_values_and_seeds_of_a_sweep_are_of_the_same_folder(swept):
    plan = json.loads((swept[0] / "plan.json").read_text())
    more = sweep("model.num_slots=2,3,5", "data.num_train=8", "data.num_test=4", seeds=(0, 1, 2))
    assert more.owns(plan, Choice())
    assert not EXPERIMENTS["snitch"].owns(plan, Choice("tiny"))
