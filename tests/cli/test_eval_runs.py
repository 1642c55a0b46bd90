"""Scores of one or several runs: where they are kept, and which checkpoint they are of."""

import json
import shutil

import pytest

RUN = "runs/tiny-oc-001"


def document(outcome):
    """The one JSON document on stdout."""
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def runs(home, tmp_path):
    """Two runs of the same training; the second has lost its last checkpoint."""
    found = [shutil.copytree(home / RUN, tmp_path / name, ignore=shutil.ignore_patterns("eval")) for name in "ab"]
    shutil.rmtree(found[1] / "checkpoints" / "step-00000006")
    return found


def test_several_runs_are_scored_as_each_alone(slotssm, runs):
    alone = [document(slotssm("eval", run, "--metric", "fg-ari,mse", "--no-save", "--json")) for run in runs]
    both = slotssm("eval", *runs, "--metric", "fg-ari,mse", "--json")
    assert document(both) == {"runs": alone}
    assert alone[0]["results"] != alone[1]["results"]
    assert [line for line in both.err.splitlines() if line.startswith("scores kept in ")] == [
        f"scores kept in {run / 'eval' / 'test.json'}" for run in runs
    ]
    shown = slotssm("eval", *runs, "--metric", "mse")
    assert [line.split()[:1] for line in shown.out.splitlines() if "mse" in line] == [[str(run)] for run in runs]


def test_nothing_is_written_without_saving(slotssm, runs):
    before = files(runs[0].parent)
    outcome = slotssm("eval", *runs, "--metric", "mse", "--no-save")
    assert outcome.code == 0
    assert "kept" not in outcome.err
    assert files(runs[0].parent) == before


def test_a_run_that_cannot_be_scored_is_named_before_any_is_scored(slotssm, runs):
    shutil.rmtree(runs[1] / "checkpoints")
    outcome = slotssm("eval", *runs)
    assert outcome.code == 2
    assert f"{runs[1]} has no checkpoint yet" in outcome.error_lines[0]
    assert not (runs[0] / "eval").exists()


def test_what_a_run_keeps_can_be_compared(slotssm, runs, tmp_path):
    assert slotssm("eval", *runs, "--metric", "fg-ari,mse").code == 0
    assert slotssm("eval", runs[0], "--metric", "fg-ari", "--per-frame").code == 0
    kept = [run / "eval" / "test.json" for run in runs]
    written = [tmp_path / f"{run.name}.json" for run in runs]
    for run, file in zip(runs, written, strict=True):
        assert slotssm("eval", run, "--metric", "fg-ari,mse", "--no-save", "--out", file).code == 0
    ours, theirs = (document(slotssm("eval", "--compare", *pair, "--json")) for pair in (kept, written))
    assert ours["results"] == theirs["results"]
    assert {each["metric"] for each in ours["results"]} == {"fg-ari", "mse"}
    # what only one of them was scored by is said
    assert list(ours["left_out"]) == ["fg-ari@per_frame=True"]


def test_scores_without_a_format_are_refused_with_the_remedy(slotssm, runs):
    assert slotssm("eval", *runs, "--metric", "mse").code == 0
    kept = [run / "eval" / "test.json" for run in runs]
    found = {name: value for name, value in json.loads(kept[0].read_text()).items() if name != "format"}
    kept[0].write_text(json.dumps(found))
    outcome = slotssm("eval", "--compare", *kept)
    assert outcome.code == 2
    assert "is not a score file; write one with --out" in outcome.error_lines[0]


def test_an_earlier_checkpoint_is_scored_and_kept_beside_the_last(slotssm, runs):
    earlier = document(slotssm("eval", runs[0], "--metric", "mse", "--checkpoint", "3", "--json"))
    assert not (runs[0] / "eval" / "test.json").exists()
    kept = json.loads((runs[0] / "eval" / "test@step-00000003.json").read_text())
    assert kept["checkpoint"] == "step-00000003"
    # the second run ends there
    last = document(slotssm("eval", runs[1], "--metric", "mse", "--json"))
    assert earlier["results"] == last["results"]
    assert (runs[1] / "eval" / "test.json").exists()


def test_scores_of_a_best_checkpoint_that_was_replaced_are_not_kept(slotssm, runs):
    best = shutil.copytree(runs[0] / "checkpoints" / "step-00000003", runs[0] / "checkpoints" / "best")
    record = {"step": 3, "metric": "mse", "value": 1.0}
    (best / "best.json").write_text(json.dumps(record))
    scored = ("eval", runs[0], "--checkpoint", "best", "--metric")
    assert slotssm(*scored, "mse").code == slotssm(*scored, "fg-ari").code == 0
    kept = runs[0] / "eval" / "test@best.json"
    document = json.loads(kept.read_text())
    assert document["checkpoint_step"] == 3
    assert {each["metric"] for each in document["results"]} == {"mse", "fg-ari"}
    (best / "best.json").write_text(json.dumps(record | {"step": 6}))
    assert slotssm(*scored, "mse").code == 0
    assert [each["metric"] for each in json.loads(kept.read_text())["results"]] == ["mse"]


def test_scores_on_a_copy_of_the_own_data_are_the_runs_own(slotssm, home, runs, tmp_path):
    moved = shutil.copy(next((home / "data").glob("tiny-oc-*.h5")), tmp_path / "moved.h5")
    assert slotssm("eval", runs[0], "--metric", "mse", "--data", moved).code == 0
    assert [file.name for file in (runs[0] / "eval").iterdir()] == ["test.json"]
    # names of results are those of their metric
    asked = ("table", *runs, "--metric", "mse@savi,mse,fg-ari", "--evaluate", "--json")
    assert "mse@savi is not among the scores" in slotssm(*asked).err
    assert (runs[1] / "eval" / "test.json").exists()


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (("--checkpoint", "4"), "--checkpoint 4 must be last, best, or a step that is kept: 3, 6"),
        (("--checkpoint", "best"), "keeps no best checkpoint"),
        (("--predictions", "p.h5", "--checkpoint", "last"), "leave it out with --predictions"),
        ((RUN, "--out", "scores.json"), "--out writes the scores of one run"),
        ((RUN, "--predictions", "p.h5"), "name one RUN"),
    ],
)
def test_refusals(slotssm, home, arguments, fragment):
    outcome = slotssm("eval", RUN, *arguments)
    assert outcome.code == 2
    assert len(outcome.error_lines) == 1
    assert fragment in outcome.error_lines[0]
