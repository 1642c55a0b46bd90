"""Painted pixels against a test of every pixel's centre."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shape_oracle import area, margin

from generators.rasterizer import SHAPES, rasterize

SIZE_PX = 32


def paint_one(shape: str, x: float, y: float, radius: float) -> np.ndarray:
    """Mask of a lone white object."""
    color = np.full((1, 1, 3), 255, np.uint8)
    _, masks, _ = rasterize(np.array([[[x, y]]]), np.array([radius]), np.array([SHAPES.index(shape)]), color, SIZE_PX)
    return masks[0] == 1


def centroids(masks: np.ndarray) -> np.ndarray:
    """Centre of mass x, y of the foreground of every frame."""
    centre = np.arange(masks.shape[-1]) + 0.5
    return np.stack([masks.sum(-2) @ centre, masks.sum(-1) @ centre], -1) / masks.sum((-2, -1))[:, None]


@settings(deadline=None, max_examples=400)
@given(
    shape=st.sampled_from(SHAPES),
    x=st.floats(-10, SIZE_PX + 10),
    y=st.floats(-10, SIZE_PX + 10),
    radius=st.floats(0.1, 14),
)
def test_a_pixel_is_painted_if_its_centre_is_inside(shape: str, x: float, y: float, radius: float) -> None:
    found, inside = paint_one(shape, x, y, radius), margin(shape, x, y, radius, SIZE_PX)
    # rounding decides for a centre on the very edge
    assert found[inside > 1e-9].all()
    assert not found[inside < -1e-9].any()


@pytest.mark.parametrize("shape", SHAPES)
def test_many_subpixel_positions_equal_the_oracle(shape: str) -> None:
    rng = np.random.default_rng(1)
    for x, y, radius in rng.uniform((0, 0, 1), (SIZE_PX, SIZE_PX, 12), (300, 3)):
        assert np.array_equal(paint_one(shape, x, y, radius), margin(shape, x, y, radius, SIZE_PX) > 0)


def test_later_objects_cover_earlier_ones_in_every_output() -> None:
    rng = np.random.default_rng(2)
    num_frames, num = 40, 6
    position = rng.uniform(0, SIZE_PX, (num_frames, num, 2))
    radius = rng.uniform(2, 12, num)
    shape = np.array([0, 1, 2, 0, 1, 2])
    color = rng.integers(1, 256, (num_frames, num, 3), dtype=np.uint8)
    frames, masks, visible = rasterize(position, radius, shape, color, SIZE_PX)

    expected = np.zeros_like(masks)
    for t in range(num_frames):
        for n in range(num):
            expected[t][margin(SHAPES[shape[n]], *position[t, n], radius[n], SIZE_PX) > 0] = n + 1
    assert np.array_equal(masks, expected)
    for t in range(num_frames):
        assert np.array_equal(frames[t], np.concatenate([np.zeros((1, 3), np.uint8), color[t]])[masks[t]])
        assert np.array_equal(visible[t], np.bincount(masks[t].ravel(), minlength=num + 1)[1:])
    assert (visible == 0).any(), "no object was ever hidden: the test is too easy"


def test_output_types_are_those_of_the_file() -> None:
    frames, masks, visible = rasterize(
        np.zeros((2, 0, 2)), np.zeros(0), np.zeros(0, np.int64), np.zeros((2, 0, 3), np.uint8), 8
    )
    assert (frames.shape, frames.dtype) == ((2, 8, 8, 3), np.uint8)
    assert (masks.shape, masks.dtype) == ((2, 8, 8), np.uint8)
    assert (visible.shape, visible.dtype) == ((2, 0), np.uint16)
    assert not frames.any()
    assert not masks.any()


@pytest.mark.parametrize("radius", [5.12, 5.68, 6.4, 9.0])
def test_centre_of_mass_of_a_lone_ball_is_its_position(radius: float) -> None:
    num = 4000
    position = np.random.default_rng(3).uniform(20, 44, (num, 1, 2))
    _, masks, _ = rasterize(
        position, np.array([radius]), np.zeros(1, np.int64), np.full((num, 1, 3), 255, np.uint8), 64
    )
    offset = centroids(masks) - position[:, 0]
    # whole pixels place a single ball to about a tenth of a pixel; the mean has no such noise
    assert np.sqrt((offset**2).mean(0)).max() < 0.1
    assert np.abs(offset).max() < 0.25
    assert np.abs(offset.mean(0)).max() < 0.005


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("radius", [4.0, 5.68, 9.0])
def test_mean_area_is_that_of_the_shape(shape: str, radius: float) -> None:
    rng = np.random.default_rng(4)
    counts = [paint_one(shape, x, y, radius).sum() for x, y in rng.uniform(10, 22, (2000, 2))]
    standard_error = np.std(counts) / np.sqrt(len(counts))
    assert np.mean(counts) == pytest.approx(area(shape, radius), abs=4 * standard_error)
