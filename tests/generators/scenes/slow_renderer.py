"""A slow renderer of masks and depth: every pixel against every surface of every object, from stored values alone.

A ray is intersected with each surface that bounds a solid (planes, spheres, cylinders, cones), and a meeting counts if
the point where it happens lies on the solid.
"""

import math

import numpy as np

EDGE = 1e-9
"""How far outside of a solid a point on its surface may be calculated to lie, in radii."""


def rays(rotation: np.ndarray, focal_px: float, height: int, width: int) -> np.ndarray:
    """Directions [H, W, 3] in the world of the rays through pixel centres, one unit long along the camera's axis."""
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    inside = np.stack(
        [(columns - width / 2) / focal_px, (rows - height / 2) / focal_px, np.ones((height, width))], axis=-1
    )
    return inside @ rotation.T


def matrix(quaternion: np.ndarray) -> np.ndarray:
    """Rotation by Rodrigues' formula: I + 2w·K + 2K² with K the cross product with (x, y, z)."""
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + 2 * w * cross + 2 * cross @ cross


def planes(shape: str, r: float) -> tuple[list[tuple[np.ndarray, float]], ...]:
    """Convex parts of a solid with flat faces, each a list of normals n and offsets d with n·p ≤ d."""
    a = r / math.sqrt(2)
    if shape == "cube":
        return ([(sign * axis, a) for axis in np.eye(3) for sign in (1, -1)],)
    corners = [np.array(corner, float) for corner in ((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1))]
    return [(corner, a) for corner in corners], [(-corner, a) for corner in corners]


def meetings(shape: str, r: float, origin: np.ndarray, way: np.ndarray) -> np.ndarray:
    """Smallest positive t at which origin + t·way [..., 3] is on a solid, infinite without one."""
    nearest = np.full(way.shape[:-1], np.inf)

    def offer(t: np.ndarray, is_on: object) -> None:
        nonlocal nearest
        with np.errstate(invalid="ignore", over="ignore"):
            points = origin + t[..., None] * way
            good = np.isfinite(t) & (t > 0) & is_on(points)
        nearest = np.where(good & (t < nearest), t, nearest)

    def roots(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> list[np.ndarray]:
        with np.errstate(invalid="ignore", divide="ignore"):
            root = np.sqrt(b * b - 4 * a * c)
            return [(-b - root) / (2 * a), (-b + root) / (2 * a)]

    def plane(normal: np.ndarray, offset: float) -> np.ndarray:
        with np.errstate(invalid="ignore", divide="ignore"):
            return (offset - normal @ origin) / (way @ normal)

    edge = EDGE * r
    if shape == "sphere":
        for t in roots((way**2).sum(-1), 2 * way @ origin, origin @ origin - r * r):
            offer(t, lambda points: np.ones(points.shape[:-1], bool))
    elif shape in ("cube", "snitch"):
        for part in planes(shape, r):
            for normal, offset in part:
                others = [(n, d) for n, d in part if n is not normal]
                offer(
                    plane(normal, offset),
                    lambda p, others=others: np.all([p @ n <= d + edge for n, d in others], axis=0),
                )
    else:
        up = np.array([0, 0, 1.0])
        slope = 0.0 if shape == "cylinder" else 0.5

        def across(points: np.ndarray) -> np.ndarray:
            return slope * (r - points[..., 2]) if slope else np.full(points.shape[:-1], r)

        for end in (-r, r):
            offer(plane(up, end), lambda p: np.hypot(p[..., 0], p[..., 1]) <= across(p) + edge)
        # x² + y² = (s + t·u)², where the radius is s + t·u along the ray
        s = slope * (r - origin[2]) if slope else r
        u = -slope * way[..., 2]
        sides = roots(
            way[..., 0] ** 2 + way[..., 1] ** 2 - u**2,
            2 * (way[..., 0] * origin[0] + way[..., 1] * origin[1] - s * u),
            origin[0] ** 2 + origin[1] ** 2 - s**2,
        )
        for t in sides:
            offer(t, lambda p: abs(p[..., 2]) <= r + edge)
    return nearest


def render_slowly(
    position: np.ndarray,
    rotation: np.ndarray,
    focal_px: float,
    shapes: list[str],
    radius: np.ndarray,
    places: np.ndarray,
    quaternions: np.ndarray,
    height: int,
    width: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masks, depth and unoccluded pixels of one frame, from float32 values as a file stores them.

    Returns:
        masks [H, W]; depth float64 [H, W], infinite where no ground is; whole [N, H, W], where each object alone is.
    """
    way = rays(rotation.astype(np.float64), float(focal_px), height, width)
    eye = position.astype(np.float64)
    with np.errstate(divide="ignore"):
        depth = np.where(way[..., 2] < 0, -eye[2] / way[..., 2], np.inf)
    masks = np.zeros((height, width), int)
    whole = np.zeros((len(shapes), height, width), bool)
    nearest = np.full((height, width), np.inf)
    for n, shape in enumerate(shapes):
        turn = matrix(quaternions[n].astype(np.float64))
        origin = turn.T @ (eye - places[n].astype(np.float64))
        found = meetings(shape, float(radius[n]), origin, way @ turn)
        whole[n] = np.isfinite(found)
        masks[found < nearest] = n + 1
        nearest = np.minimum(nearest, found)
    return masks, np.where(masks > 0, nearest, depth), whole
