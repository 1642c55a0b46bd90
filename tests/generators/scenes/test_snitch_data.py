"""Snitch episodes: the checker finds no fault, numbers of difficulty do what they say, cells are balanced."""

import copy

import numpy as np
import pytest
from slow_renderer import render_slowly
from snitch_checker import SHAPES, faults

from generators.catalog import make_episode
from generators.scenes.choreography import ACTIONS, Manners, fits_under, play, scatter
from generators.scenes.snitch import (
    ENDINGS,
    SNITCH_PRESETS,
    SnitchRecipe,
    _acting,
    _cast,
    _ending,
    layout,
)
from generators.scenes.solids import SHAPES as CODES
from slotssm.errors import InputError
from slotssm.grid import snitch_cell


def stored(recipe: SnitchRecipe, index: int, seed: int = 0) -> dict[str, np.ndarray]:
    """An episode with the types that a file has."""
    episode = make_episode(recipe, seed, "train", index)
    return {name: np.asarray(episode[name], field.dtype) for name, field in layout(recipe).items()}


SMALL = SnitchRecipe(size_px=48)
MOVING = SnitchRecipe(size_px=48, num_frames=120, cameras=("orbit", "head"), viewpoints="any")


def check_masks(episode: dict[str, np.ndarray], t: int) -> None:
    num = int(episode["num_objects"])
    expected, far, whole = render_slowly(
        episode["camera/position"][t],
        episode["camera/rotation"][t],
        episode["camera/focal_px"][t],
        [SHAPES[code] for code in episode["objects/shape"][:num]],
        episode["objects/radius"][:num],
        episode["objects/world_position"][t, :num],
        episode["objects/quaternion"][t, :num],
        *episode["masks"].shape[1:],
    )
    assert np.array_equal(episode["masks"][t], expected)
    assert np.array_equal(episode["objects/unoccluded"][t, :num], whole.sum((1, 2)))
    is_seen = episode["depth"][t] > 0
    assert np.allclose(episode["depth"][t][is_seen], far[is_seen], rtol=1e-6, atol=0)


@pytest.mark.parametrize("recipe", [SMALL, MOVING], ids=["still", "moving"])
@pytest.mark.parametrize("index", range(4))
def test_the_checker_finds_no_fault(recipe: SnitchRecipe, index: int) -> None:
    episode = stored(recipe, index)
    assert faults(episode) == []
    for t in np.linspace(0, recipe.num_frames - 1, 8).astype(int):
        check_masks(episode, int(t))


@pytest.mark.slow
def test_the_checker_finds_no_fault_in_a_thousand_episodes() -> None:
    recipe = SnitchRecipe(size_px=64)
    counts = np.zeros(len(ENDINGS), int)
    for index in range(1000):
        episode = stored(recipe, index)
        assert faults(episode) == [], index
        counts[episode["snitch_ending"]] += 1
        if index % 20 == 0:
            for t in (0, 77, 155, 299):
                check_masks(episode, t)
    assert (counts > 0).all()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("snitch_cell", lambda array: (array + 1) % 36),
        ("objects/world_position", lambda array: array + np.float32(0.05)),
        ("actions", lambda array: np.full_like(array, -1)),
        ("objects/contained_by", lambda array: np.where(array > 0, 0, array)),
        ("masks", lambda array: np.where(array == 1, 2, array)),
        ("depth", lambda array: array * np.float32(1.01)),
        ("snitch_ending", lambda array: (array + 1) % 4),
    ],
)
def test_the_checker_would_find_a_fault(name: str, change) -> None:
    episode = copy.deepcopy(stored(SMALL, 0))
    episode[name] = np.asarray(change(episode[name]), episode[name].dtype)
    assert faults(episode)


def test_all_actions_happen_and_several_objects_move_at_once() -> None:
    kinds, most = set(), 0
    for index in range(4):
        rows = stored(SMALL, index)["actions"]
        rows = rows[rows[:, 0] >= 0]
        kinds |= {ACTIONS[kind] for kind in rows[:, 1]}
        moving = np.zeros(300, int)
        for _, _, first, last in rows:
            moving[first:last] += 1
        most = max(most, moving.max())
        assert (np.diff(rows[:, 2]) >= 0).all()
    assert kinds == set(ACTIONS)
    assert most >= 3


@pytest.mark.parametrize("shape", CODES)
def test_what_fits_is_inside_the_cone(shape: str) -> None:
    """No point of the surface of an object that fits is outside the cone, and of a larger one some are."""
    rng = np.random.default_rng(0)
    code, cone = np.array([CODES.index(shape)]), 0.75
    radii = np.linspace(0.1, 0.75, 400)
    fitting = [r for r in radii if fits_under(code, np.array([r]), cone)[0]]
    largest = max(fitting)
    assert fitting == [r for r in radii if r <= largest], "what is smaller fits too"

    def outside(r: float) -> bool:
        a = r / np.sqrt(2)
        points = {
            "cube": rng.choice((-1, 1), (500, 3)) * a + [0, 0, a],
            "snitch": rng.choice((-1, 1), (500, 3)) * a + [0, 0, a],
            "sphere": _on_sphere(rng, r) + np.array([0, 0, r]),
            "cylinder": _on_circle(rng, r) + np.array([0, 0, 2 * r]),
            "cone": _on_circle(rng, r),
        }[shape]
        return bool((np.hypot(points[:, 0], points[:, 1]) > (2 * cone - points[:, 2]) / 2).any())

    assert not outside(largest)
    assert outside(largest * 1.07)


def _on_sphere(rng: np.random.Generator, r: float) -> np.ndarray:
    points = rng.normal(size=(20000, 3))
    return r * points / np.linalg.norm(points, axis=1, keepdims=True)


def _on_circle(rng: np.random.Generator, r: float) -> np.ndarray:
    angle = rng.uniform(0, 7, 500)
    return np.stack([r * np.cos(angle), r * np.sin(angle), np.zeros(500)], axis=1)


def endings(recipe: SnitchRecipe, count: int) -> np.ndarray:
    """Endings of planned motions, without rendering: None counts as visible."""
    found = []
    manners = Manners(recipe.slot_frames, recipe.max_moving, recipe.containment, recipe.preference, recipe.release)
    for index in range(count):
        rng = np.random.default_rng(index)
        cast, _ = _cast(recipe, rng)
        acted = play(rng, cast.shape, cast.radius, scatter(rng, cast.radius), recipe.num_frames, manners)
        found.append(_ending(acted) or 0)
    return np.array(found)


def test_difficulty_numbers_do_what_they_say() -> None:
    contained = {}
    for containment, release in ((0.0, 0.3), (0.3, 0.9), (0.9, 0.1)):
        recipe = SnitchRecipe(size_px=16, containment=containment, release=release)
        contained[containment] = (endings(recipe, 25) > 0).mean()
    assert contained[0.0] == 0 < contained[0.3] < contained[0.9]


def test_endings_can_be_asked_for() -> None:
    for ending in (0, 2, 3):
        shares = np.eye(4)[ending]
        recipe = SnitchRecipe(size_px=16, num_frames=90, ending_shares=tuple(shares))
        for index in range(3):
            assert stored(recipe, index)["snitch_ending"] == ending
    recipe = SnitchRecipe(size_px=16, num_frames=120, ending_shares=(0, 0, 0.5, 0.5), min_hidden_frames=40)
    hidden = [int(stored(recipe, index)["hidden_frames"]) for index in range(4)]
    assert min(hidden) >= 40


def test_an_occluded_ending_can_be_asked_for() -> None:
    recipe = SnitchRecipe(size_px=16, num_frames=30, sizes=("medium",), ending_shares=(0, 1, 0, 0))
    episode = stored(recipe, 0)
    assert ENDINGS[episode["snitch_ending"]] == "occluded"
    assert episode["objects/visible"][-1, 0] == 0 == episode["objects/contained_by"][-1, 0]


def test_cells_are_balanced() -> None:
    """Each of the 36 cells between 1 % and 6 % of 5,500 episodes, of planned motions without pixels."""
    recipe = SnitchRecipe(size_px=16, num_frames=90)
    manners = Manners(30, 4, 0.6, 0.5, 0.3)
    cells = []
    for index in range(700):
        rng = np.random.default_rng(index)
        cast, _ = _cast(recipe, rng)
        acted = play(rng, cast.shape, cast.radius, scatter(rng, cast.radius), 90, manners)
        x, y = _acting(cast, acted).position[-1, 0, :2]
        cells.append(snitch_cell(x, y))
    share = np.bincount(cells, minlength=36) / len(cells)
    # 700 draws scatter by 0.6 % around 2.8 %
    assert share.min() > 0.005
    assert share.max() < 0.065


@pytest.mark.slow
def test_cells_are_balanced_in_5500_episodes() -> None:
    recipe, cells = SnitchRecipe(size_px=16), []
    manners = Manners(30, 4, 0.6, 0.5, 0.3)
    for index in range(5500):
        rng = np.random.default_rng(index)
        cast, _ = _cast(recipe, rng)
        acted = play(rng, cast.shape, cast.radius, scatter(rng, cast.radius), 300, manners)
        cells.append(snitch_cell(*_acting(cast, acted).position[-1, 0, :2]))
    share = np.bincount(cells, minlength=36) / len(cells)
    assert 0.01 <= share.min() <= share.max() <= 0.06


@pytest.mark.parametrize("preset", SNITCH_PRESETS)
def test_presets_make_what_their_recipe_says(preset: str) -> None:
    recipe = SnitchRecipe(size_px=16, num_frames=100, **SNITCH_PRESETS[preset])
    episode = make_episode(recipe, 0, "test", 0)
    for name, field in layout(recipe).items():
        assert np.shape(episode[name]) == field.shape, name


def test_another_camera_shows_the_same_motion() -> None:
    still, moving = (stored(SMALL.replace(num_frames=40, cameras=cameras), 5) for cameras in (("still",), ("orbit",)))
    for name in ("objects/world_position", "actions", "snitch_cell", "objects/color"):
        assert np.array_equal(still[name], moving[name])
    assert not np.array_equal(still["camera/position"], moving["camera/position"])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"min_objects": 6, "max_objects": 5}, "min_objects 6 exceeds max_objects 5"),
        ({"min_cones": 3, "max_cones": 2}, "min_cones 3 exceeds max_cones 2"),
        ({"min_objects": 1, "min_cones": 2}, "min_cones 2 exceeds min_objects 1"),
        ({"max_objects": 20, "sizes": ("large",)}, "leave no room to move"),
        ({"ending_shares": (0.5, 0.5)}, "four shares that add up to 1"),
        ({"ending_shares": (0.5, 0.5, 0.5, -0.5)}, "four shares that add up to 1"),
        ({"ending_shares": (0, 0, 1, 0), "min_cones": 0, "max_cones": 0}, "needs min_cones and containment above 0"),
        ({"ending_shares": (0, 0, 1, 0), "sizes": ("small",)}, "sizes with medium or large"),
        ({"ending_shares": (0, 0, 1, 0), "num_frames": 5}, "too few"),
        ({"min_hidden_frames": 300}, "must be below num_frames 300"),
        ({"colors": ("red", "red")}, "colors has duplicates"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SnitchRecipe(**fields)


def test_an_ending_that_never_happens_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("generators.scenes.snitch.ATTEMPTS", 3)
    recipe = SnitchRecipe(size_px=16, num_frames=40, ending_shares=(0, 0, 0, 1), min_hidden_frames=30)
    with pytest.raises(InputError, match="no motion in 3 attempts ends with the snitch carried"):
        make_episode(recipe, 0, "train", 0)


def test_zero_is_a_seed_and_neighbours_differ() -> None:
    recipe = SMALL.replace(num_frames=20)
    one, same, other = (stored(recipe, *args) for args in ((0, 0), (0, 0), (1, 0)))
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["frames"], other["frames"])
