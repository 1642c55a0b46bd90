"""Motion against closed forms and conservation laws."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generators.physics import MAX_OVERLAP_FRAMES, Motion, directions, place_discs, simulate
from slotssm.errors import InputError

PENETRATION_PX = 0.01
OPEN_PX = 100_000
"""A box whose walls are out of reach."""

# discs, radii, top speed and seed; masses differ up to 40 times
CROWDS = {
    "bcb": (4, (5.68, 5.68), 3.0, 1),
    "bouncing": (5, (6.0, 9.0), 3.0, 2),
    "dozen": (12, (5.0, 6.2), 6.0, 3),
    # of forty seeds the one that is hardest on the solver
    "swarm": (30, (3.0, 4.0), 6.0, 22),
}


@pytest.fixture(scope="module", params=CROWDS)
def crowd(request: pytest.FixtureRequest) -> tuple[Motion, np.ndarray, np.ndarray]:
    """A thousand frames in a box of 64 px, with the radii and masses."""
    num, radii, speed, seed = CROWDS[request.param]
    rng = np.random.default_rng(seed)
    radius = rng.uniform(*radii, num)
    start = place_discs(rng, radius, 64, apart=True)
    velocity = rng.uniform(0, speed, num)[:, None] * directions(rng, num)
    mass = rng.uniform(0.5, 20, num)
    return simulate(start, velocity, radius, mass, 64, 1000, collide=True), radius, mass


def reflected(start: np.ndarray, velocity: np.ndarray, time: np.ndarray, low: float, high: float) -> np.ndarray:
    """The triangle wave of a point between two walls."""
    phase = (start + velocity * time - low) % (2 * (high - low))
    return low + np.where(phase > high - low, 2 * (high - low) - phase, phase)


def kinetic_energy(velocity: np.ndarray, mass: np.ndarray) -> np.ndarray:
    return 0.5 * (mass * (velocity**2).sum(-1)).sum(-1)


# --- conservation -----------------------------------------------------------------------------------------


def test_energy_is_kept_over_a_thousand_frames(crowd: tuple[Motion, np.ndarray, np.ndarray]) -> None:
    motion, _, mass = crowd
    energy = kinetic_energy(motion.velocity, mass)
    assert np.abs(energy / energy[0] - 1).max() < 1e-9
    # discs did collide: no velocity came through unchanged in size
    assert not np.isclose(
        np.linalg.norm(motion.velocity, axis=-1)[0], np.linalg.norm(motion.velocity[-1], axis=-1)
    ).any()


def test_walls_are_never_penetrated(crowd: tuple[Motion, np.ndarray, np.ndarray]) -> None:
    motion, radius, _ = crowd
    assert (motion.position - radius[:, None]).min() > -PENETRATION_PX
    assert (motion.position + radius[:, None]).max() < 64 + PENETRATION_PX


def test_discs_never_penetrate_each_other(crowd: tuple[Motion, np.ndarray, np.ndarray]) -> None:
    motion, radius, _ = crowd
    for i in range(len(radius)):
        for j in range(i):
            apart = np.linalg.norm(motion.position[:, i] - motion.position[:, j], axis=-1)
            assert apart.min() > radius[i] + radius[j] - PENETRATION_PX


def test_momentum_is_exact_while_no_wall_is_in_reach() -> None:
    rng = np.random.default_rng(5)
    num = 12
    radius, mass = rng.uniform(4, 6, num), rng.uniform(0.5, 20, num)
    middle = place_discs(rng, radius, 64, apart=True) + OPEN_PX / 2 - 32
    velocity = 4 * directions(rng, num)
    motion = simulate(middle, velocity, radius, mass, OPEN_PX, 200, collide=True)
    momentum = (mass[:, None] * motion.velocity).sum(1)
    assert not np.allclose(motion.velocity[-1], velocity)
    assert np.abs(momentum - momentum[0]).max() < 1e-9 * (mass[:, None] * np.abs(velocity)).sum()
    centre = (mass[:, None] * motion.position).sum(1) / mass.sum()
    expected = centre[0] + np.arange(200)[:, None] * momentum[0] / mass.sum()
    np.testing.assert_allclose(centre, expected, rtol=0, atol=1e-8)


# --- closed forms -----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    radius=st.floats(1, 25),
    speed=st.floats(0, 30),
    collide=st.booleans(),
)
def test_lone_disc_follows_the_triangle_wave(seed: int, radius: float, speed: float, collide: bool) -> None:
    rng = np.random.default_rng(seed)
    size = np.array([radius])
    start, velocity = place_discs(rng, size, 64, apart=True), speed * directions(rng, 1)
    motion = simulate(start, velocity, size, np.ones(1), 64, 100, collide)
    expected = reflected(start, velocity, np.arange(100)[:, None, None], radius, 64 - radius)
    # a bounce that is noticed late leaves the path behind by twice the distance flown meanwhile
    num_bounces = 100 * speed / (64 - 2 * radius) + 2
    tolerance = 2 * MAX_OVERLAP_FRAMES * speed * num_bounces + 1e-9
    np.testing.assert_allclose(motion.position, expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(np.abs(motion.velocity), np.abs(np.broadcast_to(velocity, (100, 1, 2))), atol=1e-12)


@settings(deadline=None)
@given(
    angle=st.floats(0, 2 * math.pi),
    offset=st.floats(-0.95, 0.95),
    masses=st.tuples(st.floats(0.1, 20), st.floats(0.1, 20)),
    speeds=st.tuples(st.floats(0.5, 6), st.floats(-0.4, 6)),
)
def test_two_discs_collide_as_in_the_closed_form(
    angle: float, offset: float, masses: tuple[float, float], speeds: tuple[float, float]
) -> None:
    """Disc 0 flies along a line at an impact parameter of `offset` times the sum of radii against disc 1."""
    radius, mass = np.array([5.0, 7.0]), np.array(masses)
    along = np.array([math.cos(angle), math.sin(angle)])
    across = np.array([-along[1], along[0]])
    sum_radii = radius.sum()
    middle = np.full(2, OPEN_PX / 2)
    start = np.stack([middle - 30 * along + offset * sum_radii * across, middle])
    velocity = np.stack([speeds[0] * along, -speeds[1] * along])

    num_frames = 2000 if speeds[0] + speeds[1] < 1 else 200
    motion = simulate(start, velocity, radius, mass, OPEN_PX, num_frames, collide=True)

    gap = sum_radii * math.sqrt(1 - offset**2)
    time = (30 - gap) / (speeds[0] + speeds[1])
    normal = (start[1] + velocity[1] * time - start[0] - velocity[0] * time) / sum_radii
    impulse = 2 * mass.prod() / mass.sum() * (velocity[0] - velocity[1]) @ normal
    after = velocity + np.array([-1, 1])[:, None] * impulse * normal / mass[:, None]
    before_frame, after_frame = math.floor(time), math.ceil(time + 0.01)
    np.testing.assert_allclose(motion.velocity[before_frame], velocity, atol=1e-9)
    # the contact is noticed 1e-4 frames late, which turns the normal by a little
    grazing = 1 / math.sqrt(1 - offset**2)
    scale = np.abs(velocity).max() * max(mass) / min(mass)
    np.testing.assert_allclose(motion.velocity[after_frame], after, atol=2e-4 * scale * grazing)
    for values in (motion.velocity[after_frame], motion.velocity[-1]):
        np.testing.assert_allclose((mass[:, None] * values).sum(0), (mass[:, None] * velocity).sum(0), atol=1e-9)
        np.testing.assert_allclose(kinetic_energy(values, mass), kinetic_energy(velocity, mass), rtol=1e-11)


def test_equal_discs_swap_velocities_head_on() -> None:
    start, velocity = np.array([[20.0, 32.0], [44.0, 32.0]]), np.array([[3.0, 0.0], [-1.0, 0.0]])
    motion = simulate(start, velocity, np.full(2, 5.0), np.ones(2), 64, 7, collide=True)
    # they meet after (24 - 10) / 4 = 3.5 frames
    np.testing.assert_allclose(motion.velocity[:4], np.broadcast_to(velocity, (4, 2, 2)))
    np.testing.assert_allclose(motion.velocity[4:], np.broadcast_to(velocity[::-1], (3, 2, 2)), atol=1e-12)
    np.testing.assert_allclose(motion.position[6, :, 0], [20 + 10.5 - 2.5, 44 - 3.5 + 7.5], atol=1e-3)


def test_heavy_disc_passes_its_push_to_a_resting_one() -> None:
    start, velocity = np.array([[15.0, 32.0], [35.0, 32.0]]), np.array([[2.0, 0.0], [0.0, 0.0]])
    motion = simulate(start, velocity, np.full(2, 5.0), np.array([3.0, 1.0]), 64, 8, collide=True)
    np.testing.assert_allclose(motion.velocity[-1], [[1.0, 0.0], [3.0, 0.0]], atol=1e-12)


def test_disc_bounces_straight_back_out_of_a_corner() -> None:
    motion = simulate(np.full((1, 2), 8.0), np.full((1, 2), -2.0), np.full(1, 5.0), np.ones(1), 64, 4, collide=True)
    np.testing.assert_allclose(motion.velocity[-1], [[2.0, 2.0]], atol=1e-12)
    np.testing.assert_allclose(motion.position[-1], [[8.0, 8.0]], atol=1e-3)


# --- edges ------------------------------------------------------------------------------------------------


def test_without_collisions_discs_pass_through_each_other() -> None:
    rng = np.random.default_rng(0)
    radius = np.full(6, 9.0)
    start = place_discs(rng, radius, 64, apart=False)
    velocity = 3 * directions(rng, 6)
    motion = simulate(start, velocity, radius, np.arange(1.0, 7.0), 64, 300, collide=False)
    expected = reflected(start, velocity, np.arange(300)[:, None, None], 9.0, 55.0)
    np.testing.assert_allclose(motion.position, expected, rtol=0, atol=0.02)
    apart = np.linalg.norm(motion.position[:, 0] - motion.position[:, 1], axis=-1)
    assert apart.min() < 18


def test_discs_at_rest_stay_exactly_where_they_are() -> None:
    start = place_discs(np.random.default_rng(0), np.full(4, 5.0), 64, apart=True)
    motion = simulate(start, np.zeros((4, 2)), np.full(4, 5.0), np.ones(4), 64, 50, collide=True)
    assert (motion.position == start).all()
    assert (motion.velocity == 0).all()


def test_speeds_too_small_to_square_are_no_fault() -> None:
    start, velocity = np.array([[20.0, 32.0], [44.0, 32.0]]), np.array([[1e-200, 0.0], [-1e-200, 0.0]])
    motion = simulate(start, velocity, np.full(2, 5.0), np.ones(2), 64, 5, collide=True)
    assert np.array_equal(motion.position[-1], start)


@pytest.mark.parametrize("num_frames", [1, 5])
def test_no_discs_make_empty_motion(num_frames: int) -> None:
    motion = simulate(np.empty((0, 2)), np.empty((0, 2)), np.empty(0), np.empty(0), 64, num_frames, collide=True)
    assert motion.position.shape == motion.velocity.shape == (num_frames, 0, 2)


def test_first_frame_shows_the_start() -> None:
    start, velocity = np.array([[10.0, 50.0]]), np.array([[1.0, -2.0]])
    motion = simulate(start, velocity, np.ones(1), np.ones(1), 64, 1, collide=True)
    assert np.array_equal(motion.position, start[None])
    assert np.array_equal(motion.velocity, velocity[None])


def test_more_frames_only_continue_the_same_motion() -> None:
    rng = np.random.default_rng(3)
    radius = np.full(5, 6.0)
    start, velocity = place_discs(rng, radius, 64, apart=True), 3 * directions(rng, 5)
    short, long = (simulate(start, velocity, radius, radius, 64, num, collide=True) for num in (20, 60))
    assert np.array_equal(short.position, long.position[:20])


# --- placement --------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), radii=st.lists(st.floats(1, 8), min_size=1, max_size=7))
def test_placed_discs_lie_inside_and_apart(seed: int, radii: list[float]) -> None:
    radius = np.array(radii)
    position = place_discs(np.random.default_rng(seed), radius, 64, apart=True)
    assert (position > radius[:, None]).all()
    assert (position < 64 - radius[:, None]).all()
    for i in range(len(radius)):
        for j in range(i):
            assert math.dist(position[i], position[j]) > radius[i] + radius[j]


def test_placement_without_room_is_refused() -> None:
    with pytest.raises(InputError, match="5 objects of radius 20 px could not be placed in 64 px"):
        place_discs(np.random.default_rng(0), np.full(5, 20.0), 64, apart=True)
