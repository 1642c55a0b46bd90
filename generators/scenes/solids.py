"""Solids of a scene: where a ray meets them, their normals, and the space they take up.

Every solid is described by a shape and one radius r, that of the smallest upright cylinder around it, in a frame of its
own with the origin halfway up and z along its axis: a cube of side √2·r, a sphere of radius r, a cylinder and a cone of
radius r and height 2r, and the snitch, the union of two tetrahedra in the cube of side √2·r (a *stella octangula*, an
eight-pointed star that no other object resembles).
"""

import math

import numpy as np

from slotssm.compilation import cached_njit

SHAPES = ("cube", "sphere", "cylinder", "cone", "snitch")
"""Names of the shapes, in the order of CATER's categories; their order is the shape code."""
CUBE, SPHERE, CYLINDER, CONE, SNITCH = range(len(SHAPES))
HALF_SIDE = math.sqrt(0.5)
"""Half the side of a cube, or of the cube around the snitch, in radii."""
LEAVING = 1e-6
"""Distance, in lengths of the ray's direction, by which a ray from a surface must run inside a solid to be blocked."""

_MISS = (np.inf, -np.inf)


def half_height(shape: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Half the height of upright solids, [N]."""
    return np.where((shape == CUBE) | (shape == SNITCH), HALF_SIDE * radius, radius)


def volume(shape: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Volumes of solids [N], in cubic units of their radii."""
    cube = (2 * HALF_SIDE) ** 3
    # the star fills half of its cube
    of_unit = np.array([cube, 4 / 3 * math.pi, 2 * math.pi, 2 / 3 * math.pi, cube / 2])
    return of_unit[shape] * radius**3


@cached_njit(error_model="numpy")
def half_box(shape: int, r: float) -> tuple[float, float]:
    """Half the extent of a solid's box in its own frame: across, and along its axis."""
    if shape in (CUBE, SNITCH):
        return HALF_SIDE * r, HALF_SIDE * r
    return r, r


@cached_njit(error_model="numpy")
def bounding_radius(shape: int, r: float) -> float:
    """Radius of the sphere around a solid, about its origin."""
    if shape == SPHERE:
        return r
    if shape in (CUBE, SNITCH):
        return math.sqrt(3.0) * HALF_SIDE * r
    return math.sqrt(2.0) * r


@cached_njit(error_model="numpy")
def first_hit(shape: int, r: float, ox: float, oy: float, oz: float, dx: float, dy: float, dz: float) -> float:
    """Where a ray o + t·d from outside enters a solid, in the solid's frame: the smallest t > 0, or infinity."""
    if shape == SNITCH:
        a = HALF_SIDE * r
        near, far = _tetrahedron(1.0, a, ox, oy, oz, dx, dy, dz)
        first = near if near <= far and near > 0 else np.inf
        near, far = _tetrahedron(-1.0, a, ox, oy, oz, dx, dy, dz)
        return min(first, near) if near <= far and near > 0 else first
    near, far = _interval(shape, r, ox, oy, oz, dx, dy, dz)
    return near if near <= far and near > 0 else np.inf


@cached_njit(error_model="numpy")
def is_blocked(shape: int, r: float, ox: float, oy: float, oz: float, dx: float, dy: float, dz: float) -> bool:
    """Whether a ray that starts at o, on or outside of surfaces, runs through a solid."""
    if shape == SNITCH:
        a = HALF_SIDE * r
        near, far = _tetrahedron(1.0, a, ox, oy, oz, dx, dy, dz)
        if near < far and far > LEAVING:
            return True
        near, far = _tetrahedron(-1.0, a, ox, oy, oz, dx, dy, dz)
        return near < far and far > LEAVING
    near, far = _interval(shape, r, ox, oy, oz, dx, dy, dz)
    return near < far and far > LEAVING


@cached_njit(error_model="numpy")
def normal(shape: int, r: float, x: float, y: float, z: float) -> tuple[float, float, float]:
    """Outward unit normal at a point of a solid's surface, in the solid's frame."""
    if shape == SPHERE:
        return x / r, y / r, z / r
    if shape == CUBE:
        ax, ay, az = abs(x), abs(y), abs(z)
        if ax >= ay and ax >= az:
            return math.copysign(1.0, x), 0.0, 0.0
        if ay >= az:
            return 0.0, math.copysign(1.0, y), 0.0
        return 0.0, 0.0, math.copysign(1.0, z)
    if shape == CYLINDER:
        across = math.sqrt(x * x + y * y)
        if abs(z) >= across:
            return 0.0, 0.0, math.copysign(1.0, z)
        return x / across, y / across, 0.0
    if shape == CONE:
        across = math.sqrt(x * x + y * y)
        # the side is at across = (r - z) / 2, with the normal (2, 1) / √5; the base at z = -r
        if z + r <= abs(across - 0.5 * (r - z)) or across == 0.0:
            return 0.0, 0.0, -1.0 if z < 0 else 1.0
        side = 2.0 / math.sqrt(5.0)
        return side * x / across, side * y / across, 0.5 * side
    return _star_normal(HALF_SIDE * r, x, y, z)


@cached_njit(error_model="numpy")
def _interval(
    shape: int, r: float, ox: float, oy: float, oz: float, dx: float, dy: float, dz: float
) -> tuple[float, float]:
    """First and last t of a ray inside a convex solid; the first is larger if there are none."""
    if shape == SPHERE:
        a, b, c = dx * dx + dy * dy + dz * dz, ox * dx + oy * dy + oz * dz, ox * ox + oy * oy + oz * oz - r * r
        root = b * b - a * c
        if root < 0:
            return _MISS
        root = math.sqrt(root)
        return (-b - root) / a, (root - b) / a
    if shape == CUBE:
        half = HALF_SIDE * r
        near, far = _slab(ox, dx, half)
        low, high = _slab(oy, dy, half)
        near, far = max(near, low), min(far, high)
        low, high = _slab(oz, dz, half)
        return max(near, low), min(far, high)
    near, far = _slab(oz, dz, r)
    if near > far:
        return _MISS
    if shape == CYLINDER:
        low, high = _roots(dx * dx + dy * dy, ox * dx + oy * dy, ox * ox + oy * oy - r * r)
        return max(near, low), min(far, high)
    return _cone(r, near, far, ox, oy, oz, dx, dy, dz)


@cached_njit(error_model="numpy")
def _cone(
    r: float, near: float, far: float, ox: float, oy: float, oz: float, dx: float, dy: float, dz: float
) -> tuple[float, float]:
    """A ray within the cone x² + y² = (r - z)²/4, whose part between `near` and `far` lies between base and apex."""
    gap = 0.5 * (r - oz)
    fall = -0.5 * dz
    a, b, c = dx * dx + dy * dy - fall * fall, ox * dx + oy * dy - gap * fall, ox * ox + oy * oy - gap * gap
    if a > 0:
        low, high = _roots(a, b, c)
        return max(near, low), min(far, high)
    # steeper than the side: outside only between the roots, beyond which lies the mirrored cone above the apex
    root = math.sqrt(max(0.0, b * b - a * c))
    if fall > 0:
        return max(near, (-b - root) / a if a < 0 else -0.5 * c / b), far
    return near, min(far, (root - b) / a if a < 0 else -0.5 * c / b)


@cached_njit(error_model="numpy")
def _slab(o: float, d: float, half: float) -> tuple[float, float]:
    """The part of a ray between two parallel planes."""
    if d == 0.0:
        return (-np.inf, np.inf) if abs(o) <= half else _MISS
    first, second = (-half - o) / d, (half - o) / d
    return (first, second) if first < second else (second, first)


@cached_njit(error_model="numpy")
def _roots(a: float, b: float, c: float) -> tuple[float, float]:
    """Where a·t² + 2b·t + c is not positive, for a ≥ 0."""
    if a == 0.0:
        return (-np.inf, np.inf) if c <= 0 else _MISS
    root = b * b - a * c
    if root < 0:
        return _MISS
    root = math.sqrt(root)
    return (-b - root) / a, (root - b) / a


@cached_njit(error_model="numpy")
def _tetrahedron(
    sign: float, a: float, ox: float, oy: float, oz: float, dx: float, dy: float, dz: float
) -> tuple[float, float]:
    """The part of a ray inside one of the snitch's tetrahedra: sign·(±x ± y ± z) ≤ a with an even number of minuses."""
    near, far = -np.inf, np.inf
    for face in range(4):
        sx = -sign if face in (2, 3) else sign
        sy = -sign if face in (1, 3) else sign
        sz = -sign if face in (1, 2) else sign
        rate = sx * dx + sy * dy + sz * dz
        room = a - (sx * ox + sy * oy + sz * oz)
        if rate > 0:
            far = min(far, room / rate)
        elif rate < 0:
            near = max(near, room / rate)
        elif room < 0:
            return _MISS
    return near, far


@cached_njit(error_model="numpy")
def _star_normal(a: float, x: float, y: float, z: float) -> tuple[float, float, float]:
    """Normal of the tetrahedron whose surface a point is on: the point lies on one face and inside the three others."""
    best, nx, ny, nz = np.inf, 0.0, 0.0, 1.0
    for code in range(2):
        sign = 1.0 - 2.0 * code
        most, mx, my, mz = -np.inf, 0.0, 0.0, 0.0
        for face in range(4):
            sx = -sign if face in (2, 3) else sign
            sy = -sign if face in (1, 3) else sign
            sz = -sign if face in (1, 2) else sign
            reach = sx * x + sy * y + sz * z
            if reach > most:
                most, mx, my, mz = reach, sx, sy, sz
        if abs(most - a) < best:
            best, nx, ny, nz = abs(most - a), mx, my, mz
    unit = 1.0 / math.sqrt(3.0)
    return unit * nx, unit * ny, unit * nz
