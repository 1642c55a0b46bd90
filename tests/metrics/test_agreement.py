import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, r2_score

from slotssm.metrics import accuracy, balanced_accuracy, r2, r2_by_column, r2_interval, split_by_group


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
@given(rows=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
def test_balanced_accuracy_is_scikit_learns(rows):
    true, pred = zip(*rows, strict=True)
    assert balanced_accuracy(true, pred) == pytest.approx(balanced_accuracy_score(true, pred), abs=1e-12)


def test_balanced_accuracy_gives_rare_classes_the_same_weight():
    true, pred = [0] * 8 + [1] * 2, [0] * 10
    assert accuracy(true, pred) == 0.8
    assert balanced_accuracy(true, pred) == 0.5
    # class 2 is never true: rows that are called so are wrong, and that is all
    assert balanced_accuracy(["a", "a", "b"], ["a", "c", "b"]) == 0.75


def test_columns_are_scored_alone_and_constant_ones_not_at_all():
    rng = np.random.default_rng(0)
    true, pred = rng.normal(size=(30, 3)), rng.normal(size=(30, 3))
    np.testing.assert_allclose(r2_by_column(true, pred), r2_score(true, pred, multioutput="raw_values"), rtol=1e-12)
    assert r2_by_column(true, pred).mean() == pytest.approx(r2(true, pred))
    # what float32 leaves of one number after another way of computing it
    true[:, 1] = 100 * (1 + 1e-7 * rng.integers(0, 2, 30))
    scores = r2_by_column(true, pred)
    assert np.isfinite(scores).tolist() == [True, False, True]
    assert np.isnan(r2_by_column(np.zeros((4, 1)), np.zeros((4, 1)))).all()
    assert np.isnan(r2_by_column(np.zeros((0, 2)), np.zeros((0, 2)))).all()


def test_interval_of_r2_is_that_of_resampled_videos():
    rng = np.random.default_rng(0)
    groups = rng.permutation(np.repeat(np.arange(12), 5))
    # far from zero, where sums of squares lose digits
    true = 1e4 + rng.normal(size=(60, 2)) + groups[:, None]
    pred = true + rng.normal(size=(60, 2))
    draws = np.random.default_rng(3).multinomial(12, np.full(12, 1 / 12), size=50)
    scores = []
    for draw in draws:
        rows = np.concatenate([np.tile(np.flatnonzero(groups == group), count) for group, count in enumerate(draw)])
        scores.append(r2_score(true[rows], pred[rows]))
    expected = np.quantile(scores, [0.05, 0.95])
    assert r2_interval(true, pred, groups, 3, confidence=0.9, num_resamples=50) == pytest.approx(expected, rel=1e-6)
    low, high = r2_interval(true, pred, groups, 3)
    assert low < r2(true, pred) < high


def test_interval_of_r2_leaves_out_resamples_that_do_not_vary():
    # one number a video: drawn twice, the same video has no variance to explain
    true, pred = np.array([[0.0], [0.0], [1.0], [1.0]]), np.array([[0.1], [0.0], [1.0], [1.0]])
    low, high = r2_interval(true, pred, [0, 0, 1, 1], 0)
    assert low == high == pytest.approx(r2(true, pred))
    assert r2_interval(true, pred, [0, 0, 0, 0], 0) is None
    assert r2_interval(np.ones((4, 1)), pred, [0, 0, 1, 1], 0) is None
    assert r2_interval(np.zeros((0, 1)), np.zeros((0, 1)), [], 0) is None


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
