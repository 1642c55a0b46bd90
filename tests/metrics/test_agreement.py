import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slotssm.metrics import accuracy, r2, split_by_group


def test_r2_is_one_minus_residual_over_total():
    rng = np.random.default_rng(0)
    true, pred = rng.normal(size=(50, 3)) * [1, 10, 100], rng.normal(size=(50, 3))
    columns = [1 - ((t - p) ** 2).sum() / ((t - t.mean()) ** 2).sum() for t, p in zip(true.T, pred.T, strict=True)]
    # the plain mean over columns: a wide column does not outweigh a narrow one
    assert r2(true, pred) == pytest.approx(np.mean(columns), rel=1e-12)
    assert r2(true[:, 0], pred[:, 0]) == pytest.approx(columns[0], rel=1e-12)


def test_r2_knows_perfection_the_mean_and_worse():
    true = np.array([1.0, 2.0, 6.0])
    assert r2(true, true) == 1
    assert r2(true, np.full(3, 3.0)) == 0
    # residual 9 + 16 + 9 of a total of 4 + 1 + 9
    assert r2(true, np.array([4.0, 6.0, 9.0])) == pytest.approx(1 - 34 / 14)


def test_accuracy_is_the_share_of_equal_labels():
    assert accuracy([1, 2, 3, 3], [1, 2, 2, 3]) == 0.75
    assert accuracy(["red", "blue"], ["red", "red"]) == 0.5


@settings(deadline=None, max_examples=30)
@given(
    groups=st.lists(st.integers(0, 8), min_size=2, max_size=60).filter(lambda rows: len(set(rows)) > 1),
    fraction=st.sampled_from([0.2, 0.5]),
    seed=st.integers(0, 100),
)
def test_split_keeps_a_video_on_one_side(groups, fraction, seed):
    rows = np.array(groups)
    train, test = split_by_group(groups, fraction, seed)
    assert sorted([*train, *test]) == list(range(len(rows)))
    assert not set(rows[train]) & set(rows[test])
    assert len(train)
    assert len(test)
    again = split_by_group(groups, fraction, seed)
    np.testing.assert_array_equal(train, again[0])
    np.testing.assert_array_equal(test, again[1])


def test_split_has_the_fraction_of_videos_and_the_seed_decides_which():
    groups = np.repeat(np.arange(40), 3)
    tests = [frozenset(groups[split_by_group(groups, 0.25, seed)[1]]) for seed in range(5)]
    assert {len(test) for test in tests} == {10}
    assert len(set(tests)) == 5
