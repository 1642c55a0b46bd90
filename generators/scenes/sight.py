"""What a camera sees of a scene: rays, the table, and which object is in front.

Kernels share two arrays of numbers instead of many small ones, since numba counts references to every array that it
touches: `fact` of the frame and a row of `solid` for each object, with the columns below.
"""

import math

import numpy as np

from generators.scenes.solids import bounding_radius, first_hit, half_box
from slotssm.compilation import cached_njit

FARTHEST = 200.0
"""Depth beyond which the ground is shown as sky, in world units."""
NEAREST = 1e-3
"""Smallest depth of anything that is projected."""
MOST_LIGHTS = 2
"""Largest number of lights."""

# columns of `fact`: camera, lights (direction and power of each), ground
EYE, AXIS, FOCAL, NUM_LIGHTS, AMBIENT, LIGHT = 0, 3, 12, 13, 14, 15
GROUND, COLORS, ALONG, SKY = LIGHT + 4 * MOST_LIGHTS, LIGHT + 4 * MOST_LIGHTS + 1, 30, 32
NUM_FACTS = SKY + 3
# columns of `solid`; ORIGIN is the camera, AXES the rays and TO_LIGHT the lights in the object's own frame
SHAPE, RADIUS, BOUND, MATERIAL, RGB, CENTRE, TURN, ORIGIN, AXES, TO_LIGHT = 0, 1, 2, 3, 4, 7, 10, 19, 22, 31
NUM_COLUMNS = TO_LIGHT + 3 * MOST_LIGHTS


@cached_njit(error_model="numpy")
def ray(fact: np.ndarray, x: float, y: float) -> tuple[float, float, float]:
    """The ray through (x, y, 1) in the camera's frame, in the world: t times it leads to the point at depth t."""
    return (
        fact[AXIS] * x + fact[AXIS + 1] * y + fact[AXIS + 2],
        fact[AXIS + 3] * x + fact[AXIS + 4] * y + fact[AXIS + 5],
        fact[AXIS + 6] * x + fact[AXIS + 7] * y + fact[AXIS + 8],
    )


@cached_njit(error_model="numpy")
def ground_depth(fact: np.ndarray, x: float, y: float) -> float:
    """Depth of the ground on the ray through (x, y, 1) in the camera's frame; 0 if it is sky."""
    fall = fact[AXIS + 6] * x + fact[AXIS + 7] * y + fact[AXIS + 8]
    if fall >= 0:
        return 0.0
    far = -fact[EYE + 2] / fall
    return far if far < FARTHEST else 0.0


@cached_njit(error_model="numpy")
def see(solid: np.ndarray, rect: np.ndarray, fact: np.ndarray, height: int, width: int) -> None:
    """The camera, its rays and the lights in each object's own frame, and the pixels that the object may cover."""
    for n in range(len(solid)):
        solid[n, BOUND] = bounding_radius(int(solid[n, SHAPE]), solid[n, RADIUS])
        for i in range(3):
            a, b, c = solid[n, TURN + i], solid[n, TURN + 3 + i], solid[n, TURN + 6 + i]
            solid[n, ORIGIN + i] = (
                a * (fact[EYE] - solid[n, CENTRE])
                + b * (fact[EYE + 1] - solid[n, CENTRE + 1])
                + c * (fact[EYE + 2] - solid[n, CENTRE + 2])
            )
            for j in range(3):
                solid[n, AXES + 3 * i + j] = a * fact[AXIS + j] + b * fact[AXIS + 3 + j] + c * fact[AXIS + 6 + j]
            for k in range(int(fact[NUM_LIGHTS])):
                d = LIGHT + 4 * k
                solid[n, TO_LIGHT + 3 * k + i] = a * fact[d] + b * fact[d + 1] + c * fact[d + 2]
        bounds(n, solid, rect[n], fact, -1, height, width)


@cached_njit(error_model="numpy")
def bounds(n: int, solid: np.ndarray, rect: np.ndarray, fact: np.ndarray, light: int, height: int, width: int) -> None:
    """Rows and columns (first and last, exclusive) of an object's box, or with `light` >= 0 of the box's shadow."""
    across, along = half_box(int(solid[n, SHAPE]), solid[n, RADIUS])
    left, right, top, bottom = np.inf, -np.inf, np.inf, -np.inf
    for corner in range(8):
        lx = across if corner & 1 else -across
        ly = across if corner & 2 else -across
        lz = along if corner & 4 else -along
        px = solid[n, CENTRE] + solid[n, TURN] * lx + solid[n, TURN + 1] * ly + solid[n, TURN + 2] * lz
        py = solid[n, CENTRE + 1] + solid[n, TURN + 3] * lx + solid[n, TURN + 4] * ly + solid[n, TURN + 5] * lz
        pz = solid[n, CENTRE + 2] + solid[n, TURN + 6] * lx + solid[n, TURN + 7] * ly + solid[n, TURN + 8] * lz
        if light >= 0:
            d = LIGHT + 4 * light
            px, py, pz = px - fact[d] / fact[d + 2] * pz, py - fact[d + 1] / fact[d + 2] * pz, 0.0
        wx, wy, wz = px - fact[EYE], py - fact[EYE + 1], pz - fact[EYE + 2]
        z = fact[AXIS + 2] * wx + fact[AXIS + 5] * wy + fact[AXIS + 8] * wz
        if z < NEAREST:
            rect[0], rect[1], rect[2], rect[3] = 0, height, 0, width
            return
        u = fact[FOCAL] * (fact[AXIS] * wx + fact[AXIS + 3] * wy + fact[AXIS + 6] * wz) / z
        v = fact[FOCAL] * (fact[AXIS + 1] * wx + fact[AXIS + 4] * wy + fact[AXIS + 7] * wz) / z
        left, right, top, bottom = min(left, u), max(right, u), min(top, v), max(bottom, v)
    rect[0] = max(0, min(height, math.ceil(top + height / 2 - 0.5)))
    rect[1] = max(0, min(height, math.floor(bottom + height / 2 - 0.5) + 1))
    rect[2] = max(0, min(width, math.ceil(left + width / 2 - 0.5)))
    rect[3] = max(0, min(width, math.floor(right + width / 2 - 0.5) + 1))


@cached_njit(error_model="numpy")
def hit_depth(n: int, solid: np.ndarray, x: float, y: float) -> float:
    """Depth at which the ray through (x, y, 1) in the camera's frame enters an object."""
    return first_hit(
        int(solid[n, SHAPE]),
        solid[n, RADIUS],
        solid[n, ORIGIN],
        solid[n, ORIGIN + 1],
        solid[n, ORIGIN + 2],
        solid[n, AXES] * x + solid[n, AXES + 1] * y + solid[n, AXES + 2],
        solid[n, AXES + 3] * x + solid[n, AXES + 4] * y + solid[n, AXES + 5],
        solid[n, AXES + 6] * x + solid[n, AXES + 7] * y + solid[n, AXES + 8],
    )


@cached_njit(error_model="numpy")
def draw_masks(
    masks: np.ndarray,
    nearest: np.ndarray,
    unoccluded: np.ndarray,
    solid: np.ndarray,
    rect: np.ndarray,
    fact: np.ndarray,
) -> None:
    """Which object is in front in every pixel, how far away it is, and how many pixels each would have alone."""
    height, width = masks.shape
    for n in range(len(solid)):
        count = 0
        for row in range(rect[n, 0], rect[n, 1]):
            y = (row + 0.5 - height / 2) / fact[FOCAL]
            for column in range(rect[n, 2], rect[n, 3]):
                far = hit_depth(n, solid, (column + 0.5 - width / 2) / fact[FOCAL], y)
                if far < np.inf:
                    count += 1
                    if far < nearest[row, column]:
                        nearest[row, column] = far
                        masks[row, column] = n + 1
        unoccluded[n] = count
