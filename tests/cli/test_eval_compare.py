"""Values of episodes, conventions in one pass and comparisons, as people and scripts use them."""

import json

import h5py
import numpy as np
import pytest

RUN = "runs/tiny-oc-001"


def document(outcome):
    """The one JSON document on stdout."""
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


@pytest.fixture
def data(home):
    return next((home / "data").glob("tiny-oc-*.h5"))


@pytest.fixture
def predictions(data, tmp_path):
    """Of a model that finds every object."""
    path = tmp_path / "predictions.h5"
    with h5py.File(data) as truth, h5py.File(path, "w") as file:
        file["test/masks"] = truth["test/masks"][...]
    return path


def test_values_of_episodes_come_when_asked_for(slotssm, data):
    arguments = ("eval", RUN, "--metric", "fg-ari,mse", "--json")
    plain, full = document(slotssm(*arguments)), document(slotssm(*arguments, "--per-episode"))
    assert all("per_episode" not in result for result in plain["results"])
    for result, asked in zip(plain["results"], full["results"], strict=True):
        told = asked.pop("per_episode")
        assert asked == result
        assert len(told["value"]) == len(told["num_units"]) == full["num_episodes"] == 16
        known = [value for value in told["value"] if value is not None]
        assert np.mean(known) == pytest.approx(result["value"])


def test_diagnostics_are_there_by_default(slotssm, data):
    results = {result["metric"]: result for result in document(slotssm("eval", RUN, "--json"))["results"]}
    assert {"slots-used", "mask-entropy", "identity-switches"} <= results.keys()
    assert 0 <= results["mask-entropy"]["value"] <= 1
    assert len(results["slots-used"]["usage_by_slot"]) >= results["slots-used"]["value"]
    assert "dead_slots" in slotssm("eval", RUN).out


def test_a_run_and_a_file_are_compared(slotssm, data, predictions, tmp_path):
    a, b, c = (tmp_path / "scores" / f"{name}.json" for name in "abc")
    assert slotssm("eval", RUN, "--out", a).code == 0
    assert slotssm("eval", "--predictions", predictions, "--data", data, "--out", b).code == 0
    found = document(slotssm("eval", "--compare", a, b, "--json", "--out", c))
    assert json.loads(c.read_text()) == found
    assert (found["first"]["scored"], found["second"]["scored"]) == (RUN, str(predictions))
    results = {result["metric"]: result for result in found["results"]}
    assert {"fg-ari", "miou", "slots-used"} <= results.keys()
    assert results["fg-ari"]["second"] == 1.0
    assert results["fg-ari"]["difference"] > 0
    assert results["fg-ari"]["p_permutation"] < 0.01
    assert "mse" in found["left_out"]
    shown = slotssm("eval", "--compare", a, b, "--metric", "fg-ari")
    for text in ("fg-ari", "second - first", "exact", "16 / 0 of 16"):
        assert text in " ".join(shown.out.split()), shown.out
    assert "miou" not in shown.out
    assert "seed 0" in shown.err


def test_conventions_in_one_pass(slotssm, data):
    found = document(slotssm("eval", RUN, "--metric", "fg-ari", "--conventions", "default,savi,per-frame", "--json"))
    assert [result["convention"] for result in found["results"]] == ["default", "savi", "per-frame"]
    single = document(slotssm("eval", RUN, "--metric", "fg-ari", "--empty", "one", "--skip-frames", "1", "--json"))
    assert found["results"][1]["value"] == single["results"][0]["value"]
    assert "fg-ari@savi" in slotssm("eval", RUN, "--conventions", "all").out


def test_ids_of_frames_are_noted(slotssm, data, predictions, tmp_path):
    loose = tmp_path / "loose.h5"
    with h5py.File(data) as truth, h5py.File(loose, "w") as file:
        truth.copy("test", file)
        file.attrs.update(truth.attrs)
        file["test/masks"].attrs["ids"] = "per-frame"
    arguments = ("eval", "--predictions", predictions, "--data", loose)
    shown = slotssm(*arguments)
    assert shown.code == 0
    assert "left out fg-ari" in shown.err
    assert slotssm(*arguments, "--per-frame", "--metric", "fg-ari").code == 0
    outcome = slotssm(*arguments, "--metric", "fg-ari")
    assert outcome.code == 2
    assert len(outcome.error_lines) == 1
    assert "--per-frame" in outcome.error_lines[0]


def test_nothing_is_overwritten(slotssm, data, predictions, tmp_path):
    out = tmp_path / "a.json"
    out.write_text("mine")
    arguments = ("eval", "--predictions", predictions, "--data", data, "--out", out)
    outcome = slotssm(*arguments)
    assert outcome.code == 2
    assert "--force" in outcome.error_lines[0]
    assert out.read_text() == "mine"
    assert slotssm(*arguments, "--force").code == 0
    assert json.loads(out.read_text())["format"] == "slotssm-scores"


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (("--compare", "a.json"), "requires 2 arguments"),
        (("--compare", "a.json", "b.json", RUN), "leave out RUN"),
        (("--compare", "a.json", "b.json", "--per-frame"), "leave out --per-frame"),
        (("--compare", "a.json", "b.json", "--split", "test"), "leave out --split"),
        (("--compare", "a.json", "b.json"), "a.json does not exist"),
        ((RUN, "--out", "scores.h5", "--force"), "must end in .json"),
        ((RUN, "--per-episode"), "--per-episode needs --json"),
        ((RUN, "--conventions", "savy"), "did you mean savi?"),
    ],
)
def test_refusals(slotssm, home, arguments, fragment):
    outcome = slotssm("eval", *arguments)
    assert outcome.code == 2
    assert len(outcome.error_lines) == 1
    assert fragment in outcome.error_lines[0]
