"""Coloured pixels against patterns evaluated in plain numpy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from shape_oracle import margin

from generators.rasterizer import SHAPES, rasterize
from generators.textures import DARK, LIGHTER, PERIODS, TEXTURES, Patterns, draw_background, draw_patterns, shade

SIZE_PX = 40


def pattern(patterns: Patterns, index: int, dx: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """Values of one pattern at points, written for whole arrays."""
    turned = (dx + 1j * dy) * (patterns.axis[index] @ [1, -1j])
    u, v = turned.real + patterns.phase[index, 0], turned.imag + patterns.phase[index, 1]
    kind = TEXTURES[patterns.kind[index]]
    if kind == "plain":
        return np.zeros_like(u)
    if kind == "gradient":
        away = abs(2 * (u % 1) - 1)
        return 3 * away**2 - 2 * away**3
    if kind == "stripes":
        return (u % 1 >= 0.5).astype(float)
    if kind == "checker":
        return ((u % 1 >= 0.5) ^ (v % 1 >= 0.5)).astype(float)
    value = 0.0
    for i in range(2):
        for j in range(2):
            share = abs(1 - i - u % 1), abs(1 - j - v % 1)
            corner = np.floor([u + i, v + j]).astype(int) % 16
            value = value + np.prod([3 * s**2 - 2 * s**3 for s in share], axis=0) * patterns.lattice[index][*corner]
    return value


def scene(rng: np.random.Generator, num: int, names: tuple[str, ...]) -> tuple:
    """Masks of a frame with random objects, and everything that `shade` asks for besides."""
    position, radius = rng.uniform(0, SIZE_PX, (1, num, 2)), rng.uniform(3, 12, num)
    color = rng.choice([0, 128, 255], (num, 3)).astype(np.uint8)
    shape = rng.integers(len(SHAPES), size=num)
    _, masks, _ = rasterize(position, radius, shape, color[None], SIZE_PX)
    textures, background = draw_patterns(rng, names, 2 * radius), draw_background(rng, names, SIZE_PX)
    camera, light = rng.uniform(-30, 30, (1, 2)), rng.uniform(0.1, 1, (1, 3))
    return masks, position, color, textures, *background, camera, light


@pytest.mark.parametrize("name", TEXTURES)
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32))
def test_every_pixel_shows_the_pattern_at_its_centre(name: str, seed: int) -> None:
    masks, position, color, textures, background, colors, camera, light = scene(np.random.default_rng(seed), 4, (name,))
    frame = shade(masks, position, color, textures, background, colors, camera, light)[0]
    x, y = np.meshgrid(np.arange(SIZE_PX) + 0.5, np.arange(SIZE_PX) + 0.5)
    value = pattern(background, 0, x + camera[0, 0], y + camera[0, 1])[..., None]
    seen = colors[0] * (1 - value) + colors[1] * value
    for n in range(4):
        own = masks[0] == n + 1
        darkness = pattern(textures, n, x - position[0, n, 0], y - position[0, n, 1])[..., None]
        seen[own] = (color[n] * (1 - darkness / 2))[own]
    expected = seen * light[0]
    # rounding decides on the very edge of a stripe, hardly ever
    assert (np.abs(frame - expected).max(-1) > 0.5 + 1e-6).sum() <= 1


@pytest.mark.parametrize("name", TEXTURES)
def test_objects_differ_from_what_is_behind_them_and_plain_ones_from_black(name: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        masks, position, color, textures, background, colors, camera, light = scene(rng, 3, TEXTURES[1:])
        textures.kind[:] = TEXTURES.index(name)
        color[:, rng.integers(3)] = 255
        with_, without = (
            shade(m, position, color, textures, background, colors, camera, light)[0] for m in (masks, 0 * masks)
        )
        assert np.array_equal((with_ != without).any(-1), masks[0] > 0)


@pytest.mark.parametrize("name", TEXTURES)
def test_textures_move_with_their_objects_and_backgrounds_with_the_world(name: str) -> None:
    rng = np.random.default_rng(1)
    _, position, color, textures, background, colors, camera, light = scene(rng, 1, (name,))
    position[:], shift = 20.3, np.array([5, 3])
    inside = (margin("circle", *position[0, 0], 9, SIZE_PX) > 0).astype(np.uint8)[None]
    here = shade(inside, position, color, textures, background, colors, camera, light)[0]
    moved = np.roll(inside, (3, 5), (1, 2))
    there = shade(moved, position + shift, color, textures, background, colors, camera, light)[0]
    assert np.array_equal(np.roll(here, (3, 5), (0, 1))[moved[0] > 0], there[moved[0] > 0])
    panned = shade(0 * inside, position, color, textures, background, colors, camera + shift, light)[0]
    still = shade(0 * inside, position, color, textures, background, colors, camera, light)[0]
    assert np.array_equal(panned[:-3, :-5], still[3:, 5:])


def test_white_light_on_plain_surfaces_is_the_picture_of_the_rasteriser() -> None:
    rng = np.random.default_rng(2)
    position, radius, shape = rng.uniform(0, SIZE_PX, (6, 5, 2)), rng.uniform(3, 9, 5), rng.integers(3, size=5)
    color = rng.integers(256, size=(5, 3), dtype=np.uint8)
    frames, masks, _ = rasterize(position, radius, shape, np.broadcast_to(color, (6, 5, 3)), SIZE_PX)
    plain, background = draw_patterns(rng, ("plain",), radius), draw_background(rng, ("plain",), SIZE_PX)
    light, camera = np.ones((6, 3)), np.zeros((6, 2))
    assert np.array_equal(frames, shade(masks, position, color, plain, *background, camera, light))


def test_patterns_are_drawn_uniformly_and_with_periods_of_the_extent() -> None:
    extent = np.repeat([6.0, 30.0], 2000)
    drawn = draw_patterns(np.random.default_rng(3), TEXTURES, extent)
    assert chisquare(np.bincount(drawn.kind, minlength=len(TEXTURES))).pvalue > 1e-4
    angle = np.arctan2(drawn.axis[:, 1], drawn.axis[:, 0])
    assert chisquare(np.histogram(angle, 12, (-math.pi, math.pi))[0]).pvalue > 1e-4
    period = 1 / np.linalg.norm(drawn.axis, axis=-1)
    for code, name in enumerate(TEXTURES[1:], start=1):
        share = (period / extent)[drawn.kind == code]
        low, high = PERIODS[name]
        assert low <= share.min() < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < share.max() <= high + 1e-12
    # the finest pattern that a recipe allows is coarser than pixels
    assert min(low for low, _ in PERIODS.values()) * 6 >= 1.5
    assert period[drawn.kind == TEXTURES.index("stripes")].min() >= 2


def test_backgrounds_are_dark_and_black_if_plain() -> None:
    rng = np.random.default_rng(4)
    for _ in range(50):
        pattern, colors = draw_background(rng, TEXTURES, SIZE_PX)
        if TEXTURES[pattern.kind[0]] == "plain":
            assert not colors.any()
        else:
            assert DARK[0] <= colors[0].min() <= colors[0].max() <= DARK[1] < LIGHTER[0] <= colors[1].min()
            assert colors[1].max() <= LIGHTER[1] < 255 / 2
