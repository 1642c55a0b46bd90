"""Cutting and resizing: exact means, the same rule for masks and positions."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slotssm.data.importers.readers.framing import Crop, Framing, middle, resize_frame, resize_weights, sample
from slotssm.errors import InputError


def mean_over_areas(line: list[int], new: int) -> list[Fraction]:
    """The mean of a line of pixels over each of `new` equal parts."""
    parts = []
    for part in range(new):
        start, end = Fraction(part * len(line), new), Fraction((part + 1) * len(line), new)
        shares = [max(Fraction(0), min(end, i + 1) - max(start, Fraction(i))) for i in range(len(line))]
        parts.append(sum(share * value for share, value in zip(shares, line, strict=True)) / (end - start))
    return parts


def linear(line: list[int], new: int) -> list[Fraction]:
    """A line of pixels, read at `new` places between the centres of its pixels."""
    read = []
    for place in range(new):
        at = min(
            max(Fraction(2 * place + 1, 2) * len(line) / new - Fraction(1, 2), Fraction(0)), Fraction(len(line) - 1)
        )
        low = int(at)
        high = min(low + 1, len(line) - 1)
        read.append(line[low] * (1 - (at - low)) + line[high] * (at - low))
    return read


sides = st.integers(1, 7)


@settings(max_examples=60, deadline=None)
@given(st.tuples(sides, sides), st.tuples(sides, sides), st.integers(0, 2**32 - 1))
def test_means_are_exact_and_halves_round_to_even(old, new, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (*old, 3)).astype(np.uint8)
    expected = np.zeros((*new, 3), np.uint8)
    for channel in range(3):
        lines = pixels[..., channel].tolist()
        for axis in (0, 1):
            reduce = mean_over_areas if new[axis] <= old[axis] else linear
            lines = [list(row) for row in zip(*lines, strict=True)]
            lines = [reduce(line, new[axis]) for line in lines]
        # the axes were exchanged twice
        expected[..., channel] = [[round(value) for value in row] for row in lines]
    np.testing.assert_array_equal(resize_frame(pixels, new), expected)


def test_large_frames_do_not_overflow():
    assert (resize_frame(np.full((2160, 3840, 3), 255, np.uint8), (7, 5)) == 255).all()


def test_weights_of_soft_masks_keep_their_sum():
    soft = np.random.default_rng(0).dirichlet(np.ones(4), (9, 13)).transpose(2, 0, 1)
    for size in ((4, 5), (20, 30), (9, 26)):
        np.testing.assert_allclose(resize_weights(soft, size).sum(axis=0), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "source", "rows", "columns"),
    [
        ("center", (10, 20), (0, 10), (5, 15)),
        ("center", (20, 10), (5, 15), (0, 10)),
        ("16:9", (100, 160), (5, 95), (0, 160)),
        ("1:2", (10, 20), (0, 10), (7, 12)),
        ("3,1,4,5", (10, 20), (1, 6), (3, 7)),
    ],
)
def test_parts_that_are_kept(text, source, rows, columns):
    found = Crop.parsed(text).part(source, "clip")
    assert [(part.start, part.stop) for part in found] == [rows, columns]
    assert text != "center" or found == middle(source, (1, 1))


@pytest.mark.parametrize("text", ["", "centre", "0:3", "1,2,3", "1,2,0,4", "-1,0,4,4", "²:3", "4:"])
def test_other_crops_are_refused(text):
    with pytest.raises(ValueError, match="none of center"):
        Crop.parsed(text)


def test_a_box_that_exceeds_its_frame_is_refused():
    with pytest.raises(InputError, match=r"clip has 20 x 10 px, and `crop` 15,0,6,4 exceeds them"):
        Framing.of((10, 20), "15,0,6,4", None, "clip")


def test_positions_stay_on_what_they_mark():
    """A bright pixel is found where its position says, whatever is cut away and however it is resized."""
    pixels = np.zeros((24, 40, 3), np.uint8)
    pixels[14, 22] = 255
    framing = Framing.of((24, 40), "10,4,24,16", (32, 48), "clip")
    frame, mask = framing.frame(pixels), framing.nearest((pixels[..., 0] > 0).astype(np.uint8))
    x, y = framing.positions(np.array([22.5, 14.5]))
    rows, columns = np.nonzero(mask)
    assert (columns.mean() + 0.5, rows.mean() + 0.5) == (x, y)
    rows, columns = np.nonzero(frame[..., 0])
    weights = frame[rows, columns, 0].astype(float)
    assert np.average(columns + 0.5, weights=weights) == pytest.approx(x)
    assert np.average(rows + 0.5, weights=weights) == pytest.approx(y)


def test_samples_are_values_of_the_source():
    values = np.arange(35).reshape(5, 7)
    assert set(sample(values, (13, 3)).ravel().tolist()) <= set(range(35))
    np.testing.assert_array_equal(sample(values, (5, 7)), values)
