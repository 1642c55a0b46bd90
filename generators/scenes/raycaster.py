"""The ray caster: frames, masks and depth of a scene, one ray through the centre of every pixel.

Objects are tested only where their bounds project to, and cast shadows only on what lies in their way. The kernels
are serial, so they can be called in worker processes and after a fork, and use only operations that IEEE 754 defines
exactly, so that every machine makes the same pixels.

Kernels share two arrays of numbers instead of many small ones, since numba counts references to every array that it
touches: `facts` of the frame and a row of `solid` for each object, with the columns below.
"""

import math

import numpy as np

from generators.scenes.solids import SNITCH, bounding_radius, first_hit, half_box, is_blocked, normal
from generators.scenes.stage import Scene, matrices
from slotssm.compilation import cached_njit

FARTHEST = 200.0
"""Depth beyond which the ground is shown as sky, in world units."""
FADING = 45.0
"""Depth at which half of the ground's colour has faded into that of the sky."""
CONTRAST = 10
"""Difference between neighbouring pixels, of 255, above which they are drawn with more rays."""
NEAREST = 1e-3
"""Smallest depth of anything that is projected."""
MOST_LIGHTS = 2

# columns of `facts`: camera, lights (direction and power of each), ground
EYE, AXIS, FOCAL, NUM_LIGHTS, AMBIENT, LIGHT = 0, 3, 12, 13, 14, 15
GROUND, COLORS, ALONG, SKY = LIGHT + 4 * MOST_LIGHTS, LIGHT + 4 * MOST_LIGHTS + 1, 30, 32
NUM_FACTS = SKY + 3
# columns of `solid`; ORIGIN is the camera, AXES the rays and TO_LIGHT the lights in the object's own frame
SHAPE, RADIUS, BOUND, MATERIAL, RGB, CENTRE, TURN, ORIGIN, AXES, TO_LIGHT = 0, 1, 2, 3, 4, 7, 10, 19, 22, 31
NUM_COLUMNS = TO_LIGHT + 3 * MOST_LIGHTS


def render(scene: Scene, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Render every frame of a scene.

    Args:
        scene: T frames of N solids; cameras must be outside the solids and above the ground.
        height: H in pixels.
        width: W in pixels.

    Returns:
        frames uint8 [T, H, W, 3]; masks uint8 [T, H, W], 0 or 1 + the solid in front; depth float32 [T, H, W] along the
        camera's axis, 0 where there is only sky; visible uint16 [T, N], pixels of each solid in front; and unoccluded
        uint16 [T, N], pixels that it would have if nothing were in front.
    """
    solid, view = scene.solids, scene.view
    num_frames, num = solid.position.shape[:2]
    facts = np.zeros((num_frames, NUM_FACTS))
    facts[:, EYE:AXIS] = view.position
    facts[:, AXIS:FOCAL] = view.rotation.reshape(num_frames, 9)
    facts[:, FOCAL] = view.focal_px
    lights = np.concatenate([scene.lights.direction, scene.lights.power[:, None]], axis=1).ravel()
    facts[:, NUM_LIGHTS], facts[:, AMBIENT] = len(scene.lights.power), scene.lights.ambient
    facts[:, LIGHT : LIGHT + len(lights)] = lights
    facts[:, GROUND], facts[:, COLORS:ALONG] = scene.ground.kind, scene.ground.colors.ravel()
    facts[:, ALONG:SKY], facts[:, SKY:] = scene.ground.axis, scene.ground.sky
    solids = np.zeros((num_frames, num, NUM_COLUMNS))
    solids[..., SHAPE], solids[..., RADIUS], solids[..., MATERIAL] = solid.shape, solid.radius, solid.material
    solids[..., RGB:CENTRE], solids[..., CENTRE:TURN] = solid.rgb, solid.position
    solids[..., TURN:ORIGIN] = matrices(solid.quaternion).reshape(num_frames, num, 9)
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    masks = np.zeros((num_frames, height, width), np.uint8)
    depth = np.empty((num_frames, height, width), np.float32)
    visible, unoccluded = np.zeros((num_frames, num), np.uint16), np.zeros((num_frames, num), np.uint16)
    _render(frames, masks, depth, visible, unoccluded, facts, solids, scene.samples_per_side)
    return frames, masks, depth, visible, unoccluded


@cached_njit(error_model="numpy")
def _render(
    frames: np.ndarray,
    masks: np.ndarray,
    depth: np.ndarray,
    visible: np.ndarray,
    unoccluded: np.ndarray,
    facts: np.ndarray,
    solids: np.ndarray,
    samples: int,
) -> None:
    num_frames, height, width = masks.shape
    num = solids.shape[1]
    base = np.empty((height, width, 3), np.uint8)
    base_depth = np.empty((height, width), np.float32)
    nearest = np.empty((height, width))
    shade = np.zeros((height, width), np.uint8)
    rect = np.empty((num, 4), np.int64)
    casters = np.empty((num, MOST_LIGHTS, num + 1), np.int64)
    for t in range(num_frames):
        fact, solid = facts[t], solids[t]
        is_new = t == 0
        for i in range(NUM_LIGHTS):
            is_new |= facts[t, i] != facts[t - 1, i]
        if is_new:
            _draw_ground(base, base_depth, fact)
        _clear(frames[t], depth[t], nearest, shade, base, base_depth)
        _see(solid, rect, fact, height, width)
        _draw_masks(masks[t], nearest, unoccluded[t], solid, rect, fact)
        _shade_ground(shade, masks[t], solid, fact)
        _draw_shadows(frames[t], shade, fact)
        _find_casters(casters, solid, fact)
        _draw_solids(frames[t], masks[t], depth[t], visible[t], nearest, solid, rect, casters, fact)
        if samples > 1:
            _refine(frames[t], samples, solid, rect, casters, fact)


# --- what the camera sees of the ground -------------------------------------------------------------------


@cached_njit(error_model="numpy")
def _ray(fact: np.ndarray, x: float, y: float) -> tuple[float, float, float]:
    """The ray through (x, y, 1) in the camera's frame, in the world: its points have their length as depth."""
    return (
        fact[AXIS] * x + fact[AXIS + 1] * y + fact[AXIS + 2],
        fact[AXIS + 3] * x + fact[AXIS + 4] * y + fact[AXIS + 5],
        fact[AXIS + 6] * x + fact[AXIS + 7] * y + fact[AXIS + 8],
    )


@cached_njit(error_model="numpy")
def _ground_depth(fact: np.ndarray, x: float, y: float) -> float:
    """Depth of the ground on the ray through (x, y, 1) in the camera's frame; 0 if it is sky."""
    fall = fact[AXIS + 6] * x + fact[AXIS + 7] * y + fact[AXIS + 8]
    if fall >= 0:
        return 0.0
    far = -fact[EYE + 2] / fall
    return far if far < FARTHEST else 0.0


@cached_njit(error_model="numpy")
def _ground_color(fact: np.ndarray, x: float, y: float, far: float, shadows: int) -> tuple[float, float, float]:
    """Colour of the ground at (x, y) in the shadows of some lights, a bit for each; three numbers in [0, 255]."""
    light = fact[AMBIENT]
    for k in range(int(fact[NUM_LIGHTS])):
        if not (shadows >> k) & 1:
            light += fact[LIGHT + 4 * k + 3] * max(0.0, fact[LIGHT + 4 * k + 2])
    value = 0.0
    if fact[GROUND] == 1:
        value = min(1.0, max(0.0, 0.5 + x * fact[ALONG] + y * fact[ALONG + 1]))
    elif fact[GROUND] == 2:
        u, v = x * fact[ALONG] + y * fact[ALONG + 1], y * fact[ALONG] - x * fact[ALONG + 1]
        value = (math.floor(u) + math.floor(v)) % 2
    near = 255.0 / (1.0 + (far / FADING) * (far / FADING))
    light, rest = light * near, 255.0 - near
    c = fact[COLORS] + (fact[COLORS + 3] - fact[COLORS]) * value
    d = fact[COLORS + 1] + (fact[COLORS + 4] - fact[COLORS + 1]) * value
    e = fact[COLORS + 2] + (fact[COLORS + 5] - fact[COLORS + 2]) * value
    return light * c + rest * fact[SKY], light * d + rest * fact[SKY + 1], light * e + rest * fact[SKY + 2]


@cached_njit(error_model="numpy")
def _byte(value: float) -> np.uint8:
    return np.uint8(min(255.0, max(0.0, value)) + 0.5)


@cached_njit(error_model="numpy")
def _draw_ground(base: np.ndarray, base_depth: np.ndarray, fact: np.ndarray) -> None:
    height, width = base_depth.shape
    for row in range(height):
        y = (row + 0.5 - height / 2) / fact[FOCAL]
        for column in range(width):
            x = (column + 0.5 - width / 2) / fact[FOCAL]
            far = _ground_depth(fact, x, y)
            base_depth[row, column] = far
            red, green, blue = 255.0 * fact[SKY], 255.0 * fact[SKY + 1], 255.0 * fact[SKY + 2]
            if far > 0:
                vx, vy, _ = _ray(fact, x, y)
                red, green, blue = _ground_color(fact, fact[EYE] + far * vx, fact[EYE + 1] + far * vy, far, 0)
            base[row, column, 0], base[row, column, 1], base[row, column, 2] = _byte(red), _byte(green), _byte(blue)


@cached_njit(error_model="numpy")
def _clear(
    frames: np.ndarray,
    depth: np.ndarray,
    nearest: np.ndarray,
    shade: np.ndarray,
    base: np.ndarray,
    base_depth: np.ndarray,
) -> None:
    """A frame of ground alone; loops compile in a fraction of the time of array assignments."""
    height, width = depth.shape
    for row in range(height):
        for column in range(width):
            depth[row, column], nearest[row, column] = base_depth[row, column], np.inf
            shade[row, column] = 0
            for c in range(3):
                frames[row, column, c] = base[row, column, c]


# --- which object is in front -----------------------------------------------------------------------------


@cached_njit(error_model="numpy")
def _see(solid: np.ndarray, rect: np.ndarray, fact: np.ndarray, height: int, width: int) -> None:
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
        _bounds(n, solid, rect[n], fact, -1, height, width)


@cached_njit(error_model="numpy")
def _bounds(n: int, solid: np.ndarray, rect: np.ndarray, fact: np.ndarray, light: int, height: int, width: int) -> None:
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
def _hit(n: int, solid: np.ndarray, x: float, y: float) -> float:
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
def _draw_masks(
    masks: np.ndarray,
    nearest: np.ndarray,
    unoccluded: np.ndarray,
    solid: np.ndarray,
    rect: np.ndarray,
    fact: np.ndarray,
) -> None:
    height, width = masks.shape
    for n in range(len(solid)):
        count = 0
        for row in range(rect[n, 0], rect[n, 1]):
            y = (row + 0.5 - height / 2) / fact[FOCAL]
            for column in range(rect[n, 2], rect[n, 3]):
                far = _hit(n, solid, (column + 0.5 - width / 2) / fact[FOCAL], y)
                if far < np.inf:
                    count += 1
                    if far < nearest[row, column]:
                        nearest[row, column] = far
                        masks[row, column] = n + 1
        unoccluded[n] = count


# --- shadows ----------------------------------------------------------------------------------------------


@cached_njit(error_model="numpy")
def _shade_ground(shade: np.ndarray, masks: np.ndarray, solid: np.ndarray, fact: np.ndarray) -> None:
    """Mark the pixels of the ground that objects keep from the lights, one bit for each light."""
    height, width = masks.shape
    rect = np.empty(4, np.int64)
    for n in range(len(solid)):
        for k in range(int(fact[NUM_LIGHTS])):
            if fact[LIGHT + 4 * k + 2] <= 0:
                continue
            _bounds(n, solid, rect, fact, k, height, width)
            for row in range(rect[0], rect[1]):
                y = (row + 0.5 - height / 2) / fact[FOCAL]
                for column in range(rect[2], rect[3]):
                    if masks[row, column] or (shade[row, column] >> k) & 1:
                        continue
                    x = (column + 0.5 - width / 2) / fact[FOCAL]
                    far = _ground_depth(fact, x, y)
                    if far > 0 and _shadows_ground(n, k, solid, far, x, y):
                        shade[row, column] |= np.uint8(1 << k)


@cached_njit(error_model="numpy")
def _shadows_ground(n: int, k: int, solid: np.ndarray, far: float, x: float, y: float) -> bool:
    """Whether an object keeps light k from the ground at depth `far` on the ray through (x, y, 1)."""
    return is_blocked(
        int(solid[n, SHAPE]),
        solid[n, RADIUS],
        solid[n, ORIGIN] + far * (solid[n, AXES] * x + solid[n, AXES + 1] * y + solid[n, AXES + 2]),
        solid[n, ORIGIN + 1] + far * (solid[n, AXES + 3] * x + solid[n, AXES + 4] * y + solid[n, AXES + 5]),
        solid[n, ORIGIN + 2] + far * (solid[n, AXES + 6] * x + solid[n, AXES + 7] * y + solid[n, AXES + 8]),
        solid[n, TO_LIGHT + 3 * k],
        solid[n, TO_LIGHT + 3 * k + 1],
        solid[n, TO_LIGHT + 3 * k + 2],
    )


@cached_njit(error_model="numpy")
def _draw_shadows(frames: np.ndarray, shade: np.ndarray, fact: np.ndarray) -> None:
    height, width = shade.shape
    for row in range(height):
        y = (row + 0.5 - height / 2) / fact[FOCAL]
        for column in range(width):
            if shade[row, column] == 0:
                continue
            x = (column + 0.5 - width / 2) / fact[FOCAL]
            far = _ground_depth(fact, x, y)
            vx, vy, _ = _ray(fact, x, y)
            shadows = int(shade[row, column])
            red, green, blue = _ground_color(fact, fact[EYE] + far * vx, fact[EYE + 1] + far * vy, far, shadows)
            frames[row, column, 0], frames[row, column, 1] = _byte(red), _byte(green)
            frames[row, column, 2] = _byte(blue)


@cached_njit(error_model="numpy")
def _find_casters(casters: np.ndarray, solid: np.ndarray, fact: np.ndarray) -> None:
    """For every object and light, the objects that may stand between them; -1 ends the list.

    The snitch is not convex, so it may stand in its own light.
    """
    num = len(solid)
    for n in range(num):
        for k in range(int(fact[NUM_LIGHTS])):
            d, count = LIGHT + 4 * k, 0
            for m in range(num):
                reach = solid[n, BOUND] + solid[m, BOUND]
                wx, wy = solid[m, CENTRE] - solid[n, CENTRE], solid[m, CENTRE + 1] - solid[n, CENTRE + 1]
                wz = solid[m, CENTRE + 2] - solid[n, CENTRE + 2]
                along = wx * fact[d] + wy * fact[d + 1] + wz * fact[d + 2]
                is_near = wx * wx + wy * wy + wz * wz - along * along < reach * reach
                if along > -reach and is_near and (m != n or solid[n, SHAPE] == SNITCH):
                    casters[n, k, count] = m
                    count += 1
            casters[n, k, count] = -1


@cached_njit(error_model="numpy")
def _is_blocked_at(m: int, k: int, solid: np.ndarray, fact: np.ndarray, px: float, py: float, pz: float) -> bool:
    """Whether object m stands between a point of the world and light k."""
    wx, wy, wz = px - solid[m, CENTRE], py - solid[m, CENTRE + 1], pz - solid[m, CENTRE + 2]
    along = wx * fact[LIGHT + 4 * k] + wy * fact[LIGHT + 4 * k + 1] + wz * fact[LIGHT + 4 * k + 2]
    bound = solid[m, BOUND]
    if wx * wx + wy * wy + wz * wz - along * along >= bound * bound or along > bound:
        return False
    return is_blocked(
        int(solid[m, SHAPE]),
        solid[m, RADIUS],
        solid[m, TURN] * wx + solid[m, TURN + 3] * wy + solid[m, TURN + 6] * wz,
        solid[m, TURN + 1] * wx + solid[m, TURN + 4] * wy + solid[m, TURN + 7] * wz,
        solid[m, TURN + 2] * wx + solid[m, TURN + 5] * wy + solid[m, TURN + 8] * wz,
        solid[m, TO_LIGHT + 3 * k],
        solid[m, TO_LIGHT + 3 * k + 1],
        solid[m, TO_LIGHT + 3 * k + 2],
    )


# --- colours ----------------------------------------------------------------------------------------------


@cached_njit(error_model="numpy")
def _solid_color(
    n: int, solid: np.ndarray, casters: np.ndarray, fact: np.ndarray, far: float, x: float, y: float
) -> tuple[float, float, float]:
    """Colour of an object at depth `far` on the ray through (x, y, 1) in the camera's frame, in [0, 255]."""
    vx, vy, vz = _ray(fact, x, y)
    px, py, pz = fact[EYE] + far * vx, fact[EYE + 1] + far * vy, fact[EYE + 2] + far * vz
    lx, ly, lz = normal(
        int(solid[n, SHAPE]),
        solid[n, RADIUS],
        solid[n, ORIGIN] + far * (solid[n, AXES] * x + solid[n, AXES + 1] * y + solid[n, AXES + 2]),
        solid[n, ORIGIN + 1] + far * (solid[n, AXES + 3] * x + solid[n, AXES + 4] * y + solid[n, AXES + 5]),
        solid[n, ORIGIN + 2] + far * (solid[n, AXES + 6] * x + solid[n, AXES + 7] * y + solid[n, AXES + 8]),
    )
    nx = solid[n, TURN] * lx + solid[n, TURN + 1] * ly + solid[n, TURN + 2] * lz
    ny = solid[n, TURN + 3] * lx + solid[n, TURN + 4] * ly + solid[n, TURN + 5] * lz
    nz = solid[n, TURN + 6] * lx + solid[n, TURN + 7] * ly + solid[n, TURN + 8] * lz
    length = 1.0 / math.sqrt(vx * vx + vy * vy + vz * vz)
    vx, vy, vz = vx * length, vy * length, vz * length
    is_metal = solid[n, MATERIAL] == 1
    diffuse, gloss = 0.0, 0.0
    for k in range(int(fact[NUM_LIGHTS])):
        dx, dy, dz = fact[LIGHT + 4 * k], fact[LIGHT + 4 * k + 1], fact[LIGHT + 4 * k + 2]
        facing = nx * dx + ny * dy + nz * dz
        if facing <= 0:
            continue
        place, is_dark = 0, False
        while casters[n, k, place] >= 0 and not is_dark:
            is_dark = _is_blocked_at(casters[n, k, place], k, solid, fact, px, py, pz)
            place += 1
        if is_dark:
            continue
        power = fact[LIGHT + 4 * k + 3]
        diffuse += power * facing
        hx, hy, hz = dx - vx, dy - vy, dz - vz
        # powers of the cosine to the half vector: 16 for rubber, 128 for metal
        shine = (nx * hx + ny * hy + nz * hz) / math.sqrt(hx * hx + hy * hy + hz * hz)
        for _ in range(7 if is_metal else 4):
            shine *= shine
        gloss += power * (0.9 if is_metal else 0.07) * shine
    surrounding = fact[AMBIENT] * (0.62 + 0.38 * nz)
    red, green, blue = solid[n, RGB], solid[n, RGB + 1], solid[n, RGB + 2]
    if not is_metal:
        light, gloss = 255.0 * (surrounding + diffuse), 255.0 * gloss
        return red * light + gloss, green * light + gloss, blue * light + gloss
    # a metal mirrors the ground below the horizon and a bright ceiling above it, in its own colour
    cos = vx * nx + vy * ny + vz * nz
    ceiling = min(1.0, max(0.0, 0.5 + 2.2 * (vz - 2.0 * cos * nz)))
    light = 255.0 * (0.45 * surrounding + 0.55 * diffuse)
    gloss = 255.0 * (gloss + 0.15 * (1 + cos) * (1 + cos) * (1 + cos))
    above, below = 107.0 * ceiling, 56.0 * (1 - ceiling)
    red = red * light + (0.3 + 0.7 * red) * (above + below * fact[COLORS]) + gloss
    green = green * light + (0.3 + 0.7 * green) * (above + below * fact[COLORS + 1]) + gloss
    blue = blue * light + (0.3 + 0.7 * blue) * (above + below * fact[COLORS + 2]) + gloss
    return red, green, blue


@cached_njit(error_model="numpy")
def _draw_solids(
    frames: np.ndarray,
    masks: np.ndarray,
    depth: np.ndarray,
    visible: np.ndarray,
    nearest: np.ndarray,
    solid: np.ndarray,
    rect: np.ndarray,
    casters: np.ndarray,
    fact: np.ndarray,
) -> None:
    height, width = masks.shape
    for n in range(len(solid)):
        count = 0
        for row in range(rect[n, 0], rect[n, 1]):
            y = (row + 0.5 - height / 2) / fact[FOCAL]
            for column in range(rect[n, 2], rect[n, 3]):
                if masks[row, column] != n + 1:
                    continue
                count += 1
                x, far = (column + 0.5 - width / 2) / fact[FOCAL], nearest[row, column]
                depth[row, column] = far
                red, green, blue = _solid_color(n, solid, casters, fact, far, x, y)
                frames[row, column, 0], frames[row, column, 1] = _byte(red), _byte(green)
                frames[row, column, 2] = _byte(blue)
        visible[n] = count


# --- more rays where colours change -----------------------------------------------------------------------


@cached_njit(error_model="numpy")
def _refine(
    frames: np.ndarray, samples: int, solid: np.ndarray, rect: np.ndarray, casters: np.ndarray, fact: np.ndarray
) -> None:
    """Draw the pixels that differ from a neighbour again, as the mean of a grid of rays."""
    height, width = frames.shape[:2]
    single = np.empty_like(frames)
    for row in range(height):
        for column in range(width):
            for c in range(3):
                single[row, column, c] = frames[row, column, c]
    share = 1.0 / (samples * samples)
    for row in range(height):
        for column in range(width):
            if not _has_contrast(single, row, column):
                continue
            red, green, blue = 0.0, 0.0, 0.0
            for sample in range(samples * samples):
                v = row + (sample // samples + 0.5) / samples
                u = column + (sample % samples + 0.5) / samples
                r, g, b = _trace(u, v, height, width, solid, rect, casters, fact)
                # an overexposed ray must not outshine the others
                red, green, blue = red + min(255.0, r), green + min(255.0, g), blue + min(255.0, b)
            frames[row, column, 0], frames[row, column, 1] = _byte(share * red), _byte(share * green)
            frames[row, column, 2] = _byte(share * blue)


@cached_njit(error_model="numpy")
def _has_contrast(frames: np.ndarray, row: int, column: int) -> bool:
    height, width = frames.shape[:2]
    for i in range(max(0, row - 1), min(height, row + 2)):
        for j in range(max(0, column - 1), min(width, column + 2)):
            for c in range(3):
                if abs(int(frames[row, column, c]) - int(frames[i, j, c])) > CONTRAST:
                    return True
    return False


@cached_njit(error_model="numpy")
def _trace(
    u: float,
    v: float,
    height: int,
    width: int,
    solid: np.ndarray,
    rect: np.ndarray,
    casters: np.ndarray,
    fact: np.ndarray,
) -> tuple[float, float, float]:
    """Colour on one ray through the point (u, v) of the frame, in pixels."""
    x, y = (u - width / 2) / fact[FOCAL], (v - height / 2) / fact[FOCAL]
    found, far = -1, np.inf
    for n in range(len(solid)):
        # one pixel wider, since rays may pass beside the centres of pixels
        if rect[n, 0] - 1 <= v <= rect[n, 1] + 1 and rect[n, 2] - 1 <= u <= rect[n, 3] + 1:
            hit = _hit(n, solid, x, y)
            if hit < far:
                found, far = n, hit
    if found >= 0:
        return _solid_color(found, solid, casters, fact, far, x, y)
    far = _ground_depth(fact, x, y)
    if far == 0.0:
        return 255.0 * fact[SKY], 255.0 * fact[SKY + 1], 255.0 * fact[SKY + 2]
    vx, vy, _ = _ray(fact, x, y)
    px, py, shadows = fact[EYE] + far * vx, fact[EYE + 1] + far * vy, 0
    for k in range(int(fact[NUM_LIGHTS])):
        for m in range(len(solid)):
            if _is_blocked_at(m, k, solid, fact, px, py, 0.0):
                shadows |= 1 << k
                break
    return _ground_color(fact, px, py, far, shadows)
