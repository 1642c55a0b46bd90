"""Light and colours: the table, shadows on it and on objects, and the looks of materials."""

import math

import numpy as np

from generators.scenes.sight import (
    ALONG,
    AMBIENT,
    AXES,
    BOUND,
    CENTRE,
    COLORS,
    EYE,
    FOCAL,
    GROUND,
    LIGHT,
    MATERIAL,
    NUM_LIGHTS,
    ORIGIN,
    RADIUS,
    RGB,
    SHAPE,
    SKY,
    TO_LIGHT,
    TURN,
    bounds,
    ground_depth,
    ray,
)
from generators.scenes.solids import SNITCH, is_blocked, normal
from slotssm.compilation import cached_njit

FADING = 45.0
"""Depth at which half of the ground's colour has faded into that of the sky."""


@cached_njit(error_model="numpy")
def ground_color(fact: np.ndarray, x: float, y: float, far: float, shadows: int) -> tuple[float, float, float]:
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
def as_byte(value: float) -> np.uint8:
    """The nearest colour value of a pixel."""
    return np.uint8(min(255.0, max(0.0, value)) + 0.5)


@cached_njit(error_model="numpy")
def draw_ground(base: np.ndarray, base_depth: np.ndarray, fact: np.ndarray) -> None:
    """Colour and depth of the ground without objects."""
    height, width = base_depth.shape
    for row in range(height):
        y = (row + 0.5 - height / 2) / fact[FOCAL]
        for column in range(width):
            x = (column + 0.5 - width / 2) / fact[FOCAL]
            far = ground_depth(fact, x, y)
            base_depth[row, column] = far
            red, green, blue = 255.0 * fact[SKY], 255.0 * fact[SKY + 1], 255.0 * fact[SKY + 2]
            if far > 0:
                vx, vy, _ = ray(fact, x, y)
                red, green, blue = ground_color(fact, fact[EYE] + far * vx, fact[EYE + 1] + far * vy, far, 0)
            base[row, column, 0], base[row, column, 1], base[row, column, 2] = (
                as_byte(red),
                as_byte(green),
                as_byte(blue),
            )


@cached_njit(error_model="numpy")
def shade_ground(shade: np.ndarray, masks: np.ndarray, solid: np.ndarray, fact: np.ndarray) -> None:
    """Mark the pixels of the ground that objects keep from the lights, one bit for each light."""
    height, width = masks.shape
    rect = np.empty(4, np.int64)
    for n in range(len(solid)):
        for k in range(int(fact[NUM_LIGHTS])):
            if fact[LIGHT + 4 * k + 2] <= 0:
                continue
            bounds(n, solid, rect, fact, k, height, width)
            for row in range(rect[0], rect[1]):
                y = (row + 0.5 - height / 2) / fact[FOCAL]
                for column in range(rect[2], rect[3]):
                    if masks[row, column] or (shade[row, column] >> k) & 1:
                        continue
                    x = (column + 0.5 - width / 2) / fact[FOCAL]
                    far = ground_depth(fact, x, y)
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
def draw_shadows(frames: np.ndarray, shade: np.ndarray, fact: np.ndarray) -> None:
    """Draw the marked pixels of the ground again, in shadow."""
    height, width = shade.shape
    for row in range(height):
        y = (row + 0.5 - height / 2) / fact[FOCAL]
        for column in range(width):
            if shade[row, column] == 0:
                continue
            x = (column + 0.5 - width / 2) / fact[FOCAL]
            far = ground_depth(fact, x, y)
            vx, vy, _ = ray(fact, x, y)
            shadows = int(shade[row, column])
            red, green, blue = ground_color(fact, fact[EYE] + far * vx, fact[EYE + 1] + far * vy, far, shadows)
            frames[row, column, 0], frames[row, column, 1] = as_byte(red), as_byte(green)
            frames[row, column, 2] = as_byte(blue)


@cached_njit(error_model="numpy")
def find_casters(casters: np.ndarray, solid: np.ndarray, fact: np.ndarray) -> None:
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
def is_blocked_at(m: int, k: int, solid: np.ndarray, fact: np.ndarray, px: float, py: float, pz: float) -> bool:
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


@cached_njit(error_model="numpy")
def solid_color(
    n: int, solid: np.ndarray, casters: np.ndarray, fact: np.ndarray, far: float, x: float, y: float
) -> tuple[float, float, float]:
    """Colour of an object at depth `far` on the ray through (x, y, 1) in the camera's frame, in [0, 255]."""
    vx, vy, vz = ray(fact, x, y)
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
            is_dark = is_blocked_at(casters[n, k, place], k, solid, fact, px, py, pz)
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
def draw_solids(
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
    """Colour and depth of every pixel with an object, and the number of pixels of each."""
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
                red, green, blue = solid_color(n, solid, casters, fact, far, x, y)
                frames[row, column, 0], frames[row, column, 1] = as_byte(red), as_byte(green)
                frames[row, column, 2] = as_byte(blue)
        visible[n] = count
