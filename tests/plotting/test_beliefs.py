"""Beliefs on the table: the cells lie as the labels count them, and marks say what is right."""

import numpy as np
import pytest

from slotssm.plotting import belief_columns, paint_belief
from slotssm.plotting.beliefs import RIGHT_COLOR, TRUE_COLOR, UNKNOWN, UNKNOWN_COLOR, WRONG_COLOR

SIDE = 120


def centre(cell: int, per_side: int) -> tuple[int, int]:
    """Row and column of the middle of a cell: x to the right, y up."""
    y, x = divmod(cell, per_side)
    width = SIDE / per_side
    return int(SIDE - (y + 0.5) * width), int((x + 0.5) * width)


def sure(cell: int, num: int = 36) -> np.ndarray:
    return np.eye(num)[cell]


@pytest.mark.parametrize("per_side", [1, 4, 6])
def test_the_most_likely_cell_is_the_brightest_and_lies_where_its_number_says(per_side):
    for cell in range(per_side**2):
        shares = np.full(per_side**2, 0.1)
        shares[cell] = 0.9
        picture = paint_belief(shares, UNKNOWN, SIDE).astype(int).sum(-1)
        means = {}
        for other in range(per_side**2):
            row, column = centre(other, per_side)
            # beside the dot
            means[other] = picture[row + round(SIDE / per_side / 3), column]
        assert max(means, key=means.get) == cell


@pytest.mark.parametrize(("cell", "guess"), [(0, 0), (7, 7), (35, 3), (UNKNOWN, 20)])
def test_a_dot_says_whether_the_likeliest_cell_is_the_true_one(cell, guess):
    picture = paint_belief(sure(guess), cell, SIDE)
    color = UNKNOWN_COLOR if cell == UNKNOWN else RIGHT_COLOR if cell == guess else WRONG_COLOR
    assert tuple(picture[centre(guess, 6)]) == color
    has_frame = (picture == TRUE_COLOR).all(-1)
    if cell == UNKNOWN:
        assert not has_frame.any()
    else:
        rows, columns = np.nonzero(has_frame)
        row, column = centre(cell, 6)
        assert np.abs(rows - row).max() <= 11
        assert np.abs(columns - column).max() <= 11


def test_bars_grow_with_the_probability_of_the_true_cell_and_never_change_later():
    shares = np.stack([sure(3) * p + sure(9) * (1 - p) for p in (0.25, 0.75, 1.0)])
    table, axis = belief_columns(shares, np.array([3, 3, 3]), (32, 40))
    assert table.frames.shape == axis.frames.shape == (3, 96, 96, 3)
    colored = [(axis.frames == color).all(-1).sum(axis=1) for color in (WRONG_COLOR, RIGHT_COLOR)]
    heights = np.maximum(*colored)
    for t, expected in enumerate((24, 72, 96)):
        third = slice(32 * t, 32 * (t + 1))
        assert (heights[t:, third] == expected).all()
        assert (heights[:t, third] == 0).all()
    assert colored[0][2, :32].all()
    assert not colored[0][2, 32:].any()


def test_frames_of_unknown_truth_have_no_bar():
    shares = np.stack([sure(3)] * 4)
    (_, axis) = belief_columns(shares, np.array([UNKNOWN, UNKNOWN, UNKNOWN, 3]), (96, 96))
    colored = (axis.frames[-1] == RIGHT_COLOR).all(-1)
    assert not colored[:, :72].any()
    assert colored[:, 72:].all()
    assert len(belief_columns(shares, np.full(4, UNKNOWN), (96, 96))) == 1
