import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slotssm.metrics import (
    cell_distance,
    last_seen_cells,
    majority_share,
    snitch_cell,
    snitch_label,
    top_k_accuracy,
)

ON_FLOOR = st.floats(-3, 3, exclude_max=True)


@given(x=ON_FLOOR, y=ON_FLOOR)
def test_cell_is_the_formula_on_the_floor(x, y):
    assert snitch_cell(x, y) == 6 * (math.floor(y) + 3) + math.floor(x) + 3


@given(x=st.floats(allow_nan=False), y=st.floats(allow_nan=False), cells=st.integers(1, 9))
def test_every_position_has_a_cell(x, y, cells):
    below = math.nextafter(3, 0)
    clipped = [min(max(coordinate, -3.0), below) for coordinate in (x, y)]
    assert 0 <= snitch_cell(x, y, cells) < cells**2
    assert snitch_cell(x, y, cells) == snitch_cell(*clipped, cells)


@given(column=st.integers(0, 8), row=st.integers(0, 8), cells=st.integers(1, 9))
def test_centres_of_cells_are_counted_row_by_row(column, row, cells):
    column, row = column % cells, row % cells
    x, y = (6 * (index + 0.5) / cells - 3 for index in (column, row))
    assert snitch_cell(x, y, cells) == cells * row + column


def test_edges_belong_to_the_cell_above():
    assert [snitch_cell(x, -3) for x in (-3, -2, 0, 2)] == [0, 1, 3, 5]
    assert [snitch_cell(x, -3) for x in (-1e-17, math.nextafter(2, 0), math.nextafter(-2, -3))] == [2, 4, 0]
    assert [snitch_cell(-3, y) for y in (-3, -2, 2.5, 3, 99)] == [0, 6, 30, 30, 30]


def test_label_is_of_the_snitch_at_the_last_frame():
    scene = {
        "objects": [
            {"shape": "cube", "locations": {"0": [0, 0, 0], "300": [2.5, 2.5, 0]}},
            # frames are numbers: 9 is not after 10 and 299
            {"shape": "spl", "locations": {"9": [0.5, 0.5, 1], "299": [-2.5, 1.5, 1], "10": [2.5, -2.5, 1]}},
        ]
    }
    assert snitch_label(scene) == 6 * 4 + 0


def test_top_k_is_the_plain_search():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 36, 200), rng.permuted(np.tile(np.arange(36.0), (200, 1)), axis=1)
    for k in (1, 5, 36):
        hits = [
            label in sorted(range(36), key=lambda c: -row[c])[:k] for label, row in zip(labels, scores, strict=True)
        ]
        assert top_k_accuracy(labels, scores, k) == np.mean(hits)
    assert top_k_accuracy(labels, scores, 36) == 1


def test_top_k_of_equal_scores_ranks_by_column():
    flat = np.zeros((36, 36))
    assert top_k_accuracy(np.arange(36), flat, 1) == pytest.approx(1 / 36)
    assert top_k_accuracy(np.arange(36), flat, 5) == pytest.approx(5 / 36)


def test_distance_is_in_steps_along_the_axes():
    scores = np.eye(36)[[0, 7, 35, 20]]
    # (0,0) to (0,0): 0; (1,1) to (0,0): 2; (5,5) to (0,0): 10; row 3 column 2 to row 2 column 5: 4
    labels = np.array([0, 0, 0, 17])
    assert cell_distance(labels, scores) == (0 + 2 + 10 + 4) / 4


def test_last_seen_cell_is_that_of_the_last_visible_frame():
    place = np.zeros((3, 4, 3), np.float32)
    place[:, :, 0] = [-2.5, -1.5, 0.5, 2.5]
    visible = np.array([[1, 5, 0, 0], [0, 0, 0, 9], [0, 0, 0, 0]])
    assert last_seen_cells(place, visible).tolist() == [18 + 1, 18 + 5, -1]


def test_majority_share():
    assert majority_share(np.array([3, 3, 5, 7])) == 0.5
