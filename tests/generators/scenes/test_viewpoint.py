"""Cameras: axes, projection, and motion."""

import math

import numpy as np
import pytest

from generators.scenes.viewpoint import looking_at, on_sphere, project, swaying


def test_axes_are_right_down_forward_and_right_handed() -> None:
    view = looking_at(np.array([[5.0, 0, 2.0]]), np.array([0, 0, 2.0]), 100.0)
    right, down, forward = view.rotation[0].T
    assert forward == pytest.approx([-1, 0, 0])
    assert right == pytest.approx([0, 1, 0])
    assert down == pytest.approx([0, 0, -1])
    assert np.cross(right, down) == pytest.approx(forward)


def test_what_is_looked_at_is_in_the_middle_and_up_is_up() -> None:
    rng = np.random.default_rng(0)
    position, target = rng.uniform(3, 6, (50, 3)), rng.uniform(-1, 1, (50, 3))
    view = looking_at(position, target, 80.0)
    above = target + np.array([0, 0, 0.1])
    pixels, depth = project(np.stack([target, above], axis=1), view, 60, 90)
    assert pixels[:, 0] == pytest.approx(np.tile([45, 30], (50, 1)), abs=1e-4)
    assert pixels[:, 1, 0] == pytest.approx(np.full(50, 45), abs=1e-4)
    assert (pixels[:, 1, 1] < 30).all()
    assert depth[:, 0] == pytest.approx(np.linalg.norm(target - position, axis=1), rel=1e-6)


def test_a_roll_turns_the_picture_about_its_middle() -> None:
    position, target = np.array([[5.0, 1, 2]]), np.array([[0.0, 0, 0]])
    points = np.array([[[0.0, 0, 0], [0.3, 0.4, 0.2]]])
    level, _ = project(points, looking_at(position, target, 80.0), 60, 60)
    rolled, _ = project(points, looking_at(position, target, 80.0, math.pi / 2), 60, 60)
    # turned clockwise, the camera sees the world turned the other way
    x, y = level[0, 1] - 30
    assert rolled[0, 1] - 30 == pytest.approx([y, -x], abs=1e-4)


def test_on_sphere_and_swaying_stay_in_their_bounds() -> None:
    points = on_sphere(7.0, np.linspace(0, 7, 30), 0.4)
    assert np.linalg.norm(points, axis=1) == pytest.approx(np.full(30, 7.0))
    assert points[:, 2] == pytest.approx(np.full(30, 7 * math.sin(0.4)))
    motion = swaying(np.random.default_rng(1), 400, 3)
    assert np.abs(motion).max() <= 1
    assert np.abs(np.diff(motion, axis=0)).max() < 2 * math.pi / 30
