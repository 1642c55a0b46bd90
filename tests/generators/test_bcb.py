"""The benchmark's laws, checked on pixels: nothing but frames and masks is read unless a test says so."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import chisquare

from generators.bcb import BCBRecipe, recipe_for_length, target_colors
from generators.catalog import make_episode
from generators.writer import generate
from slotssm.config import RecipeData
from slotssm.data.episodes import EpisodeFile
from slotssm.errors import InputError

NUM_EPISODES = 1000
RADIUS_PX = 5.68
NUM_BALLS = 4
CENTROID_ERROR_PX = 0.25
"""A hard-edged disc of 101 whole pixels is off by 0.07 px (root mean square), and by 0.24 px at worst."""
# one bit for each of red, green and blue
BLACK, RED, YELLOW, BLUE, MAGENTA, CYAN, WHITE = 0b000, 0b001, 0b011, 0b100, 0b101, 0b110, 0b111
COLORS = (RED, BLUE, YELLOW, MAGENTA, CYAN)


@dataclass(frozen=True)
class Pixels:
    """What the checker sees of a file."""

    rule: str
    path: Path
    frames: np.ndarray
    masks: np.ndarray
    color: np.ndarray
    """[E, T, N] colour bits under each ball's mask."""
    area: np.ndarray
    """[E, T, N] pixels."""
    centroid: np.ndarray
    """[E, T, N, 2] mean of the pixel centres, x and y."""


@pytest.fixture(
    scope="module",
    params=[("earliest", 6), ("frequent", 6), ("earliest", 11), ("frequent", 11)],
    ids=lambda param: f"{param[0]}-T{param[1]}",
)
def pixels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pixels]:
    rule, num_frames = request.param
    path = tmp_path_factory.mktemp("bcb") / "file.h5"
    recipe = BCBRecipe(rule=rule, num_frames=num_frames)
    generate(RecipeData(recipe=recipe, num_train=NUM_EPISODES, num_val=0, num_test=0), path, workers=1)
    with EpisodeFile(path) as episodes:
        frames, masks = episodes.read("train", "frames"), episodes.read("train", "masks")
    yield Pixels(rule, path, frames, masks, *measure(frames, masks))
    path.unlink()


def measure(frames: np.ndarray, masks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colour, area and centroid of every ball; the colour must be the same in all of its pixels."""
    assert ((frames == 0) | (frames == 255)).all()
    code = frames[..., 0] & 1 | frames[..., 1] & 2 | frames[..., 2] & 4
    assert np.array_equal(code != BLACK, masks != 0)
    episode, time, row, column = np.nonzero(masks)
    shape = (*masks.shape[:2], NUM_BALLS)
    owner = np.ravel_multi_index((episode, time, masks[episode, time, row, column] - 1), shape)
    num_of_color = np.bincount(8 * owner + code[episode, time, row, column], minlength=8 * np.prod(shape))
    num_of_color = num_of_color.reshape(*shape, 8)
    assert ((num_of_color > 0).sum(-1) == 1).all(), "a hidden ball, or one of two colours"
    area = num_of_color.sum(-1)
    sums = [np.bincount(owner, place + 0.5).reshape(shape) for place in (column, row)]
    return num_of_color.argmax(-1), area, np.stack(sums, -1) / area[..., None]


def expected_target(shown: list[int], rule: str) -> int:
    """The rule in its plainest form: colours that one ball showed, in order of time, to its target colour."""
    if not shown:
        return WHITE
    if rule == "earliest":
        return shown[0]
    return max(shown, key=lambda color: (shown.count(color), -shown.index(color)))


# --- the colour laws --------------------------------------------------------------------------------------


def test_exactly_one_ball_is_coloured_in_every_context_frame(pixels: Pixels) -> None:
    assert np.array_equal(np.unique(pixels.masks), np.arange(NUM_BALLS + 1))
    assert np.isin(pixels.color, (*COLORS, WHITE)).all()
    assert ((pixels.color[:, :-1] != WHITE).sum(-1) == 1).all()


def test_target_colours_follow_the_rule(pixels: Pixels) -> None:
    num_ties = num_white = 0
    for context, target in zip(pixels.color[:, :-1].tolist(), pixels.color[:, -1].tolist(), strict=True):
        for ball in range(NUM_BALLS):
            shown = [frame[ball] for frame in context if frame[ball] != WHITE]
            assert target[ball] == expected_target(shown, pixels.rule)
            counts = sorted((shown.count(color) for color in set(shown)), reverse=True)
            num_ties += len(counts) > 1 and counts[0] == counts[1]
            num_white += not shown
    # the cases that the rule must settle did occur
    assert num_ties > 500
    assert num_white > 100


def test_balls_and_colours_are_drawn_uniformly_and_independently(pixels: Pixels) -> None:
    context = pixels.color[:, :-1]
    ball = (context != WHITE).argmax(-1)
    shown = np.take_along_axis(context, ball[..., None], -1)[..., 0]
    color = np.searchsorted(sorted(COLORS), shown)
    joint = np.bincount((ball * 5 + color).ravel(), minlength=20)
    successive_balls = np.bincount((ball[:, 1:] * 4 + ball[:, :-1]).ravel(), minlength=16)
    successive_colors = np.bincount((color[:, 1:] * 5 + color[:, :-1]).ravel(), minlength=25)
    for counts in (joint, successive_balls, successive_colors):
        assert chisquare(counts).pvalue > 1e-4


def test_all_white_error_is_the_derived_one(pixels: Pixels) -> None:
    target = pixels.frames[:, -1] / 255
    all_white = np.repeat(pixels.masks[:, -1, ..., None] != 0, 3, -1)
    floor = np.mean((target - all_white) ** 2)
    # 1,000 episodes leave a standard error of 0.0003
    assert floor == pytest.approx({6: 0.0353, 11: 0.0436}[pixels.frames.shape[1]], abs=0.001)


# --- the geometry -----------------------------------------------------------------------------------------


def test_ball_areas_are_those_of_the_measured_radius(pixels: Pixels) -> None:
    disc = math.pi * RADIUS_PX**2
    assert pixels.area.mean() == pytest.approx(disc, abs=1)
    # the pixel count of a whole disc; a covered or cut one would fall below
    assert np.abs(pixels.area - disc).max() < 6


def test_balls_never_overlap_and_stay_inside(pixels: Pixels) -> None:
    assert pixels.centroid.min() > RADIUS_PX - CENTROID_ERROR_PX
    assert pixels.centroid.max() < 64 - RADIUS_PX + CENTROID_ERROR_PX
    for ball in range(NUM_BALLS):
        for other in range(ball):
            apart = np.linalg.norm(pixels.centroid[:, :, ball] - pixels.centroid[:, :, other], axis=-1)
            assert apart.min() > 2 * RADIUS_PX - 2 * CENTROID_ERROR_PX


def test_first_speeds_are_as_measured(pixels: Pixels) -> None:
    moved = np.linalg.norm(pixels.centroid[:, 1] - pixels.centroid[:, 0], axis=-1)
    # the median: some balls bounce between the two frames
    assert np.median(moved) == pytest.approx(3.0, abs=0.02)
    assert np.percentile(moved, 75) < 3.1
    with EpisodeFile(pixels.path) as episodes:
        velocity = episodes.read("train", "objects/velocity").astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(velocity[:, 0], axis=-1), 3.0, rtol=1e-6)
    root_mean_square = np.sqrt((velocity**2).sum(-1).mean(-1))
    np.testing.assert_allclose(root_mean_square, 3.0, rtol=1e-6)


def test_first_directions_are_uniform(pixels: Pixels) -> None:
    with EpisodeFile(pixels.path) as episodes:
        x, y = np.moveaxis(episodes.read("train", "objects/velocity")[:, 0].reshape(-1, 2), -1, 0)
    sector = np.floor(8 * (np.arctan2(y, x) / (2 * np.pi) % 1)).astype(int)
    assert chisquare(np.bincount(sector, minlength=8)).pvalue > 1e-4


# --- what the file says beyond its pixels -----------------------------------------------------------------


def test_stored_properties_agree_with_the_pixels(pixels: Pixels) -> None:
    bits = {"white": WHITE, "red": RED, "blue": BLUE, "yellow": YELLOW, "magenta": MAGENTA, "cyan": CYAN}
    with EpisodeFile(pixels.path) as episodes:
        names = episodes.categories("train", "objects/color")
        assert names == list(bits)
        stored = np.array([bits[name] for name in names])[episodes.read("train", "objects/color")]
        assert np.array_equal(stored, pixels.color)
        assert np.array_equal(episodes.read("train", "objects/visible"), pixels.area)
        offset = episodes.read("train", "objects/position") - pixels.centroid
        assert np.abs(offset).max() < CENTROID_ERROR_PX
        assert np.sqrt((offset**2).mean()) < 0.08
        assert np.abs(offset.mean((0, 1, 2))).max() < 0.005
        assert (episodes.read("train", "objects/radius") == np.float32(RADIUS_PX)).all()


def test_root_attributes_are_those_of_the_contract(pixels: Pixels) -> None:
    num_frames = pixels.frames.shape[1]
    with EpisodeFile(pixels.path) as episodes:
        assert episodes.attrs["generator"] == "bcb"
        assert episodes.attrs["rule"] == pixels.rule
        assert episodes.attrs["patches_per_side"] == 4
        assert episodes.attrs["sequence_length"] == (num_frames - 1) * 16
        assert episodes.attrs["palette"].tolist() == [
            [0, 0, 0],
            [255, 255, 255],
            [255, 0, 0],
            [0, 0, 255],
            [255, 255, 0],
            [255, 0, 255],
            [0, 255, 255],
        ]


def test_both_rules_share_the_context_and_differ_only_in_target_colours() -> None:
    num_different = 0
    for index in range(30):
        first, most = (make_episode(BCBRecipe(rule=rule), 7, "val", index) for rule in ("earliest", "frequent"))
        assert np.array_equal(first["frames"][:-1], most["frames"][:-1])
        assert np.array_equal(first["masks"], most["masks"])
        assert np.array_equal(first["objects/position"], most["objects/position"])
        num_different += not np.array_equal(first["frames"][-1], most["frames"][-1])
    assert num_different > 0


def test_fewer_colours_are_the_first_of_the_palette() -> None:
    recipe = BCBRecipe(num_colors=2, num_balls=2, num_frames=40)
    color = make_episode(recipe, 0, "train", 0)["objects/color"]
    assert set(np.unique(color)) == {0, 1, 2}


@given(
    draws=st.lists(st.tuples(st.integers(0, 3), st.integers(1, 5)), max_size=20),
    rule=st.sampled_from(["earliest", "frequent"]),
)
def test_target_colours_equal_brute_force(draws: list[tuple[int, int]], rule: str) -> None:
    blinking = np.array([ball for ball, _ in draws], np.int64)
    blink_color = np.array([color for _, color in draws], np.int64)
    found = target_colors(blinking, blink_color, NUM_BALLS, rule)
    for ball in range(NUM_BALLS):
        expected = expected_target([color for owner, color in draws if owner == ball], rule)
        assert found[ball] == (0 if expected == WHITE else expected)


def test_the_number_of_balls_varies_uniformly_and_fewer_are_padded() -> None:
    recipe, counts = BCBRecipe(num_balls=4, min_balls=2), []
    for index in range(300):
        episode = make_episode(recipe, 3, "train", index)
        num = int(episode["masks"].max())
        counts.append(num)
        assert episode["objects/color"].shape == (6, 4)
        for name in ("objects/visible", "objects/color", "objects/position"):
            assert not episode[name][:, num:].any()
        assert np.array_equal(episode["objects/radius"] > 0, np.arange(4) < num)
        # one ball blinks in every context frame
        blinks = episode["objects/color"][:-1, :num]
        assert (np.count_nonzero(blinks, axis=1) == 1).all()
    assert set(counts) == {2, 3, 4}
    assert chisquare(np.bincount(counts)[2:]).pvalue > 1e-3
    with pytest.raises(ValidationError, match="min_balls 5 exceeds num_balls 4"):
        BCBRecipe(min_balls=5)


# --- lengths ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "num_frames", "patches"),
    [(80, 6, 4), (320, 6, 8), (1280, 6, 16), (160, 11, 4), (640, 11, 8), (2560, 11, 16)],
)
def test_the_six_lengths_are_those_of_the_papers_table(length: int, num_frames: int, patches: int) -> None:
    fields = recipe_for_length(length, None, None, rule="frequent")
    assert fields == {"num_frames": num_frames, "patches_per_side": patches, "rule": "frequent"}
    assert BCBRecipe(**fields).sequence_length == length


@pytest.mark.parametrize(
    ("given_values", "num_frames", "patches"),
    [
        ((None, None, None), 6, 4),
        ((None, 3, None), 3, 4),
        ((None, None, 8), 6, 8),
        ((None, 21, 2), 21, 2),
        ((2560, 11, 16), 11, 16),
        ((2560, 41, None), 41, 8),
        ((2560, None, 4), 161, 4),
        ((81, 82, None), 82, 1),
    ],
)
def test_frames_and_patches_reach_other_lengths(
    given_values: tuple[int | None, int | None, int | None], num_frames: int, patches: int
) -> None:
    fields = recipe_for_length(*given_values)
    assert (fields["num_frames"], fields["patches_per_side"]) == (num_frames, patches)
    length = given_values[0]
    assert length is None or BCBRecipe(**fields).sequence_length == length


@pytest.mark.parametrize(
    ("given_values", "nearest"),
    [
        ((81, None, None), "80, 160"),
        ((1, None, None), "80, 160"),
        ((9999, None, None), "1280, 2560"),
        ((-5, None, None), "80, 160"),
        # of 5·P² only P = 4 and 8 are near, since 7 and 9 do not divide 64
        ((300, 6, None), "80, 320"),
        ((81, None, 4), "80, 96"),
        ((80, 11, 4), "160"),
    ],
)
def test_impossible_lengths_are_refused_with_the_nearest_possible_ones(
    given_values: tuple[int, int | None, int | None], nearest: str
) -> None:
    with pytest.raises(InputError, match=rf"`length` {given_values[0]} .*\(nearest: {nearest}\)") as caught:
        recipe_for_length(*given_values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("given_values", [(None, 0, None), (None, None, 0), (80, 0, None), (80, 1, 4), (80, None, 0)])
def test_frames_and_patches_out_of_range_are_left_to_the_recipe_to_refuse(
    given_values: tuple[int | None, int | None, int | None],
) -> None:
    fields = recipe_for_length(*given_values)
    with pytest.raises(ValidationError, match="greater than or equal"):
        BCBRecipe(**fields)
