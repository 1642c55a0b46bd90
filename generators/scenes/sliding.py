"""Objects that slide on a table, push each other and come to rest: rigid footprints in the plane, by pymunk.

Footprints are discs, or squares for cubes. The table slows a sliding object by friction · gravity, whatever its mass,
and its turning accordingly.
"""

import math
from dataclasses import dataclass

import numpy as np
import pymunk
import pymunk.batch

from generators.scenes.solids import CUBE, HALF_SIDE

SUBSTEPS = 4
"""Steps of the solver in a frame."""
SOLVER_ITERATIONS = 12
RIM_THICKNESS = 2.0
SLOP = 0.001
"""Overlap that the solver leaves, in world units."""

_FIELDS = pymunk.batch.BodyFields.POSITION | pymunk.batch.BodyFields.ANGLE | pymunk.batch.BodyFields.VELOCITY


@dataclass(frozen=True)
class Pieces:
    """N objects on the table.

    Attributes:
        shape: int64 [N], indices into `solids.SHAPES`.
        radius: float64 [N], world units.
        mass: float64 [N].
        friction: float64 [N], with the table and, multiplied, with each other.
        restitution: float64 [N], multiplied for two objects that meet.
    """

    shape: np.ndarray
    radius: np.ndarray
    mass: np.ndarray
    friction: np.ndarray
    restitution: np.ndarray


@dataclass(frozen=True)
class Sliding:
    """Motion in the plane at whole frames.

    Attributes:
        position: float64 [T, N, 2], world units.
        angle: float64 [T, N], radians.
        velocity: float64 [T, N, 2], world units per frame.
    """

    position: np.ndarray
    angle: np.ndarray
    velocity: np.ndarray


def slide(
    pieces: Pieces,
    position: np.ndarray,
    angle: np.ndarray,
    velocity: np.ndarray,
    gravity: float,
    half_side: float,
    num_frames: int,
) -> Sliding:
    """Let objects slide from a first state; the first frame is that state.

    Args:
        pieces: the N objects.
        position: [N, 2].
        angle: [N].
        velocity: [N, 2], world units per frame.
        gravity: world units per frame².
        half_side: the table's rim is at ± this, and turns objects back.
        num_frames: T.
    """
    num = len(pieces.radius)
    space, moving = _space(pieces, position, angle, velocity, gravity, half_side), np.empty((num_frames, num, 5))
    moving[0] = np.concatenate([position, angle[:, None], velocity], axis=1)
    buffer = pymunk.batch.Buffer()
    for frame in range(1, num_frames):
        for _ in range(SUBSTEPS):
            space.step(1 / SUBSTEPS)
        buffer.clear()
        pymunk.batch.get_space_bodies(space, _FIELDS, buffer)
        # bodies are in the order of their addition, followed by the static body of the rim
        moving[frame] = np.frombuffer(buffer.float_buf(), np.float64).reshape(-1, 5)[:num]
    return Sliding(moving[..., :2], moving[..., 2], moving[..., 3:])


def _space(
    pieces: Pieces, position: np.ndarray, angle: np.ndarray, velocity: np.ndarray, gravity: float, half_side: float
) -> pymunk.Space:
    space = pymunk.Space()
    space.iterations = SOLVER_ITERATIONS
    space.collision_slop = SLOP
    table = space.static_body
    low, far = half_side + RIM_THICKNESS, 3 * half_side + RIM_THICKNESS
    for start, end in (
        ((-low, -far), (-low, far)),
        ((low, -far), (low, far)),
        ((-far, -low), (far, -low)),
        ((-far, low), (far, low)),
    ):
        rim = pymunk.Segment(table, start, end, RIM_THICKNESS)
        rim.elasticity, rim.friction = 1.0, 0.0
        space.add(rim)
    for n in range(len(pieces.radius)):
        mass, radius = float(pieces.mass[n]), float(pieces.radius[n])
        side = 2 * HALF_SIDE * radius
        is_cube = pieces.shape[n] == CUBE
        moment = pymunk.moment_for_box(mass, (side, side)) if is_cube else pymunk.moment_for_circle(mass, 0, radius)
        body = pymunk.Body(mass, moment)
        body.position, body.angle = position[n].tolist(), float(angle[n])
        body.velocity = velocity[n].tolist()
        footprint = pymunk.Poly.create_box(body, (side, side)) if is_cube else pymunk.Circle(body, radius)
        footprint.elasticity, footprint.friction = float(pieces.restitution[n]), float(pieces.friction[n])
        # joints whose force is limited act as friction of a table that is seen from above
        drag = pymunk.PivotJoint(table, body, (0, 0), (0, 0))
        drag.max_bias, drag.max_force = 0.0, float(pieces.friction[n]) * mass * gravity
        spin = pymunk.GearJoint(table, body, 0.0, 1.0)
        # the mean lever of a disc that turns on the spot
        spin.max_bias, spin.max_force = 0.0, drag.max_force * radius * 2 / 3
        space.add(body, footprint, drag, spin)
    return space


def stopping_distance(speed: float, friction: float, gravity: float) -> float:
    """How far a lone object slides, v² / 2µg; infinite without friction."""
    return speed**2 / (2 * friction * gravity) if friction * gravity > 0 else math.inf
