"""What the bouncing-shapes file says about its objects, checked on the pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, kstest
from shape_oracle import margin

from generators.bouncing import layout
from generators.bouncing_recipe import BouncingRecipe, bouncing_fields
from generators.catalog import make_episode
from generators.colors import COLORS
from generators.limits import MIN_SPEED_PX_PER_FRAME
from generators.rasterizer import SHAPES
from slotssm.data.episodes import Episode

WITHOUT_OBJECTS = ("frames", "masks", "background", "light", "camera")
PER_FRAME = ("objects/position", "objects/velocity", "objects/visible")


def num_objects(episode: Episode) -> int:
    """Objects that have a size; the rest is padding."""
    return int((episode["objects/radius"] > 0).sum())


def own_pixels(episode: Episode, t: int, n: int, size_px: int) -> np.ndarray:
    """Pixels that object n would cover alone."""
    x, y = episode["objects/position"][t, n]
    return margin(SHAPES[episode["objects/shape"][n]], x, y, episode["objects/radius"][n], size_px) > 0


def check(recipe: BouncingRecipe, episode: Episode) -> None:
    """Every field agrees with every other one, with the recipe and with the layout."""
    fields = layout(recipe)
    assert set(episode) == set(fields)
    for name, field in fields.items():
        assert episode[name].shape == field.shape, name
        assert np.array_equal(episode[name], episode[name].astype(field.dtype)) or field.dtype == "float32", name
    num = num_objects(episode)
    assert recipe.min_objects <= num <= recipe.max_objects
    masks = episode["masks"]
    counts = np.stack([np.bincount(mask.ravel(), minlength=256) for mask in masks])
    assert np.array_equal(counts[:, 1 : recipe.max_objects + 1], episode["objects/visible"])
    assert not counts[:, num + 1 :].any()
    for name in fields.keys() - set(WITHOUT_OBJECTS):
        padding = episode[name][:, num:] if name in PER_FRAME else episode[name][num:]
        assert not padding.any(), f"{name} is padded with something else than 0"
    if recipe.has_flat_colors:
        check_colors(recipe, episode, num)
    check_contact(recipe, episode, num)
    check_recipe(recipe, episode, num)


def check_colors(recipe: BouncingRecipe, episode: Episode, num: int) -> None:
    rgb = [COLORS[recipe.colors[code]] for code in episode["objects/color"][:num]]
    lookup = np.array([(0, 0, 0), *rgb], np.uint8)
    assert np.array_equal(episode["frames"], lookup[episode["masks"]])


def check_contact(recipe: BouncingRecipe, episode: Episode, num: int) -> None:
    """`collide`: every object shows whole; `occlude`: what it lacks is hidden by one in front of it."""
    for t in range(0, recipe.num_frames, 3):
        mask = episode["masks"][t]
        for n in range(num):
            own = own_pixels(episode, t, n, recipe.size_px)
            covering = mask[own & (mask != n + 1)]
            assert not ((mask == n + 1) & ~own).any()
            if recipe.contact == "collide":
                assert not covering.size
            else:
                depth = episode["objects/depth"]
                assert (depth[covering.astype(int) - 1] < depth[n]).all()
                assert (covering > 0).all()


def check_recipe(recipe: BouncingRecipe, episode: Episode, num: int) -> None:
    radius = episode["objects/radius"][:num]
    if recipe.radius_draw == "choice":
        assert np.isin(radius, recipe.radii_px).all()
    elif num:
        assert recipe.radii_px[0] <= radius.min() <= radius.max() <= recipe.radii_px[1]
    mass = np.pi * radius**2 if recipe.mass == "area" else np.ones(num)
    np.testing.assert_allclose(episode["objects/mass"][:num], mass)
    camera = episode.get("camera", np.zeros((recipe.num_frames, 2)))
    position = episode["objects/position"][:, :num] + camera[:, None] + recipe.outside_px
    assert (position > radius[:, None] - 0.01).all()
    assert (position < recipe.size_px + 2 * recipe.outside_px - radius[:, None] + 0.01).all()
    if recipe.camera_px:
        return  # velocities are those in the image
    speed = np.linalg.norm(episode["objects/velocity"][0, :num], axis=-1)
    if recipe.joint_speed_px_per_frame is None:
        assert (speed >= recipe.min_speed_px_per_frame - 1e-9).all()
        assert (speed <= recipe.max_speed_px_per_frame + 1e-9).all()
    elif num and recipe.max_speed_px_per_frame > 0:
        assert np.linalg.norm(speed) == pytest.approx(recipe.joint_speed_px_per_frame)


@st.composite
def recipes(draw: st.DrawFn) -> BouncingRecipe:
    """Small recipes of every kind."""
    low, high = sorted(draw(st.tuples(st.integers(0, 4), st.integers(1, 4))))
    speeds = st.just(0.0) | st.floats(MIN_SPEED_PX_PER_FRAME, 6)
    slow, fast = sorted(draw(st.tuples(speeds, speeds)))
    return BouncingRecipe(
        num_frames=draw(st.integers(1, 7)),
        size_px=draw(st.sampled_from([24, 31, 40])),
        min_objects=low,
        max_objects=max(high, 1),
        shapes=draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3)),
        colors=draw(st.lists(st.sampled_from(sorted(COLORS)), min_size=1, max_size=8, unique=True)),
        radii_px=sorted(draw(st.tuples(st.floats(1, 4), st.floats(1, 4)))),
        radius_draw=draw(st.sampled_from(["range", "choice"])),
        mass=draw(st.sampled_from(["area", "equal"])),
        min_speed_px_per_frame=slow,
        max_speed_px_per_frame=fast,
        joint_speed_px_per_frame=draw(st.none() | st.floats(0, 6)),
        contact=draw(st.sampled_from(["collide", "occlude"])),
    )


@settings(deadline=None, max_examples=150)
@given(recipe=recipes(), seed=st.integers(0, 2**63), index=st.integers(0, 2**31 - 1))
def test_every_episode_of_every_recipe_is_consistent(recipe: BouncingRecipe, seed: int, index: int) -> None:
    check(recipe, make_episode(recipe, seed, "test", index))


@pytest.mark.parametrize("contact", ["collide", "occlude"])
def test_default_episodes_are_consistent(contact: str) -> None:
    recipe = BouncingRecipe(contact=contact, num_frames=12)
    covered = 0
    for index in range(15):
        episode = make_episode(recipe, 0, "train", index)
        check(recipe, episode)
        alone = sum(
            own_pixels(episode, t, n, recipe.size_px).sum() for t in range(12) for n in range(num_objects(episode))
        )
        covered += alone - episode["objects/visible"].sum()
    assert covered == 0 if contact == "collide" else covered > 1000


def test_an_episode_is_a_function_of_recipe_seed_split_and_index_alone() -> None:
    recipe = BouncingRecipe(num_frames=4)
    first = make_episode(recipe, 0, "train", 3)
    make_episode(recipe, 1, "val", 9)
    again = make_episode(recipe, 0, "train", 3)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    others = [make_episode(recipe, *place)["masks"] for place in ((1, "train", 3), (0, "val", 3), (0, "train", 4))]
    assert not any(np.array_equal(first["masks"], other) for other in others)


def test_numbers_shapes_colours_and_radii_are_drawn_uniformly() -> None:
    recipe = BouncingRecipe(num_frames=1, min_objects=2, max_objects=5)
    episodes = [make_episode(recipe, 0, "train", index) for index in range(2000)]
    counts = [num_objects(episode) for episode in episodes]
    present = np.concatenate([np.arange(5) < count for count in counts])
    shape, color, radius = (
        np.concatenate([episode[f"objects/{name}"] for episode in episodes])[present]
        for name in ("shape", "color", "radius")
    )
    assert chisquare(np.bincount(counts, minlength=6)[2:]).pvalue > 1e-4
    assert chisquare(np.bincount(shape * 6 + color, minlength=18)).pvalue > 1e-4
    assert kstest(radius, "uniform", args=(6, 3)).pvalue > 1e-4


def test_white_balls_preset_has_two_radii_and_the_joint_speed_of_rnem() -> None:
    recipe = BouncingRecipe(**bouncing_fields("white-balls", 8, 64))
    episodes = [make_episode(recipe, 0, "train", index) for index in range(100)]
    for episode in episodes:
        check(recipe, episode)
        assert num_objects(episode) == 4
        foreground = episode["masks"][..., None] > 0
        assert np.array_equal(episode["frames"], np.where(foreground, 255, 0).repeat(3, -1))
        # 0.5 units a frame in a box of ten units on 64 px
        assert np.linalg.norm(episode["objects/velocity"][0]) == pytest.approx(0.5 * 6.4)
    radius = np.concatenate([episode["objects/radius"] for episode in episodes])
    assert np.allclose(np.unique(radius), [0.8 * 6.4, 6.4])
    assert chisquare([(radius < 6).sum(), (radius > 6).sum()]).pvalue > 1e-4
    mass = np.concatenate([episode["objects/mass"] for episode in episodes])
    assert mass.max() / mass.min() == pytest.approx(0.8**-2)


def test_energy_is_shared_with_the_stored_masses() -> None:
    recipe = BouncingRecipe(num_frames=300, radii_px=(3.0, 9.0))
    for index in range(5):
        episode = make_episode(recipe, 0, "train", index)
        energy = (episode["objects/mass"] * (episode["objects/velocity"] ** 2).sum(-1)).sum(-1)
        np.testing.assert_allclose(energy, energy[0], rtol=1e-9)
