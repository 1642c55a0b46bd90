"""Errors of depth against loops over single pixels, and where nothing, one pixel or one depth is known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotssm.metrics import (
    PIXEL_SCORES,
    MeanDepth,
    depth_regions,
    depth_score,
    is_measured,
    mean_of_known,
    pixel_scores,
)

SHAPE = 2, 3, 4, 5


def by_hand(name: str, true: float, pred: float) -> float:
    """The score of one pixel, in plain Python."""
    return {
        "depth-mse": (pred - true) ** 2,
        "log-depth-mse": math.log(pred / true) ** 2,
        "inverse-depth-mse": ((true - pred) / (true * pred)) ** 2,
        "abs-rel": abs(pred / true - 1),
        "delta-1": float(pred < 1.25 * true and true < 1.25 * pred),
    }[name]


def maps(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """True depth with pixels of every kind that was not measured, and predictions that are unknown there."""
    rng = np.random.default_rng(seed)
    true, pred = (rng.uniform(0.5, 60, SHAPE).astype(np.float32) for _ in range(2))
    pred = np.where(rng.random(SHAPE) < 0.5, true * rng.uniform(0.8, 1.3, SHAPE), pred).astype(np.float32)
    missing = rng.random(SHAPE) < 0.3
    true[missing] = rng.choice(np.array([0, -1, np.nan, np.inf], np.float32), missing.sum())
    pred[missing] = rng.choice(np.array([0, -2, np.nan, np.inf], np.float32), missing.sum())
    return true, pred


@pytest.mark.parametrize("name", PIXEL_SCORES)
@given(seed=st.integers(0, 2**16))
def test_scores_are_those_of_a_loop_over_pixels(name, seed):
    true, pred = maps(seed)
    rows = []
    for t_map, p_map in zip(true, pred, strict=True):
        pairs = zip(t_map.ravel().tolist(), p_map.ravel().tolist(), strict=True)
        rows.append([by_hand(name, t, p) for t, p in pairs if math.isfinite(t) and t > 0])
    expected = [math.fsum(row) / len(row) if row else math.nan for row in rows]
    np.testing.assert_allclose(mean_of_known(pixel_scores(name, true, pred)), expected, rtol=1e-6)
    every = [value for row in rows for value in row]
    assert depth_score(name, true, pred) == pytest.approx(math.fsum(every) / len(every), rel=1e-6)


@pytest.mark.parametrize("name", PIXEL_SCORES)
def test_degenerate_maps(name):
    nothing = np.array([[0.0, np.nan], [-1.0, np.inf]], np.float32)[None, None]
    assert math.isnan(depth_score(name, nothing, np.ones_like(nothing)))
    one = nothing.copy()
    one[0, 0, 1, 0] = 2.0
    pred = np.full_like(one, np.nan)
    pred[0, 0, 1, 0] = 3.0
    assert depth_score(name, one, pred) == pytest.approx(by_hand(name, 2.0, 3.0))
    constant = np.full(SHAPE, 4.0, np.float32)
    perfect = 1.0 if name == "delta-1" else 0.0
    assert depth_score(name, constant, constant) == perfect
    both = np.concatenate([nothing, one])
    values = mean_of_known(pixel_scores(name, both, np.concatenate([pred, pred])))
    assert math.isnan(values[0])
    assert values[1] == pytest.approx(by_hand(name, 2.0, 3.0))


def test_a_ratio_of_exactly_the_limit_is_not_accurate():
    true = np.array([4.0, 5.0, 4.0, 5.0]).reshape(1, 1, 2, 2)
    pred = np.array([5.0, 4.0, 4.999, 4.001]).reshape(1, 1, 2, 2)
    assert pixel_scores("delta-1", true, pred).ravel().tolist() == [0, 0, 1, 1]


@given(seed=st.integers(0, 2**16), factor=st.floats(0.01, 100))
def test_relative_scores_do_not_depend_on_the_unit(seed, factor):
    true, pred = maps(seed)
    for name in ("log-depth-mse", "abs-rel"):
        first, scaled = (depth_score(name, unit * true, unit * pred) for unit in (1.0, np.float64(factor)))
        assert scaled == pytest.approx(first, rel=1e-4)


@given(seed=st.integers(0, 2**16))
def test_regions_are_those_of_a_loop_over_pixels(seed):
    rng, (true, _) = np.random.default_rng(seed), maps(seed)
    masks = rng.choice(np.array([0, 0, 1, 2, 255], np.uint8), SHAPE)
    if seed % 3 == 0:
        masks[0] = 0
    found = depth_regions(masks, true)
    for episode in range(SHAPE[0]):
        pixels = list(zip(masks[episode].ravel().tolist(), true[episode].ravel().tolist(), strict=True))
        known = [(mask, depth) for mask, depth in pixels if math.isfinite(depth) and depth > 0]
        edge = max((depth for mask, depth in known if 0 < mask < 255), default=-math.inf)
        counts = {
            "objects": sum(0 < mask < 255 for mask, _ in known),
            "ground": sum(mask == 0 and depth <= edge for mask, depth in known),
            "far": sum(mask == 0 and depth > edge for mask, depth in known),
        }
        shown = is_measured(true[episode])
        assert {name: int((where[episode] & shown).sum()) for name, where in found.items()} == counts


def test_the_mean_depth_image_is_the_best_constant_of_every_pixel():
    true, _ = maps(3)
    mean = MeanDepth(*SHAPE[2:])
    for episode in true:
        mean.add(episode)
    for name in ("depth-mse", "log-depth-mse", "inverse-depth-mse"):
        image = mean.image(name)
        best = depth_score(name, true, np.broadcast_to(image, SHAPE))
        for row, column in np.ndindex(*image.shape):
            for factor in (0.98, 1.02):
                other = image.copy()
                other[row, column] *= factor
                assert depth_score(name, true, np.broadcast_to(other, SHAPE)) >= best


def test_the_mean_depth_of_an_unknown_pixel_is_that_of_the_others():
    mean = MeanDepth(1, 3)
    assert mean.image("depth-mse") is None
    mean.add(np.array([[[1.0, 0.0, np.nan]], [[3.0, 4.0, np.inf]]]))
    np.testing.assert_allclose(mean.image("depth-mse"), [[2, 4, 8 / 3]])
    np.testing.assert_allclose(mean.image("abs-rel"), [[2, 4, 8 / 3]])
    np.testing.assert_allclose(mean.image("log-depth-mse"), [[3**0.5, 4, 12 ** (1 / 3)]])
    np.testing.assert_allclose(mean.image("inverse-depth-mse"), [[1.5, 4, 36 / 19]])
