import numpy as np
import pytest

from slotssm.metrics import Scores, bootstrap_interval


def test_interval_covers_the_mean_as_often_as_it_says():
    # 200 experiments of 30 episodes; 90 % intervals of a percentile bootstrap cover a little less than 90 %
    rng = np.random.default_rng(0)
    hits = 0
    for experiment in range(200):
        low, high = bootstrap_interval(rng.normal(3, 2, 30), np.arange(30), experiment, 0.9, 500)
        hits += low <= 3 <= high
    assert 0.83 <= hits / 200 <= 0.95


def test_interval_has_the_width_of_the_standard_error():
    values = np.random.default_rng(0).normal(0, 1, 400)
    low, high = bootstrap_interval(values, np.arange(400), 0)
    width = 2 * 1.96 * values.std() / np.sqrt(400)
    assert (high - low) == pytest.approx(width, rel=0.1)
    assert low < values.mean() < high


def test_units_of_an_episode_are_resampled_together():
    # 20 episodes, each of 50 equal units: as uncertain as 20 values, not as 1000
    values = np.random.default_rng(0).normal(0, 1, 20)
    low, high = bootstrap_interval(values.repeat(50), np.arange(20).repeat(50), 0)
    alone = bootstrap_interval(values, np.arange(20), 0)
    assert (low, high) == pytest.approx(alone)
    naive = bootstrap_interval(values.repeat(50), np.arange(1000), 0)
    assert high - low > 4 * (naive[1] - naive[0])


def test_episodes_weigh_by_their_units():
    # the mean is over units: an episode of 9 units at 1 and one of a single unit at 0
    # so both are drawn once in half of the resamples, and their mean is 0.9
    values, groups = [1.0] * 9 + [0.0], [0] * 9 + [1]
    assert bootstrap_interval(values, groups, 0) == (0, 1)
    assert bootstrap_interval(values, groups, 0, confidence=0.2) == pytest.approx((0.9, 0.9))


def test_seed_decides_the_interval():
    values, groups = np.random.default_rng(0).normal(size=10), np.arange(10)
    assert bootstrap_interval(values, groups, 5) == bootstrap_interval(values, groups, 5)
    assert bootstrap_interval(values, groups, 5) != bootstrap_interval(values, groups, 6)


def test_names_of_episodes_do_not_matter():
    values = np.random.default_rng(0).normal(size=6)
    assert bootstrap_interval(values, [0, 0, 1, 1, 2, 2], 0) == bootstrap_interval(values, [5, 5, 80, 80, 91, 91], 0)


@pytest.mark.parametrize(("values", "groups"), [([], []), ([0.5], [0]), ([0.1, 0.9], [3, 3])])
def test_fewer_than_two_episodes_have_no_interval(values, groups):
    assert bootstrap_interval(values, groups, 0) is None


def test_scores_summarise_their_values():
    scores = Scores(np.array([0.0, 1.0, 0.5]), np.array([0, 1, 4]), 2, "video")
    assert (scores.mean, scores.num_units) == (0.5, 3)
    assert scores.interval(3) == bootstrap_interval([0.0, 1.0, 0.5], [0, 1, 2], 3)
