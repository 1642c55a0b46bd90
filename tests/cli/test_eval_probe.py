"""`slotssm eval --metric probe` as people and scripts use it."""

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
    """Of a model that finds every object, and whose slots tell the place and nothing else."""
    path = tmp_path / "predictions.h5"
    with h5py.File(data) as truth, h5py.File(path, "w") as file:
        for split in ("val", "test"):
            masks, position = truth[f"{split}/masks"][...], truth[f"{split}/objects/position"][...]
            slots = np.random.default_rng(0).normal(size=(*position.shape[:2], position.shape[2] + 1, 6))
            slots[:, :, 1:, :2] = position
            file[f"{split}/masks"], file[f"{split}/slots"] = masks, slots
    return path


def test_json_has_a_result_for_every_property(slotssm, data):
    found = document(slotssm("eval", RUN, "--metric", "probe", "--json"))
    with h5py.File(data) as file:
        names = sorted(set(file["test/objects"]) - {"visible"})
        num_visible = int((file["test/objects/visible"][...] > 0).sum())
    assert [result["property"] for result in found["results"]] == names
    assert {"position", "velocity", "color", "shape", "radius", "mass"} <= set(names)
    needed = {"metric", "value", "unit", "num_units", "num_skipped", "options", "interval"}
    for result in found["results"]:
        assert needed <= result.keys()
        assert (result["metric"], result["unit"]) == ("probe", "row")
        assert result["num_units"] + result["num_skipped"] == num_visible
        assert 0 <= result["coverage"] <= 1
        options = result["options"]
        assert (options["probe"], options["probe_split"], options["mask_source"]) == ("linear", "test", "decoder")
        scores = ("accuracy", "balanced_accuracy") if result["kind"] == "categorical" else ("r2", "mse")
        assert result["value"] == result[scores[0]]
        assert all(result[prefix + name] is not None for prefix in ("dummy_", "shuffled_", "") for name in scores)


def test_chosen_properties_beside_other_metrics_on_another_split(slotssm, data, predictions):
    options = ("--properties", "position,color", "--probe-split", "val", "--json")
    found = document(
        slotssm("eval", "--predictions", predictions, "--data", data, "--metric", "probe,fg-ari", *options)
    )
    results = found["results"]
    assert [(result["metric"], result.get("property")) for result in results] == [
        ("probe", "position"),
        ("probe", "color"),
        ("fg-ari", None),
    ]
    assert results[0]["value"] > 0.99
    assert results[0]["coverage"] == results[2]["value"] == 1
    assert results[0]["options"]["probe_split"] == "val"
    # another video may have other colours, which places do not tell
    assert results[1]["value"] < 0.7


def test_the_table_names_properties_and_what_they_stand_beside(slotssm, data, predictions):
    shown = slotssm(
        "eval", "--predictions", predictions, "--data", data, "--metric", "probe", "--properties", "position"
    )
    assert shown.code == 0
    for text in (
        "probe/position",
        "rows",
        "probe=linear",
        "dummy_r2",
        "shuffled_mse",
        "coverage=1",
        "mask_source=file",
    ):
        assert text in shown.out, text
    assert "probe" not in slotssm("eval", RUN).out


def test_the_table_says_why_there_is_no_value(slotssm, data, predictions, tmp_path):
    changed = tmp_path / "one-color.h5"
    with h5py.File(data) as truth, h5py.File(changed, "w") as file:
        truth.copy("test", file)
        file.attrs.update(truth.attrs)
        file["test/objects/color"][...] = 0
    arguments = ("eval", "--predictions", predictions, "--data", changed, "--metric", "probe", "--properties", "color")
    assert "one class" in " ".join(slotssm(*arguments).out.split())
    assert document(slotssm(*arguments, "--json"))["results"][0]["value"] is None


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        (("--properties", "colour"), "did you mean color?"),
        (("--probe", "tree"), "--probe tree must be one of linear, mlp"),
        (("--probe-split", "dev"), "--probe-split dev"),
    ],
)
def test_refusals(slotssm, home, options, fragment):
    outcome = slotssm("eval", RUN, "--metric", "probe", *options)
    assert outcome.code == 2
    assert len(outcome.error_lines) == 1
    assert fragment in outcome.error_lines[0]


def test_runs_without_masks_and_files_without_slots_are_refused(slotssm, home, data, predictions):
    outcome = slotssm("eval", "runs/tiny-bcb-001", "--metric", "probe")
    assert outcome.code == 2
    assert "the predictions have no masks" in outcome.err
    with h5py.File(predictions, "r+") as file:
        del file["test/slots"]
    outcome = slotssm("eval", "--predictions", predictions, "--data", data, "--metric", "probe")
    assert outcome.code == 2
    assert "the predictions have no slots" in outcome.err
