"""Discs that move freely and collide elastically in a square box.

Collisions are solved by pymunk (Chipmunk). Between contacts, discs move in straight lines, so the time of the next
contact is known in closed form and the solver is stepped from contact to contact instead of in fixed substeps: this
is faster, and discs overlap by at most `MAX_OVERLAP_FRAMES` times their closing speed. Positions at whole frames
follow from linear motion.
"""

import math
from dataclasses import dataclass

import numpy as np
import pymunk
import pymunk.batch

from slotssm.compilation import cached_njit
from slotssm.errors import InputError

CONTACT_OVERSHOOT = 1e-4
"""Time in frames by which a step exceeds the moment of contact, so that the solver detects the contact."""
SHORTEST_STEP = 4e-4
"""Shortest step in frames. It exceeds the overshoot, so that discs separate after a resolved contact before the next
step ends, and the solver never warm-starts from an impulse of another step length."""
MAX_OVERLAP_FRAMES = 5e-4
"""Longest time in frames before a contact is resolved: at a closing speed of 12 px/frame, an overlap of 0.006 px."""
SOLVER_ITERATIONS = 100
"""Enough for many simultaneous contacts; 30 iterations leave energy drifts of 1e-6 with 30 discs of mixed masses."""
WALL_THICKNESS_PX = 64.0
PLACEMENT_GAP_PX = 0.05
PLACEMENT_TRIES = 400
PLACEMENT_RESTARTS = 400

_FIELDS = pymunk.batch.BodyFields.POSITION | pymunk.batch.BodyFields.VELOCITY


@dataclass(frozen=True)
class Motion:
    """Trajectories at whole frames.

    Attributes:
        position: float64 [T, N, 2], pixels, x right and y down.
        velocity: float64 [T, N, 2], pixels per frame.
    """

    position: np.ndarray
    velocity: np.ndarray


def place_discs(rng: np.random.Generator, radius: np.ndarray, size_px: float, apart: bool) -> np.ndarray:
    """Draw uniform positions inside the box; with `apart`, those at which discs would touch are rejected.

    Args:
        rng: source of randomness.
        radius: [N] in pixels.
        size_px: side of the box.
        apart: whether discs must not touch each other.

    Returns:
        float64 [N, 2].

    Raises:
        InputError: no arrangement was found.
    """
    num = len(radius)
    for _ in range(PLACEMENT_RESTARTS if apart else 1):
        position = np.empty((num, 2))
        for index in range(num):
            low = radius[index] + PLACEMENT_GAP_PX
            tries = rng.uniform(low, size_px - low, size=(PLACEMENT_TRIES if apart else 1, 2))
            choice = _first_free(tries, position, radius, index) if apart else 0
            if choice < 0:
                break
            position[index] = tries[choice]
        else:
            return position
    raise InputError(
        f"{num} objects of radius {radius.max():g} px could not be placed in {size_px:g} px; "
        "use fewer or smaller ones, or a larger size"
    )


@cached_njit()
def _first_free(tries: np.ndarray, position: np.ndarray, radius: np.ndarray, index: int) -> int:
    """Index of the first try that touches none of the discs before `index`, or -1."""
    for attempt in range(len(tries)):
        free = True
        for other in range(index):
            gap = radius[index] + radius[other] + PLACEMENT_GAP_PX
            dx = tries[attempt, 0] - position[other, 0]
            dy = tries[attempt, 1] - position[other, 1]
            if dx * dx + dy * dy < gap * gap:
                free = False
                break
        if free:
            return attempt
    return -1


def directions(rng: np.random.Generator, num: int) -> np.ndarray:
    """Unit vectors in uniformly drawn directions, float64 [N, 2]."""
    angle = rng.uniform(0, 2 * math.pi, num)
    return np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def simulate(
    position: np.ndarray,
    velocity: np.ndarray,
    radius: np.ndarray,
    mass: np.ndarray,
    size_px: float,
    num_frames: int,
    collide: bool,
) -> Motion:
    """Simulate discs for `num_frames` frames; the first frame is the initial state.

    Args:
        position: [N, 2] in pixels.
        velocity: [N, 2] in pixels per frame.
        radius: [N] in pixels.
        mass: [N], any unit.
        size_px: side of the box, whose walls reflect specularly.
        num_frames: T.
        collide: whether discs bounce off each other, or only off the walls.
    """
    num = len(radius)
    positions, velocities = np.empty((num_frames, num, 2)), np.empty((num_frames, num, 2))
    if num == 0:
        return Motion(positions, velocities)
    space = _space(position, velocity, radius, mass, size_px, collide)
    buffer = pymunk.batch.Buffer()
    now, frame = 0.0, 0
    position, velocity = position.astype(np.float64), velocity.astype(np.float64)
    while True:
        left = num_frames - 1 - now
        contact = _time_to_contact(position, velocity, radius, float(size_px), collide)
        step = max(contact + CONTACT_OVERSHOOT, SHORTEST_STEP)
        frame = _fill_frames(positions, velocities, position, velocity, now, step, frame)
        if frame == num_frames or step > left + SHORTEST_STEP:
            return Motion(positions, velocities)
        space.step(step)
        now += step
        buffer.clear()
        pymunk.batch.get_space_bodies(space, _FIELDS, buffer)
        # bodies are in the order of their addition, followed by the static body of the walls
        state = np.frombuffer(buffer.float_buf(), np.float64).reshape(-1, 4)[:num]
        position, velocity = state[:, :2].copy(), state[:, 2:].copy()


def _space(
    position: np.ndarray,
    velocity: np.ndarray,
    radius: np.ndarray,
    mass: np.ndarray,
    size_px: float,
    collide: bool,
) -> pymunk.Space:
    space = pymunk.Space()
    space.iterations = SOLVER_ITERATIONS
    space.collision_slop = 0.0
    space.collision_bias = 1.0  # no positional correction, which would move discs without a force
    space.collision_persistence = 1
    # shapes of the same non-zero group do not collide with each other, only with the walls
    filter_ = pymunk.ShapeFilter(group=0 if collide else 1)
    low, high, far = -WALL_THICKNESS_PX, size_px + WALL_THICKNESS_PX, 4 * WALL_THICKNESS_PX
    for start, end in (
        ((low, -far), (low, size_px + far)),
        ((high, -far), (high, size_px + far)),
        ((-far, low), (size_px + far, low)),
        ((-far, high), (size_px + far, high)),
    ):
        wall = pymunk.Segment(space.static_body, start, end, WALL_THICKNESS_PX)
        wall.elasticity = 1.0
        space.add(wall)
    for index in range(len(radius)):
        # infinite moment of inertia: discs are frictionless and never rotate
        body = pymunk.Body(float(mass[index]), math.inf)
        body.position = (float(position[index, 0]), float(position[index, 1]))
        body.velocity = (float(velocity[index, 0]), float(velocity[index, 1]))
        disc = pymunk.Circle(body, float(radius[index]))
        disc.elasticity = 1.0
        disc.friction = 0.0
        disc.filter = filter_
        space.add(body, disc)
    return space


@cached_njit()
def _time_to_contact(
    position: np.ndarray, velocity: np.ndarray, radius: np.ndarray, size: float, collide: bool
) -> float:
    """Frames until the next contact of approaching discs or of a disc with a wall; infinite if there is none."""
    soonest = np.inf
    num = len(radius)
    for i in range(num):
        for axis in range(2):
            speed = velocity[i, axis]
            if speed > 0:
                soonest = min(soonest, max(0.0, (size - radius[i] - position[i, axis]) / speed))
            elif speed < 0:
                soonest = min(soonest, max(0.0, (radius[i] - position[i, axis]) / speed))
        if not collide:
            continue
        for j in range(i):
            dx, dy = position[i, 0] - position[j, 0], position[i, 1] - position[j, 1]
            du, dv = velocity[i, 0] - velocity[j, 0], velocity[i, 1] - velocity[j, 1]
            closing = dx * du + dy * dv
            if closing >= 0:
                continue
            gap = dx * dx + dy * dy - (radius[i] + radius[j]) ** 2
            speed2 = du * du + dv * dv
            root = closing * closing - speed2 * gap
            if root >= 0 and speed2 > 0:  # the square of a tiny speed is 0
                soonest = min(soonest, max(0.0, (-closing - np.sqrt(root)) / speed2))
    return soonest


@cached_njit()
def _fill_frames(
    positions: np.ndarray,
    velocities: np.ndarray,
    position: np.ndarray,
    velocity: np.ndarray,
    now: float,
    step: float,
    frame: int,
) -> int:
    """Write the frames that fall into [now, now + step); returns the next frame to write."""
    while frame < len(positions) and frame < now + step:
        positions[frame] = position + velocity * (frame - now)
        velocities[frame] = velocity
        frame += 1
    return frame
