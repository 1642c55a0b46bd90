"""`slotssm generate bouncing`: presets, what lies over them, and what is refused."""

import json

import h5py
import pytest
from test_refusals import refused

from generators.bouncing_recipe import BouncingRecipe, bouncing_fields

FEW = ("--train", 0, "--val", 0, "--test", 2, "--frames", 4, "--out", "d.h5")


def generated(slotssm, *options) -> BouncingRecipe:
    """The recipe in a small file that the options make."""
    outcome = slotssm("generate", "bouncing", *options, *FEW, "--force")
    assert outcome.code == 0, outcome.err
    assert slotssm("verify", "d.h5").code == 0
    with h5py.File("d.h5") as file:
        return BouncingRecipe.model_validate_json(file.attrs["config"])


def test_without_options_it_is_the_recipe_s_default(slotssm, workplace):
    assert generated(slotssm) == BouncingRecipe(num_frames=4)


@pytest.mark.parametrize("preset", ["easy", "medium", "hard", "white-balls"])
def test_a_preset_is_that_of_the_library(slotssm, workplace, preset):
    assert generated(slotssm, "--preset", preset, "--size", 32) == BouncingRecipe(**bouncing_fields(preset, 4, 32))


def test_options_lie_over_a_preset(slotssm, workplace):
    options = ("--objects", 2, "--radius", "6-7", "--lighting", 0, "--camera", 0, "--textures", "plain,noise")
    over = {"min_objects": 2, "max_objects": 2, "radii_px": (6, 7), "lighting": 0, "camera_px": 0}
    fields = bouncing_fields("hard", 4, 64) | over | {"textures": ("plain", "noise")}
    assert generated(slotssm, "--preset", "hard", *options) == BouncingRecipe(**fields)
    fast = generated(slotssm, "--preset", "white-balls", "--speed", "2-3", "--radius", "5-6")
    assert (fast.joint_speed_px_per_frame, fast.max_speed_px_per_frame, fast.radius_draw) == (None, 3, "range")


@pytest.mark.parametrize(("balls", "fewest", "most"), [("3", None, 3), ("2-4", 2, 4), ("3-3", None, 3)])
def test_balls_are_a_number_or_a_range(slotssm, workplace, balls, fewest, most):
    counts = ("--train", 2, "--val", 0, "--test", 0)
    made = slotssm("generate", "bcb", "--len", 80, "--balls", balls, *counts, "--out", "d.h5", "--json")
    assert made.code == 0, made.err
    with h5py.File(workplace / "d.h5") as file:
        recipe = json.loads(file.attrs["config"])
    assert (recipe["min_balls"], recipe["num_balls"]) == (fewest, most)
    refused(slotssm("generate", "bcb", "--balls", "4-2", *counts), "balls 4 exceeds", "2")
    refused(slotssm("generate", "bcb", "--balls", "x", *counts), "--balls x: expected a number or a range")


def test_every_switch_is_an_option(slotssm, workplace):
    options = ("--backgrounds", "gradient,noise", "--textures", "checker", "--lighting", 0.5, "--contact", "occlude")
    view = ("--outside", 20, "--camera", 8, "--camera-speed", 2)
    assert generated(slotssm, *options, *view) == BouncingRecipe(
        num_frames=4,
        backgrounds=("gradient", "noise"),
        textures=("checker",),
        lighting=0.5,
        contact="occlude",
        outside_px=20,
        camera_px=8,
        camera_speed_px_per_frame=2,
    )
    assert generated(slotssm, "--size", 96, "--camera", 8).camera_speed_px_per_frame == 1.5


def test_default_names_are_those_of_the_presets(slotssm, workplace):
    outcome = slotssm("generate", "bouncing", "--preset", "hard", "--test", 2, "--frames", 2, "--dry-run", "--json")
    assert json.loads(outcome.out)["path"] == "data/hard.h5"
    assert not list(workplace.iterdir())


def test_repeating_a_finished_command_with_resume_is_no_error(slotssm, workplace):
    command = ("generate", "bcb", "--len", 80, "--size", 32, "--train", 2, "--val", 0, "--test", 0, "--out", "d.h5")
    first = slotssm(*command, "--json")
    assert "frames/s" in first.err
    before = (workplace / "d.h5").stat().st_mtime_ns
    again = slotssm(*command, "--resume", "--json")
    assert (again.code, again.err) == (0, "d.h5 is already complete\n")
    facts = [{k: v for k, v in json.loads(one.out).items() if k != "seconds"} for one in (first, again)]
    assert facts[0] == facts[1]
    refused(slotssm(*command, "--resume", "--seed", 1), "d.h5 exists already", "other settings", "force")
    refused(slotssm(*command), "d.h5 exists already")
    assert (workplace / "d.h5").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        (("--preset", "harder"), ("--preset harder is unknown; did you mean hard?",)),
        (("--preset", "0"), ("--preset 0 is unknown", "white-balls, easy, medium, hard")),
        (("--backgrounds", "wood"), ("backgrounds.0", "'gradient', 'stripes'")),
        (("--textures", ","), ("textures", "at least 1 item")),
        (("--textures", "noise", "--radius", "2-5"), ("radius 3 px or more", "use larger")),
        (("--lighting", 2), ("lighting", "0.9")),
        (("--outside", 5), ("outside_px 5 is too narrow", "at least 18")),
        (("--camera", 60), ("camera_px 60 exceeds half of size_px 64",)),
        (("--camera-speed", 1), ("--camera-speed has no effect without --camera",)),
        (("--camera", 2, "--camera-speed", 3), ("the camera would shake", "lower speed")),
        (("--preset", "hard", "--size", 16), ("textures need objects of radius 3 px", "a larger size")),
    ],
)
def test_what_cannot_be_is_refused(slotssm, workplace, options, fragments):
    refused(slotssm("generate", "bouncing", *options, *FEW), *fragments)
    assert not list(workplace.iterdir())
