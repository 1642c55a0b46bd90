"""Training, scoring and drawing with an episode file in place of a recipe, through the command line."""

import json
import shutil

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from test_refusals import refused

from slotssm.data.loader import Loader
from slotssm.experiments.runs import load_run
from slotssm.training.run import RunDirectory

WIDTH, HEIGHT, T = 96, 64, 4
GAP_PX, TITLE_PX, FRAME_PX = 6, 18, 80
"""Of the pictures: around a tile, and above it."""
FEW = ("train.num_steps=2", "train.batch_size=2", "train.checkpoint_every_steps=1", "train.eval_every_steps=2")
SETTINGS = tuple(word for setting in FEW for word in ("--set", setting))


def document(outcome):
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def videos(seed: int, num: int) -> np.ndarray:
    """A red square that moves to the right over a picture of its own, uint8 [E, T, H, W, 3]."""
    rng = np.random.default_rng(seed)
    frames = np.repeat(rng.integers(0, 120, (num, 1, HEIGHT, WIDTH, 3), dtype=np.uint8), T, axis=1)
    for t in range(T):
        frames[:, t, 20:36, 10 + 15 * t : 26 + 15 * t] = (230, 20, 20)
    return frames


@pytest.fixture(scope="module")
def rectangles(tmp_path_factory):
    """A folder of pictures of 96 x 64 pixels, in splits of its own."""
    folder = tmp_path_factory.mktemp("pictures") / "clips"
    for seed, (split, num) in enumerate({"train": 6, "val": 2, "test": 2}.items()):
        for index, video in enumerate(videos(seed, num)):
            (folder / split / f"clip{index}").mkdir(parents=True)
            for t, frame in enumerate(video):
                Image.fromarray(frame).save(folder / split / f"clip{index}" / f"{t}.png")
    return folder


@pytest.fixture(scope="module")
def imported(rectangles, tmp_path_factory):
    """Those pictures as an episode file."""
    from slotssm.data import importers

    path = tmp_path_factory.mktemp("imported") / "clips.h5"
    importers.import_data(rectangles, path, importers.ImportOptions(kind="folder"))
    return path


def test_rectangular_pictures_from_a_folder_to_pictures_of_slots(slotssm, workplace, rectangles):
    assert slotssm("import", "folder", rectangles, "--out", "d.h5").code == 0
    with h5py.File("d.h5") as file:
        assert file.attrs["format_version"] == 2
        for seed, (split, num) in enumerate({"train": 6, "val": 2, "test": 2}.items()):
            assert json.loads(file[f"{split}/frames"].attrs["dims"]) == [
                "episode",
                "time",
                "height",
                "width",
                "channel",
            ]
            np.testing.assert_array_equal(file[f"{split}/frames"], videos(seed, num))

    trained = slotssm("train", "--preset", "tiny-oc", "--data", "d.h5", *SETTINGS, "--out", "run")
    assert trained.code == 0, trained.err
    (error,) = document(slotssm("eval", "run", "--metric", "mse", "--json"))["results"]
    assert (error["num_units"], error["num_skipped"]) == (2, 0)

    (data,) = document(slotssm("visualize", "d.h5", "--episodes", "0", "--out", "d.gif", "--json"))["files"]
    drawn, _ = document(slotssm("visualize", "run", "--episodes", "0", "--out", "run.png", "--json"))["files"]
    # the shorter side is enlarged to 96 pixels or more
    zoom = 2
    with Image.open(data) as picture:
        assert picture.size == (WIDTH * zoom + 2 * GAP_PX, HEIGHT * zoom + TITLE_PX + 2 * GAP_PX)
    with Image.open(drawn) as picture:
        # one above the other: a still for each frame
        assert picture.height == T * (HEIGHT * zoom + TITLE_PX + 2 * GAP_PX)
        assert (picture.width - FRAME_PX - GAP_PX) % (WIDTH * zoom + GAP_PX) == 0
        left, top = FRAME_PX + GAP_PX, GAP_PX + TITLE_PX
        shown = np.asarray(picture.convert("RGB"))[top : top + HEIGHT * zoom, left : left + WIDTH * zoom]
    enlarged = videos(2, 1)[0, 0].repeat(zoom, axis=0).repeat(zoom, axis=1)
    np.testing.assert_array_equal(shown, enlarged)


def shown_episodes(monkeypatch) -> set[int]:
    """Filled with the episodes of the batches that are read from now on."""
    seen: set[int] = set()
    pick = Loader._pick

    def noted(self, step, row):
        found = pick(self, step, row)
        seen.add(found[0])
        return found

    monkeypatch.setattr(Loader, "_pick", noted)
    return seen


def test_a_run_may_take_the_first_episodes_of_a_file_alone(slotssm, workplace, imported, monkeypatch):
    seen = shown_episodes(monkeypatch)
    command = ("train", "--preset", "tiny-oc", "--data", imported, *SETTINGS, "--set", "train.num_steps=6")
    assert slotssm(*command, "--set", "data.num_train=2", "--out", "two").code == 0
    assert seen == {0, 1}
    data = document(slotssm("inspect", "two", "--json"))["config"]["data"]
    assert (data["path"], data["num_train"], data["num_val"]) == (str(imported), 2, None)
    seen.clear()
    assert slotssm(*command, "--out", "all").code == 0
    assert seen == set(range(6))
    seen.clear()
    # it is the most that are taken
    assert slotssm(*command, "--set", "data.num_train=7", "--out", "seven").code == 0
    assert seen == set(range(6))
    refused(slotssm(*command, "--set", "data.num_train=0", "--out", "none"), "data.num_train")
    refused(slotssm(*command, "--set", "data.num_test=2", "--out", "none"), "unknown key data.num_test")


def test_a_configuration_file_may_name_the_data(slotssm, workplace, imported):
    toml = slotssm("presets", "tiny-oc").out.splitlines()
    whole = [line for line in toml if not line.startswith("data.")] + [f"data.path = {json.dumps(str(imported))}"]
    (workplace / "mine.toml").write_text("\n".join(whole))
    assert slotssm("train", "--config", "mine.toml", *SETTINGS, "--out", "run").code == 0
    found = document(slotssm("inspect", "run", "--json"))
    assert found["config"]["data"]["path"] == found["data"] == str(imported)
    assert found["config"]["data"]["sha256"] == found["data_sha256"]
    assert not (workplace / "data").exists()


@pytest.mark.parametrize("way", ["a configuration file", "assignments"])
def test_a_file_takes_the_place_of_a_preset_s_recipe(slotssm, workplace, imported, way):
    (workplace / "data.toml").write_text(f"[data]\npath = {json.dumps(str(imported))}\nnum_train = 3\n")
    assigned = ("--set", f"data.path={imported}", "--set", "data.num_train=3")
    command = ("train", "--preset", "tiny-oc", *(("--config", "data.toml") if "file" in way else assigned))
    plan = document(slotssm(*command, "--dry-run", "--json"))
    assert plan["data"] == str(imported)
    assert slotssm(*command, *SETTINGS, "--out", "run").code == 0
    data = document(slotssm("inspect", "run", "--json"))["config"]["data"]
    assert (data["path"], data["num_train"]) == (str(imported), 3)


def test_a_run_goes_on_with_its_file_elsewhere(slotssm, workplace, imported):
    shutil.copy(imported, "d.h5")
    data = ("--data", "d.h5", "--set", "data.num_train=2")
    started = slotssm("train", "--preset", "tiny-oc", *data, *SETTINGS, "--out", "whole")
    assert started.code == 0, started.err
    run = shutil.copytree(workplace / "whole", workplace / "run")
    shutil.rmtree(run / "checkpoints" / "step-00000002")
    (workplace / "d.h5").rename(workplace / "moved.h5")
    refused(slotssm("train", "--resume", "--out", "run"), "d.h5", "does not exist", "--data")
    with h5py.File(shutil.copy("moved.h5", "other.h5"), "r+") as file:
        file["train/frames"][0, 0, 0, 0] = 255 - file["train/frames"][0, 0, 0, 0]
    refused(slotssm("train", "--resume", "--out", "run", "--data", "other.h5"), "other.h5", "content hash differs")
    resumed = slotssm("train", "--resume", "--out", "run", "--data", "moved.h5")
    assert resumed.code == 0, resumed.err
    assert (run / "metrics.jsonl").read_text() == (workplace / "whole" / "metrics.jsonl").read_text()
    assert (run / "checkpoints" / "step-00000002").is_dir()


def test_one_file_of_balls_is_read_in_any_patches(slotssm, workplace):
    """How a model reads the frames is its task's affair: the file only suggests."""
    ball = ("--size", 16, "--frames", 4, "--balls", 2, "--radius", 2.5, "--speed", 1)
    counts = ("--train", 4, "--val", 0, "--test", 2)
    assert slotssm("generate", "bcb", *ball, *counts, "--patches", 2, "--out", "balls.h5").code == 0
    content = (workplace / "balls.h5").read_bytes()
    few = ("--set", "train.num_steps=2", "--set", "train.batch_size=2", "--set", "train.eval_every_steps=0")
    for patches in (1, 2, 4, None):
        run = f"run-{patches}"
        chosen = () if patches is None else ("--set", f"task.patches_per_side={patches}")
        trained = slotssm("train", "--preset", "tiny-bcb", "--data", "balls.h5", *few, *chosen, "--out", run)
        assert trained.code == 0, trained.err
        scored = document(slotssm("eval", run, "--metric", "color-accuracy", "--json"))["results"]
        assert scored[0]["num_units"] + scored[0]["num_skipped"] == 2
        outputs = load_run(RunDirectory(workplace / run))[0].predict(torch.zeros(1, 3, 16, 16, 3, dtype=torch.uint8))
        # one step for each patch of the three context frames
        assert outputs["slots"].shape[1] == 3 * (patches or 2) ** 2
    assert (workplace / "balls.h5").read_bytes() == content
    refused(
        slotssm("train", "--preset", "tiny-bcb", "--data", "balls.h5", "--set", "task.patches_per_side=3"),
        "16 px in 3 patches per side",
    )


def test_a_sequence_length_is_recorded_with_the_patches_that_give_it(slotssm, workplace):
    one = ("--train", 1, "--val", 0, "--test", 0)
    assert slotssm("generate", "bcb", "--len", 2560, *one).code == 0
    with h5py.File("data/bcb-earliest-2560.h5") as file:
        num_frames = file["train/frames"].shape[1]
        assert (file.attrs["sequence_length"], file.attrs["patches_per_side"]) == (2560, 16)
        assert (num_frames - 1) * 16**2 == 2560
        frames = file["train/frames"][...]
    # other patches, the same content
    assert slotssm("generate", "bcb", "--frames", num_frames, "--patches", 1, *one, "--out", "whole.h5").code == 0
    with h5py.File("whole.h5") as file:
        assert (file.attrs["sequence_length"], file.attrs["patches_per_side"]) == (num_frames - 1, 1)
        np.testing.assert_array_equal(file["train/frames"], frames)
