"""Paired tests, against scipy and against all exchanges written out."""

from itertools import product

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from slotssm.errors import InputError
from slotssm.metrics import paired_test
from slotssm.metrics.significance import MAX_EXACT, NUM_FLIPS


def pair(seed: int, num: int, shift: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    first = rng.random(num)
    return first, first + rng.normal(shift, 0.2, num)


def by_hand(first, second, units) -> float:
    """Two-sided p-value by exchanging the models in every possible set of episodes."""
    differences = np.array(units) * (np.array(second) - np.array(first))
    sums = [abs(np.dot(signs, differences)) for signs in product((1, -1), repeat=len(differences))]
    return np.mean(np.array(sums) >= sums[0] - 1e-9)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), num=st.integers(1, 9), weighted=st.booleans(), rounded=st.booleans())
def test_exact_p_value_tries_all_exchanges(seed, num, weighted, rounded):
    first, second = pair(seed, num)
    if rounded:  # ties and differences of zero
        first, second = np.round(first * 4) / 4, np.round(second * 4) / 4
    units = np.random.default_rng(seed).integers(1, 5, num) if weighted else np.ones(num)
    found = paired_test(first, second, 0, units)
    assert found.permutations == "exact"
    assert found.p_permutation == pytest.approx(by_hand(first, second, units), abs=1e-12)
    assert found.difference == pytest.approx(np.average(second - first, weights=units), abs=1e-12)
    assert (found.first, found.second) == pytest.approx(
        (np.average(first, weights=units), np.average(second, weights=units))
    )


@pytest.mark.parametrize("num", [3, 8, 12])
def test_exact_p_value_is_scipys(num):
    first, second = pair(num, num)
    theirs = scipy.stats.permutation_test(
        (first, second), lambda a, b: np.mean(b - a), permutation_type="samples", n_resamples=np.inf
    )
    assert paired_test(first, second, 0).p_permutation == pytest.approx(theirs.pvalue, abs=1e-12)


@pytest.mark.parametrize(("num", "shift"), [(60, 0.03), (60, 0.0), (200, 0.02)])
def test_sampled_p_value_is_close_to_scipys(num, shift):
    first, second = pair(num, num, shift)
    found = paired_test(first, second, 0)
    assert (found.permutations, found.num_permutations) == ("monte-carlo", NUM_FLIPS)
    theirs = scipy.stats.permutation_test(
        (first, second),
        lambda a, b, axis: np.mean(b - a, axis),
        permutation_type="samples",
        n_resamples=20_000,
        vectorized=True,
        rng=np.random.default_rng(1),
    )
    # five standard errors of the difference of two samples of 20,000
    error = 5 * np.sqrt(2 * max(theirs.pvalue, 1e-3) / NUM_FLIPS)
    assert found.p_permutation == pytest.approx(theirs.pvalue, abs=error)


def test_sampling_begins_where_trying_all_ends():
    first, second = pair(0, MAX_EXACT + 1)
    assert paired_test(first, second, 0).permutations == "monte-carlo"
    second[0] = first[0]  # an episode without a difference changes nothing when it is exchanged
    assert paired_test(first, second, 0).num_permutations == 2**MAX_EXACT


def test_a_sampled_p_value_depends_on_the_seed_alone_and_is_never_zero():
    first, second = pair(0, 100, 5.0)
    assert paired_test(first, second, 0).p_permutation == 1 / (NUM_FLIPS + 1)
    first, second = pair(0, 100, 0.02)
    results = [paired_test(first, second, seed) for seed in (0, 0, 1)]
    assert results[0] == results[1]
    assert results[0].p_permutation != results[2].p_permutation


@pytest.mark.parametrize("num", [6, 30, 200])
def test_signed_ranks_are_scipys(num):
    first, second = pair(num, num)
    theirs = scipy.stats.wilcoxon(second, first)
    found = paired_test(first, second, 0)
    assert found.wilcoxon == theirs.statistic
    assert found.p_wilcoxon == pytest.approx(theirs.pvalue, rel=1e-9)


def test_interval_is_the_bootstrap_of_the_differences():
    first, second = pair(0, 40)
    found = paired_test(first, second, 0)
    theirs = scipy.stats.bootstrap(
        (second - first,), np.mean, method="percentile", n_resamples=20_000, rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.interval == pytest.approx((theirs.low, theirs.high), abs=5e-3)
    # paired: what episodes have in common has no part in it
    far = np.linspace(0, 1000, 40)
    assert paired_test(first + far, second + far, 0).interval == pytest.approx(found.interval, abs=1e-9)


def test_exchanging_the_models_turns_the_sign():
    first, second = pair(3, 12)
    one, other = paired_test(first, second, 0), paired_test(second, first, 0)
    assert other.difference == -one.difference
    assert (other.p_permutation, other.p_wilcoxon) == (one.p_permutation, one.p_wilcoxon)
    assert (other.num_higher, other.num_lower) == (one.num_lower, one.num_higher)
    assert other.interval == pytest.approx((-one.interval[1], -one.interval[0]), abs=0.05)


def test_equal_models_do_not_differ():
    first, _ = pair(0, 30)
    found = paired_test(first, first, 0)
    assert (found.difference, found.p_permutation, found.p_wilcoxon) == (0, 1, 1)
    assert found.interval == (0, 0)
    assert (found.num_higher, found.num_lower, found.num_episodes) == (0, 0, 30)


def test_one_episode_proves_nothing():
    found = paired_test([0.1], [0.9], 0)
    assert (found.interval, found.p_permutation, found.p_wilcoxon) == (None, 1, 1)


def test_p_values_of_equal_models_are_uniform():
    rng = np.random.default_rng(0)
    found = [paired_test(*rng.normal(size=(2, 10)), 0).p_permutation for _ in range(300)]
    assert scipy.stats.kstest(found, "uniform").pvalue > 1e-3


def test_episodes_that_were_not_scored_have_no_part():
    first, second = pair(0, 8)
    expected = paired_test(first, second, 0)
    holes = np.insert(first, 3, np.nan), np.insert(second, 3, np.nan)
    assert paired_test(*holes, 0) == expected
    assert paired_test([np.nan], [np.nan], 0) is None
    with pytest.raises(InputError, match="NaN in the same episodes"):
        paired_test(holes[0], np.insert(second, 4, np.nan), 0)
    with pytest.raises(InputError, match="one for each episode"):
        paired_test(first, second[:-1], 0)
