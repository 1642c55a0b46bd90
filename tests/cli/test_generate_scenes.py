"""`slotssm generate tabletop` and `snitch`: presets, what lies over them, refusals, and what becomes of the files."""

import json

import h5py
import numpy as np
import pytest
from test_refusals import refused

from generators.scenes.snitch import SNITCH_PRESETS, SnitchRecipe
from generators.scenes.tabletop import TABLETOP_PRESETS, TabletopRecipe
from slotssm.data import EpisodeDataset

FEW = ("--train", 0, "--val", 0, "--test", 2, "--out", "d.h5", "--size", 16)
RECIPES = {"tabletop": TabletopRecipe, "snitch": SnitchRecipe}
FRAMES = {"tabletop": 3, "snitch": 80}


def generated(slotssm, kind, *options):
    """The recipe in a small file that the options make."""
    outcome = slotssm("generate", kind, *options, *FEW, "--frames", FRAMES[kind], "--force")
    assert outcome.code == 0, outcome.err
    assert slotssm("verify", "d.h5").code == 0
    with h5py.File("d.h5") as file:
        return RECIPES[kind].model_validate_json(file.attrs["config"])


@pytest.mark.parametrize(
    ("kind", "preset"), [*(("tabletop", name) for name in TABLETOP_PRESETS), ("snitch", "still"), ("snitch", "moving")]
)
def test_a_preset_is_that_of_the_library(slotssm, workplace, kind, preset):
    fields = {"tabletop": TABLETOP_PRESETS, "snitch": SNITCH_PRESETS}[kind][preset]
    wanted = RECIPES[kind](**fields, num_frames=FRAMES[kind], size_px=16)
    assert generated(slotssm, kind, "--preset", preset) == wanted


LOOKS = (
    *("--sizes", "small,medium", "--colors", "red,cyan", "--materials", "metal", "--grounds", "checker"),
    *("--ground-colors", "any", "--lights", 1, "--cameras", "orbit", "--viewpoints", "any", "--antialias", 2),
)
LOOKS_FIELDS = {
    "sizes": ("small", "medium"),
    "colors": ("red", "cyan"),
    "materials": ("metal",),
    "grounds": ("checker",),
    "ground_colors": "any",
    "num_lights": 1,
    "cameras": ("orbit",),
    "viewpoints": "any",
    "samples_per_side": 2,
    "size_px": 16,
}


def test_every_field_of_a_tabletop_is_an_option(slotssm, workplace):
    options = ("--objects", "1-2", "--shapes", "cone,cube", "--speed", "0.1-0.2", "--gravity", 0.02)
    own = {"min_objects": 1, "max_objects": 2, "shapes": ("cone", "cube"), "min_speed": 0.1, "max_speed": 0.2}
    wanted = TabletopRecipe(**LOOKS_FIELDS, **own, gravity=0.02, num_frames=3)
    assert generated(slotssm, "tabletop", "--preset", "b", *options, *LOOKS) == wanted


def test_every_number_of_difficulty_is_an_option(slotssm, workplace):
    options = ("--objects", 4, "--cones", "2-3", "--max-moving", 3, "--containment", 1, "--preference", 0.9)
    ending = ("--release", 0.1, "--ending", "0,0,0.5,0.5", "--hidden", 10)
    own = {"min_objects": 4, "max_objects": 4, "min_cones": 2, "max_cones": 3, "max_moving": 3, "containment": 1}
    own |= {"preference": 0.9, "release": 0.1, "ending_shares": (0, 0, 0.5, 0.5), "min_hidden_frames": 10}
    wanted = SnitchRecipe(**LOOKS_FIELDS, **own, num_frames=80)
    assert generated(slotssm, "snitch", *options, *ending, *LOOKS) == wanted
    outcome = slotssm("inspect", "d.h5", "--json")
    fields = {field["name"]: field for field in json.loads(outcome.out)["fields"]}
    shares = fields["snitch_ending"]["shares"]
    assert shares["visible"] == shares["occluded"] == 0
    assert sum(shares.values()) == 1
    assert fields["hidden_frames"]["minimum"] >= 10
    assert "contained" in slotssm("inspect", "d.h5").out


def test_default_names_are_those_of_the_presets(slotssm, workplace):
    for kind, preset in (("tabletop", "moving"), ("snitch", "still")):
        few = ("--frames", 20, "--size", 16, "--test", 2)
        outcome = slotssm("generate", kind, "--preset", preset, *few, "--dry-run", "--json")
        assert json.loads(outcome.out)["path"] == f"data/{kind}-{preset}.h5"
    assert not list(workplace.iterdir())


@pytest.mark.parametrize(
    ("command", "fragments"),
    [
        (("tabletop", "--preset", "c"), ("--preset c is unknown; there are a, b, moving",)),
        (("tabletop", "--size", 8), ("size_px", "16")),
        (("tabletop", "--objects", "3-30"), ("max_objects", "20")),
        (("tabletop", "--shapes", "torus"), ("shapes.0", "'cylinder' or 'cone'")),
        (("tabletop", "--speed", "0.5-0.1"), ("min_speed 0.5 exceeds max_speed 0.1",)),
        (("snitch", "--cones", "3-2"), ("min_cones 3 exceeds max_cones 2",)),
        (("snitch", "--ending", "0.5,0.5"), ("ending_shares must be four shares that add up to 1",)),
        (("snitch", "--ending", "most,few"), ("--ending most,few: expected four shares",)),
        (("snitch", "--hidden", 400), ("min_hidden_frames 400 must be below num_frames 300",)),
    ],
)
def test_what_cannot_be_is_refused(slotssm, workplace, command, fragments):
    refused(slotssm("generate", *command, "--out", "d.h5"), *fragments)
    assert not list(workplace.iterdir())


def test_depth_and_camera_reach_datasets_and_exports(slotssm, workplace):
    generated(slotssm, "tabletop", "--preset", "moving")
    with h5py.File("d.h5") as file:
        depth = file["test/depth"][...]
        assert file["test/depth"].attrs["unit"] == "world units"
        camera = file["test/camera/rotation"][...]
    fields = ("frames", "depth", "camera/position", "camera/rotation", "camera/focal_px", "objects/world_position")
    dataset = EpisodeDataset("d.h5", "test", fields, clip_len=2)
    item = dataset[1]
    assert np.array_equal(item["depth"].numpy(), depth[1, :2])
    assert np.array_equal(item["camera/rotation"].numpy(), camera[1, :2])
    outcome = slotssm("export", "d.h5", "--to", "numpy", "--out", "numpy")
    assert outcome.code == 0, outcome.err
    assert np.array_equal(np.load("numpy/test/depth.npy"), depth)
    assert np.array_equal(np.load("numpy/test/camera/rotation.npy"), camera)


def test_eval_prints_what_memory_of_the_last_sight_is_worth(slotssm, workplace):
    generated(slotssm, "snitch")
    with h5py.File("d.h5") as file, h5py.File("p.h5", "w") as predictions:
        predictions["test/masks"] = file["test/masks"][...]
        cells = file["test/snitch_cell"][...]
        visible, place = file["test/objects/visible"][:, :, 0], file["test/objects/world_position"][:, :, 0]
    outcome = slotssm("eval", "--predictions", "p.h5", "--data", "d.h5", "--metric", "last-seen", "--json")
    assert outcome.code == 0, outcome.err
    found = json.loads(outcome.out)["results"][0]
    last = [np.flatnonzero(pixels)[-1] for pixels in visible]
    x, y = np.array([place[e, t, :2] for e, t in enumerate(last)]).T
    guessed = 6 * (np.floor(y) + 3) + np.floor(x) + 3
    assert found["value"] == (guessed == cells).mean()
    assert found["majority_class"] == np.unique(cells, return_counts=True)[1].max() / len(cells)
