"""The commands as a newcomer types them, and the documents that scripts read."""

import json
import re
import shutil

import h5py
import numpy as np
import pytest
from PIL import Image


def document(outcome):
    """The one JSON document on stdout."""
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def test_an_empty_folder_to_scores_and_pictures(slotssm, workplace):
    assert slotssm("generate", "bcb", "--len", 2560, "--train", 6, "--val", 2, "--test", 2).code == 0
    assert (workplace / "data" / "bcb-earliest-2560.h5").exists()
    assert slotssm("train", "--preset", "tiny-bcb").code == 0
    assert "mse" in slotssm("eval", "--metric", "mse").out
    assert slotssm("train", "--preset", "tiny-oc").code == 0
    scored = slotssm("eval", "--metric", "fg-ari")
    assert "fg-ari" in scored.out
    assert "tiny-oc-001" in scored.err
    drawn = slotssm("visualize")
    assert drawn.out.split() == ["runs/tiny-oc-001/figures/test.gif", "runs/tiny-oc-001/figures/curves.png"]
    with Image.open(workplace / drawn.out.split()[0]) as image:
        assert image.n_frames == 6


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        (("generate", "bcb", "--train", 3, "--val", 0, "--test", 0), {"path", "num_episodes", "stored_bytes"}),
        (("generate", "bouncing", "--dry-run"), {"dry_run", "num_frames", "seconds"}),
        (("presets",), {"tiny-oc", "tiny-bcb", "cpu-oc"}),
        (("presets", "tiny-oc"), {"data", "model", "task", "train"}),
        (("train", "--preset", "tiny-oc", "--dry-run"), {"parameters", "num_steps", "run"}),
    ],
)
def test_json_is_exactly_one_document(slotssm, workplace, arguments, keys):
    assert keys <= document(slotssm(*arguments, "--json")).keys()


def test_eval_json_has_the_contract_s_fields(slotssm, home):
    found = document(slotssm("eval", "runs/tiny-oc-001", "--metric", "fg-ari,miou", "--metric", "mse", "--json"))
    assert {"run", "data", "split", "results"} <= found.keys()
    assert [result["metric"] for result in found["results"]] == ["fg-ari", "miou", "mse"]
    needed = {"metric", "value", "unit", "num_units", "num_skipped", "options", "interval"}
    assert all(needed <= result.keys() for result in found["results"])
    assert found["results"][0]["options"]["mask_source"] == "decoder"
    assert _kept(home)[:3] == found["results"]


def test_scores_of_a_run_are_kept_until_they_are_scored_again(slotssm, home):
    def score(*options):
        return document(slotssm("eval", "runs/tiny-oc-001", "--json", *options))["results"]

    (video,) = score("--metric", "fg-ari")
    (frame,) = score("--metric", "fg-ari", "--per-frame")
    (error,) = score("--metric", "mse")
    kept = _kept(home)
    assert kept[0] == error
    assert [each for each in kept if each["metric"] == "fg-ari"] == [frame, video]
    # other weights: nothing of what was scored holds
    path = home / "runs/tiny-oc-001/eval/test.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"checkpoint": "step-00000001"}))
    assert score("--metric", "mse") == _kept(home) == [error]
    for damaged in ("{", "[]"):
        path.write_text(damaged)
        assert score("--metric", "mse") == _kept(home)


def _kept(home):
    """What the run keeps, as `eval --json` prints it: without the values of single episodes."""
    results = json.loads((home / "runs/tiny-oc-001/eval/test.json").read_text())["results"]
    return [{name: value for name, value in each.items() if name != "per_episode"} for each in results]


def test_bcb_scores_come_with_their_floor(slotssm, home):
    found = document(slotssm("eval", "runs/tiny-bcb-001", "--json"))
    values = {result["metric"]: result for result in found["results"]}
    assert set(values) == {"mse", "psnr", "ssim", "color-accuracy", "position-iou", "white-floor"}
    assert values["mse"]["white_ball_floor"] == pytest.approx(values["white-floor"]["value"])


def test_scoring_options_reach_the_metric(slotssm, home):
    def score(*options):
        return document(slotssm("eval", "runs/tiny-oc-001", "--metric", "fg-ari", "--json", *options))["results"][0]

    frames = score("--per-frame", "--skip-frames", 2)
    assert frames["unit"] == "frame"
    assert frames["num_units"] + frames["num_skipped"] == 16 * 4
    assert score("--clip-len", 4)["unit"] == "clip"
    assert score("--mask-source", "attention")["value"] != score()["value"]


def test_anybody_s_predictions_are_scored(slotssm, home, tmp_path):
    data = next((home / "data").glob("tiny-oc-*.h5"))
    predictions = tmp_path / "predictions.h5"
    with h5py.File(data) as truth, h5py.File(predictions, "w") as file:
        masks = truth["test/masks"][...]
        # the truth under other names: scores do not depend on labels
        file["test/masks"] = (masks.astype(np.int32) + 3) % 7
        file["test/frames"] = truth["test/frames"][:, 2:]
    found = document(slotssm("eval", "--predictions", predictions, "--data", data, "--json"))
    values = {result["metric"]: result for result in found["results"]}
    assert values["fg-ari"]["value"] == values["miou"]["value"] == 1.0
    assert values["mse"]["value"] == 0.0
    assert len(values["mse"]["per_step"]) == 4
    assert values["mse"]["repeat_last_frame"] > 0
    assert found["run"] is None


def test_inspect_describes_every_field(slotssm, home):
    data = next((home / "data").glob("tiny-oc-*.h5"))
    facts = document(slotssm("inspect", data, "--hash", "--json"))
    fields = {f"{field['split']}/{field['name']}": field for field in facts["fields"]}
    assert fields["train/frames"]["shape"] == [64, 6, 16, 16, 3]
    assert fields["train/objects/position"]["unit"] == "px"
    assert "circle" in fields["test/objects/shape"]["unit"]
    assert len(facts["content_sha256"]) == 64
    assert "train/frames" in slotssm("inspect", data).out
    run = document(slotssm("inspect", "runs/tiny-oc-001", "--json"))
    assert run["checkpoint"] == "step-00000006"
    assert run["data_sha256"] == facts["content_sha256"]


def test_verify_accepts_its_own_and_finds_a_changed_pixel(slotssm, workplace):
    slotssm("generate", "bcb", "--train", 4, "--val", 0, "--test", 0, "--out", "a.h5")
    found = document(slotssm("verify", "a.h5", "--all", "--json"))
    assert (found["num_checked"], found["mismatches"]) == (4, [])
    with h5py.File("a.h5", "r+") as file:
        file["train/objects/position"][2, 1, 0, 0] += 1
    spoiled = slotssm("verify", "a.h5", "--all", "--json")
    assert spoiled.code == 1
    assert json.loads(spoiled.out)["mismatches"] == ["train/2: objects/position"]


def test_a_configuration_file_and_assignments_lie_over_the_preset(slotssm, workplace):
    (workplace / "mine.toml").write_text("[train]\nnum_steps = 7\nbatch_size = 4\n")
    options = ("--preset", "tiny-oc", "--config", "mine.toml", "--set", "train.batch_size=2", "--seed", 5)
    plan = document(slotssm("train", *options, "--dry-run", "--json"))
    assert (plan["num_steps"], plan["batch_size"]) == (7, 2)


def test_a_printed_preset_trains_as_a_file(slotssm, home, tmp_path):
    file = tmp_path / "whole.toml"
    file.write_text(slotssm("presets", "tiny-oc").out)
    asked = document(slotssm("train", "--config", file, "--dry-run", "--json"))
    assert asked["parameters"] == document(slotssm("train", "--preset", "tiny-oc", "--dry-run", "--json"))["parameters"]


def test_data_of_another_size_replaces_the_preset_s(slotssm, workplace):
    make = ("generate", "bouncing", "--objects", 1, "--size", 32, "--frames", 4, "--out", "d.h5")
    assert slotssm(*make, "--train", 8, "--val", 2, "--test", 2).code == 0
    few = ("--set", "train.num_steps=2", "--out", "run")
    assert slotssm("train", "--preset", "tiny-oc", "--data", "d.h5", *few).code == 0
    found = document(slotssm("inspect", "run", "--json"))["config"]["data"]
    assert found["path"] == str(workplace / "d.h5")
    assert found["sha256"] == document(slotssm("inspect", "d.h5", "--hash", "--json"))["content_sha256"]
    spec = json.loads((workplace / "run" / "run.json").read_text())["data_spec"]
    assert (spec["height"], spec["width"], spec["num_frames"]) == (32, 32, 4)
    assert document(slotssm("eval", "run", "--json", "--metric", "mse"))["num_episodes"] == 2


def test_resume_repeats_nothing_and_refuses_another_configuration(slotssm, home):
    # the run is complete: resuming it takes no step and changes nothing
    before = (home / "runs/tiny-oc-001/metrics.jsonl").read_text()
    assert slotssm("train", "--resume", "--out", "runs/tiny-oc-001").code == 0
    assert (home / "runs/tiny-oc-001/metrics.jsonl").read_text() == before
    changed = slotssm("train", "--resume", "--out", "runs/tiny-oc-001", "--set", "model.num_slots=5")
    assert changed.code == 2
    assert "model.num_slots is 3 there and 5 here" in changed.error_lines[0]


def test_pictures_of_data_and_bcb(slotssm, home, tmp_path):
    data = next((home / "data").glob("tiny-bcb-*.h5"))
    files = document(slotssm("visualize", data, "--out", tmp_path / "data.gif", "--json"))["files"]
    assert files == [str(tmp_path / "data.gif")]
    drawn = slotssm("visualize", "runs/tiny-bcb-001", "--episodes", "0,3", "--out", tmp_path / "bcb.png")
    assert drawn.code == 0
    with Image.open(tmp_path / "bcb.png") as image:
        assert image.width > 3 * 96


def test_demo_in_small(slotssm, workplace):
    found = document(slotssm("demo", "--preset", "tiny-oc", "--json"))
    assert {result["metric"] for result in found["results"]} >= {"fg-ari", "miou"}
    assert (workplace / found["animation"]).stat().st_size > 1000
    # again: everything is there already, and the scores are the same
    assert document(slotssm("demo", "--preset", "tiny-oc", "--json"))["results"] == found["results"]


def test_doctor_finds_this_machine_fit(slotssm):
    findings = document(slotssm("doctor", "--json"))
    assert all(finding["ok"] for finding in findings)
    assert {"fused scan", "generator", "video encoder"} <= {finding["check"] for finding in findings}


def test_version(slotssm):
    from slotssm import __version__

    assert slotssm("--version").out == f"slotssm {__version__}\n"


def test_without_a_command_help_is_shown(slotssm):
    for outcome in (slotssm(), slotssm("generate")):
        assert "Usage: slotssm" in outcome.out
        assert outcome.err == ""


def test_a_misspelt_command_is_answered_with_the_nearest(slotssm):
    outcome = slotssm("trian")
    assert outcome.code == 2
    assert "Did you mean 'train'" in outcome.err


def test_the_forecast_of_a_run_that_may_end_early_is_a_limit(slotssm):
    run = ("train", "--preset", "tiny-oc", "--dry-run")
    assert re.search(r"^time +about [\d.]+ s on", slotssm(*run).out, re.MULTILINE)
    patient = ("--set", "train.keep_best=mse", "--set", "train.patience=2")
    assert re.search(r"^time +at most about [\d.]+ s on", slotssm(*run, *patient).out, re.MULTILINE)


def test_a_dry_run_of_a_resumed_run_takes_no_step(slotssm, home, tmp_path):
    run = shutil.copytree(home / "runs" / "tiny-oc-001", tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / "step-00000006")
    log = (run / "metrics.jsonl").read_text()
    assert document(slotssm("train", "--resume", "--out", run, "--dry-run", "--json"))["num_steps"] == 6
    assert [path.name for path in (run / "checkpoints").glob("step-*")] == ["step-00000003"]
    assert (run / "metrics.jsonl").read_text() == log


def test_a_run_resumes_with_its_data_elsewhere(slotssm, home, tmp_path):
    run = shutil.copytree(home / "runs" / "tiny-oc-001", tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / "step-00000006")
    moved = shutil.copy(next((home / "data").glob("tiny-oc-*.h5")), tmp_path / "moved.h5")
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"data": "/gone/data.h5"}))
    assert "say where it is with --data" in slotssm("train", "--resume", "--out", run).err
    assert slotssm("train", "--resume", "--out", run, "--data", moved).code == 0
    assert (run / "checkpoints" / "step-00000006").is_dir()
    assert (run / "metrics.jsonl").read_text() == (home / "runs/tiny-oc-001/metrics.jsonl").read_text()


def test_a_complete_run_resumes_without_its_data(slotssm, home, tmp_path):
    run = shutil.copytree(home / "runs" / "tiny-oc-001", tmp_path / "run")
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"data": "/gone/data.h5"}))
    outcome = slotssm("train", "--resume", "--out", run)
    assert (outcome.code, "was complete already" in outcome.err) == (0, True)


def test_a_folder_without_runs_is_said_to_have_none(slotssm, workplace):
    (workplace / "cells").mkdir()
    for folders in ((), ("cells",)):
        outcome = slotssm("runs", *folders)
        assert (outcome.code, outcome.out) == (0, "") and "slotssm train makes one" in outcome.err
        assert document(slotssm("runs", *folders, "--json")) == {"runs": []}


def test_a_run_is_no_score_file_and_names_the_one_in_it(slotssm, home, tmp_path):
    run = shutil.copytree(home / "runs" / "tiny-oc-001", tmp_path / "run")
    shutil.rmtree(run / "eval", ignore_errors=True)
    assert "score it first" in slotssm("eval", "--compare", run, run).err
    assert slotssm("eval", run, "--metric", "mse").code == 0
    outcome = slotssm("eval", "--compare", run, run)
    assert (outcome.code, f"such as {run}/eval/test.json" in outcome.err) == (2, True)


def test_shares_of_categories_do_not_count_padding(slotssm, workplace):
    few = ("--train", 8, "--val", 0, "--test", 0, "--frames", 2, "--size", 24)
    few += ("--objects", "1-4", "--colors", "red,green")
    assert slotssm("generate", "bouncing", *few, "--out", "d.h5").code == 0
    with h5py.File("d.h5") as file:
        there, colors = file["train/objects/radius"][:] > 0, file["train/objects/color"][:]
    field = next(f for f in document(slotssm("inspect", "d.h5", "--json"))["fields"] if f["name"] == "objects/color")
    assert 0 < there.mean() < 1
    assert field["shares"] == {"red": (colors[there] == 0).mean(), "green": (colors[there] == 1).mean()}
    assert field["mean"] is None and "green" in slotssm("inspect", "d.h5").out


def test_scores_on_other_data_do_not_replace_those_on_the_own(slotssm, home, tmp_path):
    other = shutil.copy(next((home / "data").glob("tiny-oc-*.h5")), tmp_path / "other.h5")
    with h5py.File(other, "r+") as file:
        file["test/frames"][0, 0] = 0
    run = shutil.copytree(home / "runs" / "tiny-oc-001", tmp_path / "run")
    assert slotssm("eval", run, "--metric", "mse", "--data", other).code == 0
    assert (run / "eval" / "test-other.json").exists()
