"""Patterns of objects and backgrounds, and the resulting pixel colours.

A pattern is a function of the plane with values from 0 to 1, sampled at pixel centres. The kernel is serial, so it can
be called in worker processes and after a fork.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from generators.bouncing_recipe import TextureName
from slotssm.compilation import cached_njit

TEXTURES: tuple[str, ...] = get_args(TextureName)
"""Names of patterns; their order is the code."""
PERIODS = {"plain": (1.0, 1.0), "gradient": (1.5, 2.5), "stripes": (1 / 3, 1 / 2), "checker": (1 / 2, 3 / 4)}
PERIODS["noise"] = (1 / 4, 3 / 8)
"""Range of a pattern's period relative to the extent that it covers; for noise, of its lattice spacing."""
NUM_CELLS = 16
"""Period of the noise in lattice cells."""
DARKENING = 0.5
"""Largest fraction by which a texture darkens an object."""
DARK, LIGHTER = (0.0, 40.0), (60.0, 110.0)
"""Ranges of the channels of a background's two colours: below half of 255, which every object exceeds in a channel."""


@dataclass(frozen=True)
class Patterns:
    """One pattern for each of P surfaces.

    Attributes:
        kind: int64 [P], indices into `TEXTURES`.
        axis: float64 [P, 2], the direction across the pattern, one period long in reciprocal pixels.
        phase: float64 [P, 2], in periods.
        lattice: float64 [P, `NUM_CELLS`, `NUM_CELLS`], values of noise in [0, 1).
    """

    kind: np.ndarray
    axis: np.ndarray
    phase: np.ndarray
    lattice: np.ndarray


def draw_patterns(rng: np.random.Generator, names: Sequence[str], extent_px: np.ndarray) -> Patterns:
    """Draw patterns of uniform kind, direction, phase and period.

    Args:
        rng: source of randomness.
        names: kinds to draw from.
        extent_px: [P] extents that `PERIODS` are relative to.
    """
    num = len(extent_px)
    kind = np.array([TEXTURES.index(name) for name in names])[rng.integers(len(names), size=num)]
    low, high = np.array([PERIODS[name] for name in TEXTURES])[kind].T
    period = extent_px * (low + (high - low) * rng.random(num))
    angle = rng.uniform(0, 2 * math.pi, num)
    axis = np.stack([np.cos(angle), np.sin(angle)], axis=-1) / period[:, None]
    phase = rng.uniform(0, NUM_CELLS, (num, 2))
    return Patterns(kind, axis, phase, rng.random((num, NUM_CELLS, NUM_CELLS)))


def draw_background(rng: np.random.Generator, names: Sequence[str], size_px: int) -> tuple[Patterns, np.ndarray]:
    """Draw a background's pattern (P = 1) and its two colours, float64 [2, 3]; they are black for `plain`."""
    pattern = draw_patterns(rng, names, np.array([size_px / 2]))
    colors = np.stack([rng.uniform(*DARK, 3), rng.uniform(*LIGHTER, 3)])
    return pattern, colors * (pattern.kind[0] != TEXTURES.index("plain"))


def shade(
    masks: np.ndarray,
    position: np.ndarray,
    color: np.ndarray,
    textures: Patterns,
    background: Patterns,
    background_colors: np.ndarray,
    camera: np.ndarray,
    light: np.ndarray,
) -> np.ndarray:
    """Colour the pixels of masks: objects darkened by their textures, the background between its two colours.

    Args:
        masks: uint8 [T, H, W], 0 or 1 + object index.
        position: [T, N, 2] centres of the objects, with which their textures move.
        color: uint8 [N, 3].
        textures: of the N objects.
        background: one pattern, at rest in the world.
        background_colors: [2, 3] where the pattern is 0 and 1.
        camera: [T, 2] position of the frame's corner in the world.
        light: [T, 3], remaining fraction of red, green and blue.

    Returns:
        frames uint8 [T, H, W, 3].
    """
    frames = np.empty((*masks.shape, 3), np.uint8)
    objects = (textures.kind, textures.axis, textures.phase, textures.lattice)
    behind = (background.kind[0], background.axis[0], background.phase[0], background.lattice[0])
    _shade(frames, masks, position, color.astype(np.float64), objects, behind, background_colors, camera, light)
    return frames


@cached_njit()
def _shade(
    frames: np.ndarray,
    masks: np.ndarray,
    position: np.ndarray,
    color: np.ndarray,
    objects: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    behind: tuple[int, np.ndarray, np.ndarray, np.ndarray],
    background_colors: np.ndarray,
    camera: np.ndarray,
    light: np.ndarray,
) -> None:
    kinds, axes, phases, lattices = objects
    kind, axis, phase, lattice = behind
    num_frames, height, width = masks.shape
    scenery = np.empty((height, width))
    for t in range(num_frames):
        # the background stays the same until the camera moves
        if t == 0 or camera[t, 0] != camera[t - 1, 0] or camera[t, 1] != camera[t - 1, 1]:
            for row in range(height):
                for column in range(width):
                    x, y = column + 0.5 + camera[t, 0], row + 0.5 + camera[t, 1]
                    scenery[row, column] = _value(kind, axis, phase, lattice, x, y)
        for row in range(height):
            for column in range(width):
                n = int(masks[t, row, column]) - 1
                if n < 0:
                    for c in range(3):
                        low, high = background_colors[0, c], background_colors[1, c]
                        seen = low + (high - low) * scenery[row, column]
                        frames[t, row, column, c] = int(seen * light[t, c] + 0.5)
                else:
                    dx, dy = column + 0.5 - position[t, n, 0], row + 0.5 - position[t, n, 1]
                    value = _value(kinds[n], axes[n], phases[n], lattices[n], dx, dy)
                    for c in range(3):
                        seen = color[n, c] * (1 - DARKENING * value)
                        frames[t, row, column, c] = int(seen * light[t, c] + 0.5)


@cached_njit()
def _value(kind: int, axis: np.ndarray, phase: np.ndarray, lattice: np.ndarray, x: float, y: float) -> float:
    """Value of a pattern at a point; kinds in the order of `TEXTURES`."""
    if kind == 0:
        return 0.0
    u = x * axis[0] + y * axis[1] + phase[0]
    if kind == 1:
        return _smooth(abs(2 * (u - math.floor(u)) - 1))
    if kind == 2:
        return float(math.floor(2 * u) % 2)
    v = y * axis[0] - x * axis[1] + phase[1]
    if kind == 3:
        return float((math.floor(2 * u) + math.floor(2 * v)) % 2)
    # smooth interpolation between the values at the four corners of the lattice's cell
    i, j = math.floor(u), math.floor(v)
    a, b = _smooth(u - i), _smooth(v - j)
    i0, j0, i1, j1 = i % NUM_CELLS, j % NUM_CELLS, (i + 1) % NUM_CELLS, (j + 1) % NUM_CELLS
    near = lattice[i0, j0] + (lattice[i1, j0] - lattice[i0, j0]) * a
    far = lattice[i0, j1] + (lattice[i1, j1] - lattice[i0, j1]) * a
    return near + (far - near) * b


@cached_njit()
def _smooth(share: float) -> float:
    """Smoothstep: from 0 to 1 with slope 0 at both ends."""
    return share * share * (3 - 2 * share)
