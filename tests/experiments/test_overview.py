"""Lists of runs, and tables of groups of runs against numpy and the paired test of two runs."""

import csv
import io
import json
import shutil

import numpy as np
import pytest

from slotssm.documents import override, parse_assignments
from slotssm.errors import InputError
from slotssm.evaluation import ScoringOptions
from slotssm.evaluation.pairing import compare
from slotssm.experiments.datasets import ensure_own_data, spec_of
from slotssm.experiments.overview.groups import metric_of, table_of
from slotssm.experiments.overview.listing import find_runs, list_runs
from slotssm.experiments.presets import preset
from slotssm.experiments.runs import evaluate_run, start_run
from slotssm.files import exclusive
from slotssm.training.run import RunDirectory

FEW = ["train.num_steps=4", "train.checkpoint_every_steps=2", "train.eval_every_steps=2", "data.num_train=8"]


def score(run):
    evaluate_run(run, None, "test", ("fg-ari", "mse"), ScoringOptions(), "cpu", lambda done, total: None)


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """Runs with two and three slots and the seeds 0 and 1, scored but for the last."""
    folder = tmp_path_factory.mktemp("runs")
    for slots, seed in ((2, 0), (2, 1), (3, 0), (3, 1)):
        config = override(
            preset("tiny-oc"), parse_assignments([*FEW, f"model.num_slots={slots}", f"seed={seed}"]), "test"
        )
        run = RunDirectory(folder / f"k{slots}-s{seed}")
        start_run(config, spec_of(config.data), ensure_own_data(config, folder / "data"), run, "cpu", lambda _: None)
        if (slots, seed) != (3, 1):
            score(run)
    return folder


@pytest.fixture
def runs(scored, tmp_path):
    """A copy to spoil; gives its folder."""
    return shutil.copytree(scored, tmp_path / "runs", ignore=shutil.ignore_patterns("data"))


def value(folder, name, metric):
    results = json.loads((folder / name / "eval" / "test.json").read_text())["results"]
    return next(each["value"] for each in results if each["metric"] == metric)


# --- lists ------------------------------------------------------------------------------------------------


def test_a_list_says_how_far_every_run_is(runs):
    shutil.rmtree(runs / "k2-s1" / "checkpoints" / "step-00000004")
    (runs / "k3-s0" / "metrics.jsonl").write_text("nonsense\n{}\n")
    (runs / "k3-s1" / "run.json").write_text("{")
    (runs / "notes").mkdir()
    with exclusive(RunDirectory(runs / "k2-s0").lock):
        found = {run.path.name: run.document() for run in list_runs([runs])}
    assert list(found) == ["k3-s1", "k2-s0", "k2-s1", "k3-s0"]
    states = {name: (each["state"], each["step"]) for name, each in found.items()}
    # a complete run is complete, whoever holds its lock
    assert states == {
        "k2-s0": ("complete", 4),
        "k2-s1": ("stopped", 2),
        "k3-s0": ("damaged", 0),
        "k3-s1": ("damaged", 0),
    }
    assert "metrics.jsonl is damaged at line 1" in found["k3-s0"]["reason"]
    assert "run.json cannot be read" in found["k3-s1"]["reason"]
    assert (found["k3-s0"]["model"], found["k3-s1"]["model"]) == ("oc-slotssm", None)
    assert found["k2-s0"]["test"]["fg-ari"] == value(runs, "k2-s0", "fg-ari")
    # scores of the checkpoint that is gone are not the run's
    assert found["k2-s1"]["test"] == {}
    assert set(found["k2-s0"]["validation"]) >= {"mse", "fg-ari"}
    assert "mse-mean-image" not in found["k2-s0"]["validation"]


def test_a_run_is_running_while_its_lock_is_held(runs):
    run = RunDirectory(runs / "k2-s1")
    shutil.rmtree(run.checkpoints / "step-00000004")
    with exclusive(run.lock):
        (running,) = list_runs([run.path])
    (stopped,) = list_runs([run.path])
    assert (running.state.name, running.state.step) == ("running", 4)
    assert (stopped.state.name, stopped.state.step) == ("stopped", 2)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_number_that_json_does_not_know_damages_one_run_only(runs, number):
    with (runs / "k3-s0" / "metrics.jsonl").open("a") as file:
        file.write(f'{{"step": 5, "split": "train", "loss": {number}}}\n')
    scores = runs / "k2-s0" / "eval" / "test.json"
    scores.write_text(scores.read_text().replace('"value": ', f'"value": {number}, "was": ', 1))
    found = {run.path.name: run.document() for run in list_runs([runs])}
    json.dumps(found, allow_nan=False)
    assert [name for name, each in found.items() if each["state"] == "damaged"] == ["k3-s0"]
    assert "metrics.jsonl is damaged at line" in found["k3-s0"]["reason"]
    assert (found["k2-s0"]["test"], set(found["k2-s1"]["test"])) == ({}, {"fg-ari", "mse"})


def test_a_run_that_is_named_twice_is_one_run(runs):
    (runs / "linked").symlink_to(runs / "k2-s0")
    assert len(find_runs([runs])) == 4
    assert len(find_runs([runs / "k2-s0", runs / "linked", runs / "k2-s1" / ".." / "k2-s0"])) == 1


def test_runs_of_a_sweep_are_found_in_its_folder(runs):
    (runs / "sweep").mkdir()
    shutil.move(runs / "k2-s0", runs / "sweep" / "runs" / "k2-s0")
    assert [run.path.name for run in find_runs([runs / "sweep"])] == ["k2-s0"]
    with pytest.raises(InputError, match="is not a folder"):
        find_runs([runs / "nowhere"])


# --- tables -----------------------------------------------------------------------------------------------


def test_groups_are_the_runs_that_differ_in_their_seed(runs):
    found = table_of(find_runs([runs]), score=score)
    assert found.skipped == {}
    assert [group.label for group in found.groups] == ["model.num_slots=2", "model.num_slots=3"]
    for group, slots in zip(found.groups, (2, 3), strict=True):
        for metric in ("fg-ari", "mse"):
            values = [value(runs, f"k{slots}-s{seed}", metric) for seed in (0, 1)]
            assert group.metrics[metric].mean == pytest.approx(np.mean(values))
            assert group.metrics[metric].std == pytest.approx(np.std(values, ddof=1))
    assert found.notes == []


def test_a_run_without_scores_is_left_out_with_the_remedy(runs):
    found = table_of(find_runs([runs]))
    ((path, reason),) = found.skipped.items()
    assert path == str(runs / "k3-s1")
    assert "score it first, or with `evaluate`" in reason
    last = found.groups[1].metrics["mse"]
    assert (len(last.values), last.std) == (1, None)
    assert last.interval[0] <= last.mean <= last.interval[1]


def test_scores_of_an_earlier_checkpoint_are_not_taken(runs):
    file = runs / "k2-s0" / "eval" / "test.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"checkpoint": "step-00000002"}))
    assert (
        "is of step-00000002, and the run is now at step-00000004"
        in table_of(find_runs([runs])).skipped[str(runs / "k2-s0")]
    )


def test_the_test_of_two_groups_of_one_run_is_that_of_the_runs(runs):
    pair = [RunDirectory(runs / name) for name in ("k2-s0", "k3-s0")]
    ours = {each.comparison.name: each.comparison.test for each in table_of(pair).pairs}
    theirs = compare(*(run.evaluation("test") for run in pair)).results
    assert ours == {each.name: each.test for each in theirs}


def test_episodes_are_averaged_over_seeds_before_they_are_paired(runs):
    score(RunDirectory(runs / "k3-s1"))
    (test,) = (each.comparison.test for each in table_of(find_runs([runs]), metrics=("mse",)).pairs)
    means = [np.mean([value(runs, f"k{slots}-s{seed}", "mse") for seed in (0, 1)]) for slots in (2, 3)]
    assert [test.first, test.second] == pytest.approx(means)
    assert test.num_episodes == 16


def test_runs_are_grouped_by_the_settings_that_are_named(runs):
    found = table_of(find_runs([runs]), by=("model.kind",), score=score)
    (group,) = found.groups
    assert (group.label, len(group.runs)) == ("model.kind=oc-slotssm", 4)
    assert any("also differ in model.num_slots" in note for note in found.notes)
    assert any("several runs with the same seed" in note for note in found.notes)
    by_seed = table_of(find_runs([runs]), by=("seed",))
    assert [group.label for group in by_seed.groups] == ["seed=0", "seed=1"]
    with pytest.raises(InputError, match=r"`by` model.num_slot is no setting.*did you mean model.num_slots"):
        table_of(find_runs([runs]), by=("model.num_slot",))
    with pytest.raises(InputError, match="`metric` miou is not among the scores; there are fg-ari, mse"):
        table_of(find_runs([runs]), metrics=("miou",))


def test_csv_has_one_line_for_each_group_and_metric(runs):
    found = table_of(find_runs([runs]))
    lines = list(csv.DictReader(io.StringIO(found.csv())))
    assert [(line["model.num_slots"], line["metric"]) for line in lines] == [
        (slots, metric) for slots in "23" for metric in ("fg-ari", "mse")
    ]
    for line, (group, metric) in zip(lines, ((g, m) for g in found.groups for m in g.metrics), strict=True):
        assert float(line["mean"]) == group.metrics[metric].mean
        assert line["std"] == ("" if line["n"] == "1" else str(group.metrics[metric].std))


def test_damaged_runs_do_not_stop_the_others(runs):
    (runs / "k2-s1" / "run.json").write_text("[]")
    found = table_of(find_runs([runs]), score=score)
    assert list(found.skipped) == [str(runs / "k2-s1")]
    assert [len(group.runs) for group in found.groups] == [1, 2]


def test_damaged_scores_do_not_stop_the_others(runs):
    file = runs / "k2-s1" / "eval" / "test.json"
    document = json.loads(file.read_text())
    document["results"][0]["options"] = [1]
    file.write_text(json.dumps(document))
    found = table_of(find_runs([runs]))
    assert "test.json is damaged" in found.skipped[str(runs / "k2-s1")]
    assert [len(group.runs) for group in found.groups] == [1, 1]


def test_scores_of_several_conventions_are_neither_averaged_nor_silently_untested(runs):
    evaluation = RunDirectory(runs / "k2-s1").evaluation("test")
    evaluation.unlink()
    by_frame = ScoringOptions(per_frame=True)
    evaluate_run(RunDirectory(runs / "k2-s1"), None, "test", ("fg-ari", "mse"), by_frame, "cpu", lambda *_: None)
    found = table_of(find_runs([runs]))
    mixed, other = (group.metrics["fg-ari"] for group in found.groups)
    assert (mixed.mean, mixed.values) == (None, {})
    assert other.mean is not None
    assert len(found.groups[0].metrics["mse"].values) == 2
    assert any("fg-ari was scored under several conventions in model.num_slots=2" in note for note in found.notes)
    assert any("per_frame" in note for note in found.notes)
    # groups of one convention each
    found = table_of([RunDirectory(runs / name) for name in ("k2-s1", "k3-s0")])
    assert all(group.metrics["fg-ari"].mean is not None for group in found.groups)
    assert [pair.comparison.name for pair in found.pairs] == ["mse"]
    assert any("are not tested in fg-ari, which was scored under two conventions" in note for note in found.notes)


def test_a_metric_that_a_scored_run_lacks_is_scored(runs):
    asked = []

    def score_miou(run):
        asked.append(run.path.name)
        evaluate_run(run, None, "test", ("miou",), ScoringOptions(), "cpu", lambda done, total: None)

    pair = [RunDirectory(runs / name) for name in ("k2-s0", "k3-s0")]
    score_miou(pair[0])
    found = table_of(pair, metrics=("miou", "mse"), score=score_miou)
    assert asked == ["k2-s0", "k3-s0"]
    assert [len(group.metrics["miou"].values) for group in found.groups] == [1, 1]
    assert [metric_of(name) for name in ("fg-ari@savi", "probe/position", "mse")] == ["fg-ari", "probe", "mse"]
