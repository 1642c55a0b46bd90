"""Backgrounds, textures, light, ways out of the frame and a moving view: exact, and each for itself."""

import hashlib
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from test_bouncing import check, num_objects, own_pixels

from generators.bouncing import layout
from generators.bouncing_recipe import BOUNCING_PRESETS, BouncingRecipe, bouncing_fields
from generators.catalog import make_episode
from generators.textures import TEXTURES
from generators.writer import generate, verify
from slotssm.config import RecipeData
from slotssm.data.episodes import EpisodeFile

SWITCHES: dict[str, dict[str, Any]] = {
    "colors": {"distinct_colors": True},
    "backgrounds": {"backgrounds": TEXTURES},
    "textures": {"textures": TEXTURES},
    "lighting": {"lighting": 0.6},
    "outside": {"outside_px": 20.0},
    "camera": {"camera_px": 9.0},
}
FIELDS = {
    "colors": {"frames", "objects/color"},
    "backgrounds": {"frames", "background"},
    "textures": {"frames", "objects/texture"},
    "lighting": {"frames", "light"},
    "outside": {"frames", "masks", "objects/position", "objects/velocity", "objects/visible"},
    "camera": {"frames", "masks", "objects/position", "objects/velocity", "objects/visible", "camera"},
}
"""What a switch may change or add; for `outside`, velocities after the first frame."""

# hashes of four episodes from before there were switches
BEFORE: dict[str, tuple[dict[str, Any], str]] = {
    "default": ({}, "c6729ca701b67de3251c8a1847255de4edfbb3c1f26df46ee6591957d8b00849"),
    "occlude": (
        {"contact": "occlude", "num_frames": 12},
        "77bda2b47b6c39f41dd8b46ee5e29513d8112371fd3df57fcc9b83e36f7b648f",
    ),
    "few": (
        {"min_objects": 0, "max_objects": 2, "num_frames": 9, "size_px": 33, "radii_px": (2.0, 5.0)},
        "04ee37e9d4f3c9aab3192c8806d0a27c99d4a7ab97efa9ea414d29ca541de4c5",
    ),
    "choice": (
        {
            "radii_px": (3.0, 4.5, 6.0),
            "radius_draw": "choice",
            "mass": "equal",
            "max_objects": 8,
            "num_frames": 10,
        },
        "0d12598026675b3f717b4b949cc9ec4221fda4a5c875a268eb9768f6a893a247",
    ),
    "white-balls": (
        bouncing_fields("white-balls", 10, 64),
        "ea294447b4df1250d9fd2c4264d063bbb43ef8ecd49a12afa5f1fdabf1dcf0da",
    ),
    "long": (
        {
            "num_frames": 200,
            "size_px": 24,
            "radii_px": (2.0, 3.0),
            "shapes": ("triangle", "square"),
            "colors": ("orange", "white", "orange"),
        },
        "41c67111beef16832e926483de0b71b78d194c58ef45fc16e11ca4b40acf2c4f",
    ),
}
DEFAULT_DOCUMENT = (
    '{"kind":"bouncing","num_frames":30,"size_px":64,"min_objects":3,"max_objects":5,'
    '"shapes":["circle","square","triangle"],"colors":["red","green","blue","yellow","magenta","cyan"],'
    '"radii_px":[6.0,9.0],"radius_draw":"range","mass":"area","min_speed_px_per_frame":1.0,'
    '"max_speed_px_per_frame":3.0,"joint_speed_px_per_frame":null,"contact":"collide"}'
)


# --- while off --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BEFORE)
def test_episodes_of_earlier_recipes_are_bit_for_bit_what_they_were(name: str) -> None:
    fields, expected = BEFORE[name]
    recipe, found = BouncingRecipe(**fields), hashlib.sha256()
    for index in range(4):
        episode = make_episode(recipe, 7, "val", index)
        for path, field in layout(recipe).items():
            found.update(f"{path}{field.shape}".encode())
            found.update(np.ascontiguousarray(episode[path], field.dtype).tobytes())
    assert found.hexdigest() == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"num_frames": 5, "size_px": 24, "min_objects": 1, "max_objects": 3, "radii_px": (2.0, 3.0)},
            "f627a90a38083a3de23878cd04435c705e1f97ed5190d473d2620064f5840768",
        ),
        ({"contact": "occlude", "num_frames": 5}, "cf914426846d084349d1a091ae924981d83dca6935b93ede53ad69e57cc2efe2"),
    ],
)
def test_files_of_earlier_recipes_are_what_they_were(tmp_path: Path, fields: dict[str, Any], expected: str) -> None:
    config = RecipeData(recipe=BouncingRecipe(**fields), seed=3, num_train=20, num_val=3, num_test=0)
    generate(config, tmp_path / "d.h5", workers=1)
    found, names = hashlib.sha256(), []
    with h5py.File(tmp_path / "d.h5") as file:
        file.visititems(lambda name, node: names.append(name) if isinstance(node, h5py.Dataset) else None)
        for name in sorted(names):
            values = file[name][...]
            found.update(f"{name}{values.dtype}{values.shape}".encode() + values.tobytes())
    assert found.hexdigest() == expected


def test_a_saved_recipe_holds_all_fields_whatever_is_on() -> None:
    # one that was written before there were switches has them off
    assert BouncingRecipe.model_validate_json(DEFAULT_DOCUMENT) == BouncingRecipe()
    for fields in ({}, *SWITCHES.values()):
        recipe = BouncingRecipe(**fields)
        document = json.loads(recipe.model_dump_json())
        assert set(document) == set(BouncingRecipe.model_fields)
        assert document.items() >= json.loads(DEFAULT_DOCUMENT).items()
        assert BouncingRecipe.model_validate(document) == recipe


# --- while on ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("contact", ["collide", "occlude"])
@pytest.mark.parametrize("name", SWITCHES)
def test_a_switch_changes_nothing_else(name: str, contact: str) -> None:
    others = {key: value for other in SWITCHES if other != name for key, value in SWITCHES[other].items()}
    for rest in ({}, others):
        off = BouncingRecipe(num_frames=8, contact=contact, **rest)
        on = BouncingRecipe(num_frames=8, contact=contact, **rest, **SWITCHES[name])
        differ: set[str] = set()
        for index in range(6):
            before, after = make_episode(off, 1, "train", index), make_episode(on, 1, "train", index)
            differ |= {key for key in after if key not in before or not np.array_equal(before[key], after[key])}
            if name == "outside":
                np.testing.assert_array_equal(before["objects/velocity"][0], after["objects/velocity"][0])
        assert differ == FIELDS[name]


def test_colours_are_drawn_without_replacement_and_evenly() -> None:
    recipe = BouncingRecipe(num_frames=1, min_objects=2, max_objects=3, distinct_colors=True)
    drawn = [make_episode(recipe, 0, "train", index) for index in range(600)]
    colors = [episode["objects/color"][episode["objects/radius"] > 0].tolist() for episode in drawn]
    assert all(len(set(each)) == len(each) for each in colors)
    # 1,500 objects of six colours: 250 each, give or take four standard deviations
    counts = np.bincount(np.concatenate(colors), minlength=6)
    assert np.abs(counts - counts.sum() / 6).max() < 4 * (counts.sum() * 5 / 36) ** 0.5


def test_distinct_colours_must_suffice() -> None:
    with pytest.raises(ValidationError, match="3 objects need more than 2 colors; use fewer objects or more colors"):
        BouncingRecipe(min_objects=1, max_objects=3, colors=("red", "blue"), distinct_colors=True)
    with pytest.raises(ValidationError, match="needs colors without duplicates"):
        BouncingRecipe(min_objects=1, max_objects=2, colors=("red", "blue", "red"), distinct_colors=True)


@st.composite
def recipes(draw: st.DrawFn) -> BouncingRecipe:
    """Small recipes with any of the switches."""
    some = st.lists(st.sampled_from(TEXTURES), min_size=1, max_size=5, unique=True)
    size = draw(st.sampled_from([24, 33]))
    return BouncingRecipe(
        num_frames=draw(st.integers(1, 7)),
        size_px=size,
        min_objects=0,
        max_objects=draw(st.integers(1, 4)),
        radii_px=sorted(draw(st.tuples(st.floats(3, 5), st.floats(3, 5)))),
        max_speed_px_per_frame=draw(st.floats(1, 6)),
        contact="occlude" if size == 24 else draw(st.sampled_from(["collide", "occlude"])),
        backgrounds=draw(some),
        textures=draw(some),
        lighting=draw(st.sampled_from([0.0, 0.3, 0.9])),
        outside_px=draw(st.sampled_from([0.0, 10.0, 24.0])),
        camera_px=draw(st.sampled_from([0.0, 1.0, 12.0])),
        camera_speed_px_per_frame=draw(st.sampled_from([0.1, 1.0])),
    )


@settings(deadline=None, max_examples=60)
@given(recipe=recipes(), seed=st.integers(0, 2**63), index=st.integers(0, 2**31 - 1))
def test_every_combination_is_consistent_and_masks_are_the_pixels_drawn(
    recipe: BouncingRecipe, seed: int, index: int
) -> None:
    episode = make_episode(recipe, seed, "test", index)
    check(recipe, episode)
    # streams do not depend on the objects, so that this is the same scene without them
    bare = recipe.model_copy(update={"min_objects": 0, "max_objects": 0})
    behind = make_episode(bare, seed, "test", index)["frames"]
    assert np.array_equal((episode["frames"] != behind).any(-1), episode["masks"] > 0)


def test_pixels_of_flat_colours_are_darkened_by_the_light_that_is_told() -> None:
    recipe = BouncingRecipe(num_frames=40, lighting=0.7)
    for index in range(4):
        plain = make_episode(BouncingRecipe(num_frames=40), 0, "train", index)["frames"]
        episode = make_episode(recipe, 0, "train", index)
        assert np.abs(episode["frames"] - plain * episode["light"][:, None, None]).max() <= 0.5
        assert 0.3 - 1e-9 <= episode["light"].min() < 0.66


def test_objects_keep_to_the_walls_of_the_world_and_are_seen_where_they_are() -> None:
    recipe = BouncingRecipe(
        num_frames=150, min_objects=1, max_objects=1, shapes=["circle"], outside_px=24.0, camera_px=10.0
    )
    hidden = partial = returned = 0
    for index in range(12):
        episode = make_episode(recipe, 2, "train", index)
        radius, camera = episode["objects/radius"][0], episode["camera"]
        world = episode["objects/position"][:, 0] + camera
        # the triangle wave of a point between two walls, fitted to nothing but the start
        start_velocity = episode["objects/velocity"][0, 0] + _rate(camera)[0]
        low, high = -24 + radius, 64 + 24 - radius
        phase = (world[0] + start_velocity * np.arange(150)[:, None] - low) % (2 * (high - low))
        expected = low + np.minimum(phase, 2 * (high - low) - phase)
        np.testing.assert_allclose(world, expected, atol=0.05)
        whole = np.array([own_pixels(episode, t, 0, 64).sum() for t in range(150)])
        visible = episode["objects/visible"][:, 0]
        np.testing.assert_array_equal(visible, whole)
        position = episode["objects/position"][:, 0]
        away = ((position < -radius) | (position > 64 + radius)).any(-1)
        assert not visible[away].any()
        hidden, partial = hidden + away.sum(), partial + ((visible > 0) & (visible < 0.5 * np.pi * radius**2)).sum()
        returned += ((visible[:-1] == 0) & (visible[1:] > 0)).sum()
    assert min(hidden, partial) > 50
    assert returned > 5, "nobody came back: the test is too easy"


def _rate(camera: np.ndarray) -> np.ndarray:
    """Velocity of the view at the first frame, by a polynomial through many frames: exact to 1e-6."""
    times = np.arange(12)
    return np.stack([np.polynomial.Polynomial.fit(times, axis[:12], 9).deriv()(times) for axis in camera.T], -1)


def test_velocity_is_that_of_the_image() -> None:
    recipe = BouncingRecipe(num_frames=60, contact="occlude", outside_px=30.0, camera_px=8.0)
    for index in range(5):
        episode = make_episode(recipe, 3, "train", index)
        num = num_objects(episode)
        still = make_episode(recipe.replace(camera_px=0.0), 3, "train", index)
        # what the moving view takes off is the same for every object, and the rate at which it moves
        taken = (still["objects/velocity"] - episode["objects/velocity"])[:, :num]
        np.testing.assert_allclose(taken, taken[:, :1].repeat(num, 1), atol=1e-12)
        np.testing.assert_allclose(taken[:12, 0], _rate(episode["camera"]), atol=1e-4)
        shift = (still["objects/position"] - episode["objects/position"])[:, :num]
        np.testing.assert_allclose(shift, episode["camera"][:, None].repeat(num, 1), atol=1e-12)


def test_nearer_objects_cover_farther_ones() -> None:
    recipe = BouncingRecipe(**bouncing_fields("hard", 10, 64))
    covered = 0
    for index in range(8):
        episode = make_episode(recipe, 4, "test", index)
        num, depth = num_objects(episode), episode["objects/depth"]
        assert sorted(depth[:num]) == list(range(num))
        for t in range(10):
            alone = [own_pixels(episode, t, n, 64) for n in range(num)]
            front = np.full((64, 64), num)
            expected = np.zeros((64, 64), int)
            for n in range(num):
                nearer = alone[n] & (depth[n] < front)
                expected[nearer], front[nearer] = n + 1, depth[n]
            assert np.array_equal(episode["masks"][t], expected)
            covered += sum(own.sum() for own in alone) - (expected > 0).sum()
    assert covered > 200, "hardly anything was covered: the test is too easy"


# --- presets and files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", BOUNCING_PRESETS)
def test_presets_scale_with_the_frame(preset: str) -> None:
    recipes = {size: BouncingRecipe(**bouncing_fields(preset, 4, size)) for size in (32, 64, 128)}
    for size, recipe in recipes.items():
        middle = recipes[64]
        for name in type(recipe).model_fields:
            if name in BOUNCING_PRESETS[preset] and name.endswith(("_px", "_px_per_frame")):
                np.testing.assert_allclose(getattr(recipe, name), np.array(getattr(middle, name)) * size / 64)
        episode = make_episode(recipe, 0, "train", 0)
        check(recipe, episode)


@pytest.mark.parametrize(
    "fields", [*SWITCHES.values(), bouncing_fields("hard", 5, 40)], ids=[*SWITCHES, "all together"]
)
def test_files_hold_every_switch_and_verify(tmp_path: Path, fields: dict[str, Any]) -> None:
    recipe = BouncingRecipe(**{"num_frames": 5, "size_px": 40, "max_objects": 3, "radii_px": (4, 6), **fields})
    config = RecipeData(recipe=recipe, seed=5, num_train=3, num_val=0, num_test=1)
    generate(config, tmp_path / "d.h5", workers=1)
    found = verify(tmp_path / "d.h5", check_all=True)
    assert (found.num_checked, found.mismatches) == (4, [])
    with EpisodeFile(tmp_path / "d.h5") as file:
        assert BouncingRecipe(**file.config) == recipe
        assert set(file.fields("train")) == set(layout(recipe))
