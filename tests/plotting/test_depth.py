"""Depth in colours: monotonic from near to far, grey where nothing was measured, with a legend that names the ends."""

import numpy as np

from slotssm.metrics import is_measured
from slotssm.plotting import depth_columns
from slotssm.plotting.depth import UNKNOWN_COLOR, paint_depth


def luminance(colors):
    return colors @ np.array([0.2126, 0.7152, 0.0722])


def test_near_is_bright_and_far_is_dark():
    shades = luminance(paint_depth(np.linspace(1, 5, 50), 1, 5))
    assert (np.diff(shades) <= 0.5).all()
    assert shades[0] > 4 * shades[-1]
    np.testing.assert_array_equal(paint_depth(np.array([0.5, 9.0]), 1, 5), paint_depth(np.array([1.0, 5.0]), 1, 5))


def test_pixels_that_were_not_measured_are_grey():
    depth = np.array([[[1.0, 0.0, np.nan], [np.inf, -2.0, 3.0]]], np.float32)
    grey = (paint_depth(depth, 1, 3) == UNKNOWN_COLOR).all(axis=-1)
    np.testing.assert_array_equal(grey, ~is_measured(depth))
    assert grey.tolist() == [[[False, True, True], [True, True, False]]]


def test_the_legend_has_the_colours_of_the_picture():
    depth = np.random.default_rng(0).uniform(0.5, 2.5, (3, 40, 50)).astype(np.float32)
    picture, legend = depth_columns(depth, "m")
    assert picture.title == "depth (m)"
    assert picture.frames.shape == (3, 40, 50, 3)
    shown = {tuple(color) for color in legend.frames.reshape(-1, 3)}
    painted = {tuple(color) for color in picture.frames.reshape(-1, 3)}
    assert len(painted & shown) > 0.2 * len(painted)
    assert UNKNOWN_COLOR in shown
    assert depth_columns(depth, "as in the source")[0].title == "depth"


def test_depth_that_is_nowhere_measured_is_drawn_too():
    picture, _ = depth_columns(np.zeros((2, 8, 8), np.float32), "m")
    assert (picture.frames == UNKNOWN_COLOR).all()


def test_predicted_depth_has_the_colours_of_the_true_one():
    depth = np.random.default_rng(1).uniform(0.5, 2.5, (2, 8, 8)).astype(np.float32)
    true, predicted, legend = depth_columns(depth, "m", depth)
    np.testing.assert_array_equal(true.frames, predicted.frames)
    _, doubled, same = depth_columns(depth, "m", 2 * depth)
    np.testing.assert_array_equal(same.frames, legend.frames)
    assert (luminance(doubled.frames) <= luminance(true.frames) + 0.5).all()


def test_predictions_alone_set_the_scale():
    depth = np.linspace(1, 5, 64, dtype=np.float32).reshape(1, 8, 8)
    unknown, predicted, legend = depth_columns(np.zeros_like(depth), "m", depth)
    assert (unknown.frames == UNKNOWN_COLOR).all()
    alone, own = depth_columns(depth, "m")
    np.testing.assert_array_equal(predicted.frames, alone.frames)
    np.testing.assert_array_equal(legend.frames, own.frames)


def test_a_wide_range_has_equal_steps_of_colour_for_equal_ratios():
    doubling = 2.0 ** np.arange(9)
    shades = paint_depth(doubling, 1, 256).astype(int)
    narrow = paint_depth(np.linspace(1, 9, 9), 1, 9).astype(int)
    np.testing.assert_allclose(shades, narrow, atol=4)
    _, legend = depth_columns(doubling.reshape(1, 3, 3).astype(np.float32), "m")
    assert UNKNOWN_COLOR in {tuple(color) for color in legend.frames.reshape(-1, 3)}
