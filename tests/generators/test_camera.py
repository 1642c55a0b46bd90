"""The moving view and the changing light stay within what was asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generators.camera import changing_light, pan


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32), reach=st.floats(0.5, 64), share=st.floats(0.01, 1))
def test_the_view_stays_near_and_slow_and_its_velocity_is_its_change(seed: int, reach: float, share: float) -> None:
    speed = reach * share
    motion = pan(np.random.default_rng(seed), 200, reach, speed)
    assert motion.position.shape == motion.velocity.shape == (200, 2)
    assert np.abs(motion.position).max() <= reach
    assert np.abs(motion.velocity).max() <= speed
    # x'' = -ω² x on a sine, and x² + (x'/ω)² is its squared amplitude: ω and A follow from any two frames
    later, earlier = motion.position[2:] + motion.position[:-2], motion.position[1:-1]
    rate = np.arccos(np.clip((later * earlier).sum(0) / (2 * (earlier**2).sum(0)), -1, 1))
    amplitude = np.hypot(motion.position, motion.velocity / rate)
    np.testing.assert_allclose(amplitude, amplitude[:1].repeat(200, 0), rtol=1e-3)
    assert (amplitude >= 0.499 * reach).all()


def test_a_slow_view_s_velocity_is_its_difference() -> None:
    motion = pan(np.random.default_rng(0), 500, 20.0, 0.5)
    difference = (motion.position[2:] - motion.position[:-2]) / 2
    np.testing.assert_allclose(difference, motion.velocity[1:-1], atol=1e-4)
    assert np.ptp(motion.position, axis=0).min() > 20


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**32), strength=st.floats(0.01, 0.9))
def test_light_changes_slowly_within_its_share(seed: int, strength: float) -> None:
    light = changing_light(np.random.default_rng(seed), 120, strength)
    assert light.shape == (120, 3)
    assert light.min() >= 1 - strength - 1e-12
    assert light.max() <= 1
    taken = 1 - light
    # a whole period lies within: from none to at least half of the share, in the same course for every channel
    assert taken.min(0).max() < 0.03 * strength
    assert taken.max(0).min() > 0.48 * strength
    assert np.abs(np.diff(light, axis=0)).max() < strength * np.pi / 20 + 1e-12
    np.testing.assert_allclose(taken / taken.max(0), (taken / taken.max(0))[:, :1].repeat(3, 1), atol=1e-9)


def test_without_strength_light_is_white() -> None:
    assert (changing_light(np.random.default_rng(0), 9, 0.0) == 1).all()


@pytest.mark.parametrize(
    "make", [lambda rng, t: pan(rng, t, 8, 1).position, lambda rng, t: changing_light(rng, t, 0.5)]
)
def test_more_frames_only_continue(make) -> None:
    short, long = make(np.random.default_rng(5), 7), make(np.random.default_rng(5), 70)
    np.testing.assert_array_equal(short, long[:7])
