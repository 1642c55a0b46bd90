"""The ray caster: frames, masks and depth of a scene, one ray through the centre of every pixel.

Objects are tested only where their bounds project to, and cast shadows only on what lies in their way. The kernels
are serial, so they can be called in worker processes and after a fork, and use only operations that IEEE 754 defines
exactly, so that every machine makes the same pixels.
"""

import numpy as np

from generators.scenes.shading import (
    as_byte,
    draw_ground,
    draw_shadows,
    draw_solids,
    find_casters,
    ground_color,
    is_blocked_at,
    shade_ground,
    solid_color,
)
from generators.scenes.sight import (
    ALONG,
    AMBIENT,
    AXIS,
    CENTRE,
    COLORS,
    EYE,
    FOCAL,
    GROUND,
    LIGHT,
    MATERIAL,
    MOST_LIGHTS,
    NUM_COLUMNS,
    NUM_FACTS,
    NUM_LIGHTS,
    ORIGIN,
    RADIUS,
    RGB,
    SHAPE,
    SKY,
    TURN,
    draw_masks,
    ground_depth,
    hit_depth,
    ray,
    see,
)
from generators.scenes.stage import Scene, matrices
from slotssm.compilation import cached_njit

CONTRAST = 10
"""Difference between neighbouring pixels, of 255, above which they are drawn with more rays."""


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
            draw_ground(base, base_depth, fact)
        _clear(frames[t], depth[t], nearest, shade, base, base_depth)
        see(solid, rect, fact, height, width)
        draw_masks(masks[t], nearest, unoccluded[t], solid, rect, fact)
        shade_ground(shade, masks[t], solid, fact)
        draw_shadows(frames[t], shade, fact)
        find_casters(casters, solid, fact)
        draw_solids(frames[t], masks[t], depth[t], visible[t], nearest, solid, rect, casters, fact)
        if samples > 1:
            _refine(frames[t], samples, solid, rect, casters, fact)


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
            frames[row, column, 0], frames[row, column, 1] = as_byte(share * red), as_byte(share * green)
            frames[row, column, 2] = as_byte(share * blue)


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
            hit = hit_depth(n, solid, x, y)
            if hit < far:
                found, far = n, hit
    if found >= 0:
        return solid_color(found, solid, casters, fact, far, x, y)
    far = ground_depth(fact, x, y)
    if far == 0.0:
        return 255.0 * fact[SKY], 255.0 * fact[SKY + 1], 255.0 * fact[SKY + 2]
    vx, vy, _ = ray(fact, x, y)
    px, py, shadows = fact[EYE] + far * vx, fact[EYE + 1] + far * vy, 0
    for k in range(int(fact[NUM_LIGHTS])):
        for m in range(len(solid)):
            if is_blocked_at(m, k, solid, fact, px, py, 0.0):
                shadows |= 1 << k
                break
    return ground_color(fact, px, py, far, shadows)
