"""Sliding objects against closed forms: friction, collisions, rest."""

import math

import numpy as np
import pytest

from generators.scenes.sliding import SLOP, Pieces, slide, stopping_distance
from generators.scenes.solids import CUBE, CYLINDER, HALF_SIDE, SPHERE

GRAVITY, HALF = 0.014, 3.0


def pieces(*shapes: int, radius: float = 0.5, mass=1.0, friction: float = 0.8, restitution: float = 0.8) -> Pieces:
    num = len(shapes)
    return Pieces(
        np.array(shapes),
        np.full(num, radius),
        np.broadcast_to(mass, num).astype(float),
        np.full(num, friction),
        np.full(num, restitution),
    )


def run(what: Pieces, position, velocity, num_frames: int = 60, gravity: float = GRAVITY, angle=None):
    angle = np.zeros(len(what.radius)) if angle is None else np.array(angle)
    return slide(what, np.array(position, float), angle, np.array(velocity, float), gravity, HALF, num_frames)


@pytest.mark.parametrize("shape", [SPHERE, CYLINDER, CUBE])
@pytest.mark.parametrize("mass", [0.3, 5.0])
@pytest.mark.parametrize(("speed", "friction"), [(0.2, 0.8), (0.15, 0.4)])
def test_a_lone_object_stops_where_friction_says(shape: int, mass: float, speed: float, friction: float) -> None:
    motion = run(pieces(shape, mass=mass, friction=friction), [[-2, 0]], [[speed, 0]])
    travelled = motion.position[-1, 0, 0] + 2
    # the solver moves before it slows, in four steps a frame, so it travels half a step's motion further
    assert travelled == pytest.approx(stopping_distance(speed, friction, GRAVITY), abs=speed / 7)
    assert motion.position[:, 0, 1] == pytest.approx(np.zeros(60), abs=1e-9)
    assert np.abs(motion.velocity[-1]).max() < 1e-9
    # uniform deceleration until then
    steps = np.diff(motion.velocity[:, 0, 0])
    assert steps[:5] == pytest.approx(np.full(5, -friction * GRAVITY), rel=1e-6)
    assert motion.angle == pytest.approx(np.zeros((60, 1)), abs=1e-9)


def test_without_gravity_nothing_slows() -> None:
    motion = run(pieces(SPHERE), [[-2, 0]], [[0.05, 0.01]], 40, gravity=0)
    assert motion.velocity[-1, 0] == pytest.approx([0.05, 0.01], rel=1e-9)


@pytest.mark.parametrize("masses", [(1.0, 1.0), (2.0, 1.0), (0.5, 3.0)])
@pytest.mark.parametrize("restitution", [1.0, 0.5])
def test_a_central_collision_has_the_textbook_velocities(masses, restitution: float) -> None:
    what = pieces(SPHERE, SPHERE, mass=masses, restitution=math.sqrt(restitution))
    motion = run(what, [[-1, 0], [1, 0]], [[0.2, 0], [-0.1, 0]], 8, gravity=0)
    total = sum(masses)
    mean = (0.2 * masses[0] - 0.1 * masses[1]) / total
    wanted = [mean - restitution * 0.3 * masses[1] / total, mean + restitution * 0.3 * masses[0] / total]
    assert motion.velocity[-1, :, 0] == pytest.approx(wanted, abs=2e-4)


def test_collisions_keep_momentum_and_do_not_add_energy() -> None:
    rng = np.random.default_rng(0)
    what = pieces(*[SPHERE, CUBE, CYLINDER, CUBE, SPHERE], radius=0.4, mass=[1, 2, 3, 1, 0.5])
    place = [[-2, 0], [0, 0], [1.5, 0.3], [0, 1.5], [0.3, -1.5]]
    motion = run(what, place, rng.uniform(-0.05, 0.05, (5, 2)) - 0.02 * np.array(place), 25, gravity=0)
    momentum = (what.mass[:, None] * motion.velocity).sum(1)
    assert np.abs(momentum - momentum[0]).max() < 1e-9
    energy = (what.mass * (motion.velocity**2).sum(-1)).sum(1)
    assert (energy <= energy[0] * (1 + 1e-6)).all()


@pytest.mark.parametrize("seed", range(8))
def test_objects_come_to_rest_on_the_table_without_overlap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    what = pieces(SPHERE, CYLINDER, SPHERE, CYLINDER, SPHERE, radius=0.5)
    place = np.array([[-2, -2], [2, 2], [-2, 2], [2, -2], [0, 0]], float)
    motion = run(what, place, rng.uniform(-0.3, 0.3, (5, 2)), 90)
    assert np.abs(motion.velocity[-1]).max() < 1e-6
    assert np.abs(motion.position).max() <= HALF - 0.5 + 0.08
    gaps = np.linalg.norm(motion.position[:, :, None] - motion.position[:, None], axis=-1) + 9 * np.eye(5)
    # a fast object sinks in by a part of its way in a step before the solver pushes it out
    assert gaps.min() > 1 - 0.6 / 4
    assert gaps[-1].min() > 1 - 5 * SLOP


def test_cubes_turn_when_they_are_hit_beside_their_middle_and_discs_are_not_turned_by_a_rim() -> None:
    what = pieces(CUBE, SPHERE, radius=0.6, friction=0.4)
    motion = run(what, [[0, 0], [-1.6, 0.35]], [[0, 0], [0.3, 0]], 40)
    assert abs(motion.angle[-1, 0]) > 0.05
    side = HALF_SIDE * 0.6
    corner = max(abs(motion.position[-1, 0] + side * np.sqrt(2)).max(), 0)
    assert corner < HALF
    alone = run(pieces(SPHERE), [[2, 0]], [[0.2, 0.1]], 40)
    assert alone.angle == pytest.approx(np.zeros((40, 1)), abs=1e-9)
