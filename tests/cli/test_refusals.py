"""Wrong input: exit code 2, one line that names the fault and the remedy, and nothing written."""

import json
import os
import shutil
import subprocess

import h5py
import numpy as np
import pytest

import slotssm_zoo
from slotssm.files import exclusive


def refused(outcome, *fragments) -> str:
    assert outcome.code == 2, (outcome.code, outcome.err)
    assert len(outcome.error_lines) == 1, outcome.err
    assert "Traceback" not in outcome.err
    for fragment in fragments:
        assert fragment in outcome.error_lines[0], outcome.error_lines[0]
    return outcome.error_lines[0]


@pytest.fixture
def data(lived_in, tmp_path):
    """A copy of a good episode file, to be spoiled."""
    return shutil.copy(next((lived_in / "data").glob("tiny-oc-*.h5")), tmp_path / "copy.h5")


@pytest.mark.parametrize("command", [("inspect",), ("verify",), ("train", "--preset", "tiny-oc", "--data")])
def test_damaged_files(slotssm, workplace, data, command):
    refused(slotssm(*command, "absent.h5"), "absent.h5", "does not exist")
    (workplace / "text.h5").write_text("hello")
    refused(slotssm(*command, "text.h5"), "text.h5", "not HDF5")
    whole = data.read_bytes()
    (workplace / "cut.h5").write_bytes(whole[: len(whole) // 2])
    refused(slotssm(*command, "cut.h5"), "cut.h5", "truncated")
    with h5py.File(data, "r+") as file:
        file.attrs["format_version"] = 99
    refused(slotssm(*command, data), "format version 99", "reads version 2")
    with h5py.File(data, "r+") as file:
        file.attrs["format"] = "something"
    refused(slotssm(*command, data), "is not an episode file")


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (("generate", "bcb", "--len", 81), ("--len 81", "nearest: 80, 160")),
        (("generate", "bcb", "--len", 100, "--frames", 6), ("--len 100", "nearest: 20, 80")),
        (("generate", "bcb", "--balls", 30), ("30 objects of radius 5.68 px do not fit", "at most")),
        (("generate", "bcb", "--patches", 7), ("does not divide",)),
        (("generate", "bcb", "--rule", "latest"), ("rule", "earliest")),
        (("generate", "bcb", "--train", 0, "--val", 0, "--test", 0), ("nothing to generate",)),
        (("generate", "bcb", "--train", -1), ("--train",)),
        (("generate", "bcb", "--lenn", 80), ("--lenn", "--len")),
        (("generate", "bouncing", "--objects", "5-3"), ("min_objects 5 exceeds max_objects 3",)),
        (("generate", "bouncing", "--objects", "many"), ("--objects many",)),
        (("generate", "bouncing", "--shapes", "blob"), ("shapes",)),
        (("generate", "bouncing", "--preset", "black-balls"), ("white-balls",)),
        (("train",), ("--preset",)),
        (("train", "--preset", "tiny-os"), ("did you mean tiny-oc?",)),
        (("train", "--preset", "tiny-oc", "--set", "train.num_stepz=3"), ("train.num_stepz", "num_steps?")),
        (("train", "--preset", "tiny-oc", "--set", "train.num_steps=many"), ("train.num_steps",)),
        (("train", "--preset", "tiny-oc", "--set", "train.num_steps"), ("KEY.PATH=VALUE",)),
        (("train", "--preset", "tiny-oc", "--set", "model.num_heads=3"), ("num_heads 3 does not divide",)),
        (("train", "--preset", "tiny-oc", "--config", "absent.toml"), ("absent.toml does not exist",)),
        (("train", "--preset", "tiny-oc", "--device", "warp"), ("--device warp is not available",)),
        (
            ("train", "--preset", "tiny-oc", "--track", "tensorbord"),
            ("--track tensorbord", "did you mean tensorboard?"),
        ),
        (("reproduce", "slotownership"), ("did you mean slot-ownership?",)),
        (("eval",), ("train one first",)),
        (("eval", "nowhere"), ("nowhere is not a run directory",)),
        (("train", "--out", "nowhere", "--resume"), ("nowhere holds no run to resume; --preset NAME starts one",)),
        (("predict", str(slotssm_zoo.checkpoint("demo")), "--video", "none.mp4"), ("none.mp4 does not exist",)),
        (
            ("eval", str(slotssm_zoo.checkpoint("demo"))),
            ("is a checkpoint, not a run directory; slotssm predict takes it",),
        ),
        (("report", "nothing", "--out", "report.html"), ("nothing",)),
        (("visualize", "nowhere"), ("nowhere does not exist",)),
        (("generate", "bcb", "--seed", 2**63), ("seed",)),
        (("train", "--preset", "tiny-oc", "--seed", 2**32), ("seed",)),
        (("train", "--preset", "tiny-oc", "--set", "task.encoder_channels=[0]"), ("encoder_channels",)),
        (("train", "--preset", "tiny-oc", "--set", "model.time_mixer.expand=0.01"), ("at least one channel",)),
        (("inspect", "."), ("is not a run directory",)),
        (("presets", "tiny"), ("tiny",)),
    ],
)
def test_wrong_options(slotssm, workplace, arguments, fragments):
    refused(slotssm(*arguments), *fragments)
    assert not any(path.is_file() for path in workplace.rglob("*.h5"))
    assert not list(workplace.glob("runs/*"))


def test_an_unknown_key_in_a_file_names_the_file(slotssm, workplace):
    (workplace / "mine.toml").write_text("[model]\nnum_slotz = 3\n")
    refused(slotssm("train", "--preset", "tiny-oc", "--config", "mine.toml"), "mine.toml", "did you mean num_slots?")


def test_metrics_that_cannot_be_served(slotssm, home):
    absent = slotssm("eval", "runs/tiny-oc-001", "--metric", "color-accuracy")
    refused(absent, "color-accuracy", "possible here: fg-ari")
    refused(slotssm("eval", "runs/tiny-bcb-001", "--metric", "fg-ari"), "the predictions have no masks")
    refused(slotssm("eval", "runs/tiny-oc-001", "--metric", "fg-arl"), "did you mean fg-ari?")
    refused(slotssm("eval", "runs/tiny-oc-001", "--split", "dev"), "has no split 'dev'")
    refused(slotssm("eval", "runs/tiny-oc-001", "--empty", "maybe"), "--empty maybe")
    refused(slotssm("eval", "--predictions", "p.h5"), "--data")


def test_data_that_does_not_fit_the_run(slotssm, home):
    bcb = next((home / "data").glob("tiny-bcb-*.h5"))
    changed = slotssm("train", "--preset", "tiny-oc", "--data", bcb, "--set", "data.recipe.bogus=1")
    refused(changed, "--set: data: data has both recipe and path", "either generated or a file")
    refused(slotssm("train", "--preset", "tiny-bcb", "--data", next((home / "data").glob("tiny-oc-*.h5"))), "'bcb'")


def test_a_checkpoint_of_another_architecture(slotssm, home, tmp_path):
    run = shutil.copytree(home / "runs" / "tiny-oc-001", tmp_path / "run")
    for config in run.glob("checkpoints/*/config.json"):
        changed = json.loads(config.read_text())
        changed["config"]["model"]["slot_dim"] = 32
        config.write_text(json.dumps(changed))
    refused(slotssm("eval", run), "another architecture", "expected")


def test_nothing_is_overwritten_without_force(slotssm, home, tmp_path):
    refused(slotssm("train", "--preset", "tiny-oc", "--out", "runs/tiny-oc-001"), "--resume", "--force")
    picture = tmp_path / "x.gif"
    picture.write_text("mine")
    refused(slotssm("visualize", "runs/tiny-oc-001", "--out", picture), "--force")
    assert picture.read_text() == "mine"
    out = tmp_path / "d.h5"
    out.write_text("mine")
    few = ("--train", 2, "--val", 0, "--test", 0)
    refused(slotssm("generate", "bcb", "--out", out, *few), "--force")
    assert out.read_text() == "mine"
    assert slotssm("generate", "bcb", "--out", out, *few, "--force").code == 0


def test_a_folder_that_holds_something_else_is_never_cleared(slotssm, workplace):
    (workplace / "thesis").mkdir()
    (workplace / "thesis" / "chapter.txt").write_text("mine")
    refused(slotssm("train", "--preset", "tiny-oc", "--out", "thesis", "--force"), "is not a run directory")
    assert (workplace / "thesis" / "chapter.txt").read_text() == "mine"


def test_with_json_the_error_is_a_document_too(slotssm, workplace):
    outcome = slotssm("generate", "bcb", "--len", 81, "--json")
    assert outcome.code == 2
    assert json.loads(outcome.out)["exit_code"] == 2


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts a small or read-only file system; skipped where that is not allowed."""
    mounted = []

    def mount(options: str):
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if shutil.which("mount") is None or os.geteuid() != 0 or subprocess.run(command, check=False).returncode:
            pytest.skip("mounting is not allowed here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_read_only_folder(slotssm, workplace, small_disk):
    folder = small_disk("ro,size=1m")
    refused(slotssm("generate", "bcb", "--train", 2, "--out", folder / "d.h5"), "cannot write", "Read-only")
    refused(slotssm("train", "--preset", "tiny-oc", "--out", folder / "run"), "cannot write", "Read-only")


def test_a_full_disk(slotssm, home, small_disk):
    folder = small_disk("size=200k")
    refused(slotssm("generate", "bouncing", "--train", 500, "--workers", 1, "--out", folder / "d.h5"), "cannot write")
    assert not (folder / "d.h5").exists()
    shutil.rmtree(folder / "d.h5.parts", ignore_errors=True)
    run = folder / "run"
    refused(slotssm("train", "--preset", "tiny-oc", "--out", run), "cannot write", "No space left")
    refused(slotssm("visualize", "runs/tiny-oc-001", "--out", folder / "x.gif"), "cannot write")


def test_attention_masks_of_a_model_that_has_none(slotssm, workplace):
    few = ("--set", "model.kind=slotssm", "--set", "model.slot_dim=16", "--set", "train.num_steps=2", "--out", "run")
    assert slotssm("train", "--preset", "tiny-oc", *few).code == 0
    assert slotssm("eval", "run", "--metric", "fg-ari").code == 0
    refused(slotssm("eval", "run", "--metric", "fg-ari", "--mask-source", "attention"), "have no masks")


def test_a_best_checkpoint_needs_episodes_to_validate(slotssm, workplace):
    few = ("--train", 4, "--val", 0, "--test", 2, "--size", 32, "--frames", 8)
    assert slotssm("generate", "bouncing", *few, "--out", "d.h5").code == 0
    for more in (["--dry-run"], []):
        kept = ("train", "--preset", "tiny-oc", "--data", "d.h5", "--keep-best", "mse", *more)
        refused(slotssm(*kept), "needs validations", "d.h5 has no episodes in split val")


PLAN, TRAIN = ("train", "--dry-run"), ("train",)
SWEEP = ("sweep", "--seeds", "0,1", "--dry-run")


@pytest.mark.parametrize("command", [PLAN, TRAIN, SWEEP])
@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (["train.keep_best=color-accuracy"], "color-accuracy is not validated; there are mse, fg-ari, miou"),
        (["train.keep_best=mse", "data.num_val=0"], "needs validations, and data.num_val is 0"),
    ],
)
def test_what_would_fail_is_refused_before_data_are_made(slotssm, workplace, command, settings, why):
    assigned = [word for setting in settings for word in ("--set", setting)]
    refused(slotssm(*command, "--preset", "tiny-oc", *assigned), why)
    assert not list(workplace.iterdir())


@pytest.mark.parametrize("command", [PLAN, TRAIN])
def test_an_absent_tracker_is_refused_before_data_are_made(slotssm, workplace, monkeypatch, command):
    monkeypatch.setattr("slotssm.training.trackers.importlib.util.find_spec", lambda name: None)
    refused(slotssm(*command, "--preset", "tiny-oc", "--track", "wandb"), "the package wandb is missing")
    assert not list(workplace.iterdir())


def test_a_dry_run_warns_of_a_choice_by_labels(slotssm):
    assert "fg-ari chooses by labels (masks)" in slotssm(*PLAN, "--preset", "tiny-oc", "--keep-best", "fg-ari").err


def test_a_dry_run_refuses_what_would_fail(slotssm, home, tmp_path):
    plan = ("train", "--preset", "tiny-oc", "--dry-run")
    refused(slotssm(*plan, "--init-from", "runs/nothing"), "runs/nothing is neither a checkpoint nor a run with one")
    narrow = ("--set", "model.slot_dim=32", "--init-from", "runs/tiny-oc-001")
    refused(slotssm(*plan, *narrow), "another architecture")
    refused(slotssm(*plan, "--out", "runs/tiny-oc-001"), "exists already", "--force")
    refused(slotssm(*plan, "--device", "warp"), "--device warp is not available")
    stopped = shutil.copytree(home / "runs" / "tiny-oc-001", tmp_path / "run")
    shutil.rmtree(stopped / "checkpoints" / "step-00000006")
    refused(slotssm("train", "--out", stopped, "--extend", 3, "--dry-run"), "is not complete", "--resume continues it")
    assert slotssm(*plan, "--out", "runs/tiny-oc-001", "--force").code == 0


def test_a_run_is_either_extended_or_resumed(slotssm, home):
    refused(slotssm("train", "--out", "runs/tiny-oc-001", "--extend", 3, "--resume"), "--extend", "--resume", "one")


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_in_a_sweep(slotssm, workplace, seed):
    refused(
        slotssm("sweep", "--preset", "tiny-oc", f"--seeds={seed}"), f"--seeds {seed} must be between 0 and 2^32 - 1"
    )


def test_pictures_of_nothing(slotssm, home, tmp_path):
    refused(slotssm("visualize", "runs/tiny-oc-001", "--episodes", "", "--out", tmp_path / "x.gif"), "--episodes ''")
    refused(slotssm("visualize", "runs/tiny-oc-001", "--device", "warp"), "--device warp is not available")
    data = shutil.copy(next((home / "data").glob("tiny-oc-*.h5")), tmp_path / "d.h5")
    (tmp_path / "d-test.gif").write_text("mine")
    refused(slotssm("visualize", data), "d-test.gif exists already")
    assert (tmp_path / "d-test.gif").read_text() == "mine"


def test_predictions_that_would_score_wrongly(slotssm, home, tmp_path):
    data = next((home / "data").glob("tiny-oc-*.h5"))
    with h5py.File(data) as truth:
        shape, frames = truth["test/masks"].shape, truth["test/frames"][:, -1:]

    def score(metric, **datasets):
        file = tmp_path / f"{len(list(tmp_path.iterdir()))}.h5"
        with h5py.File(file, "w") as predictions:
            for name, values in datasets.items():
                predictions[f"test/{name}"] = values
        return slotssm("eval", "--predictions", file, "--data", data, "--metric", metric)

    soft = np.full((*shape[:2], 2, *shape[2:]), np.nan, np.float32)
    refused(score("fg-ari", masks=soft), "not finite")
    refused(score("mse", frames=frames.astype(np.int32)), "must be uint8")
    refused(score("mse", frames=frames.astype(np.float32)), "give their range as --frame-range, or store uint8")
    assert score("mse", frames=frames / 255.0).code == 0


def test_force_removes_nothing_before_the_new_run_is_possible(slotssm, home, tmp_path):
    run = shutil.copytree(home / "runs" / "tiny-oc-001", tmp_path / "run")
    (run / "notes.txt").write_text("mine")
    test_only = tmp_path / "test-only.h5"
    make = ("generate", "bouncing", "--objects", 1, "--size", 16, "--train", 0, "--val", 0, "--test", 2)
    assert slotssm(*make, "--out", test_only).code == 0
    again = ("train", "--preset", "tiny-oc", "--out", run, "--force")
    refused(slotssm(*again, "--data", test_only), "has no split 'train'")
    assert (run / "checkpoints" / "last").exists()
    assert slotssm(*again, "--set", "train.num_steps=2").code == 0
    assert (run / "checkpoints" / "last").read_text().strip() == "step-00000002"
    assert (run / "notes.txt").read_text() == "mine"


def test_a_run_that_is_being_trained_is_left_alone(slotssm, home, tmp_path):
    run = shutil.copytree(home / "runs" / "tiny-oc-001", tmp_path / "run")
    with exclusive(run / ".lock"):
        refused(slotssm("train", "--resume", "--out", run), "in use by another process")
