"""Blinking Color Balls (paper, section 5.2): which colour did each ball get, many steps ago?

White balls bounce. In each context frame one ball, drawn uniformly, shows one of the non-white colours, drawn
uniformly. The last frame is the target: every ball has the colour that it got first (`earliest`) or most
often (`frequent`, ties to the one it got earliest); a ball that was never drawn stays white. Both rules give
the same context for the same seed.
"""

from typing import Any

import numpy as np

from generators.physics import directions, place_discs, simulate
from generators.rasterizer import PAINTS, paint
from slotssm.config import BCBRecipe
from slotssm.data.episodes import Episode, Field, Layout, categorical, standard_layout
from slotssm.errors import InputError

COLOR_NAMES = ("white", "red", "blue", "yellow", "magenta", "cyan")
WHITE = 0
NUM_FRAMES = {80: 6, 320: 6, 1280: 6, 160: 11, 640: 11, 2560: 11}
"""The paper's sequence lengths L to their number of frames T; P follows from L = (T - 1) P²."""


def recipe_for_length(
    length: int | None, num_frames: int | None, patches_per_side: int | None, **fields: Any
) -> dict[str, Any]:
    """Recipe fields for a sequence length, or for explicit frames and patches.

    Args:
        length: L, or None to leave it to the other two (default 80).
        num_frames: T, or None.
        patches_per_side: P, or None.
        fields: further fields of `BCBRecipe`.

    Raises:
        InputError: the three contradict each other, or `length` cannot be had.
    """
    if length is None and num_frames is None and patches_per_side is None:
        length = 80
    if length is not None:
        num_frames, patches_per_side = _solve_length(length, num_frames, patches_per_side)
    return {"num_frames": num_frames or 6, "patches_per_side": patches_per_side or 4, **fields}


def _solve_length(length: int, num_frames: int | None, patches: int | None) -> tuple[int, int]:
    if num_frames is None and patches is None:
        if length not in NUM_FRAMES:
            near = sorted(sorted(NUM_FRAMES, key=lambda known: abs(known - length))[:2])
            raise InputError(
                f"--len {length} is not one of {', '.join(map(str, sorted(NUM_FRAMES)))} "
                f"(nearest: {near[0]}, {near[1]}); other lengths (T-1)·P² come from --frames T and --patches P"
            )
        num_frames = NUM_FRAMES[length]
    if patches is None:
        assert num_frames is not None
        context = max(1, num_frames - 1)
        patches = max(1, round((length / context) ** 0.5))
        near_lengths = sorted({context * p * p for p in (patches - 1, patches, patches + 1) if p > 0})
    else:
        num_frames = num_frames or max(2, round(length / patches**2) + 1)
        near_lengths = sorted({(t - 1) * patches**2 for t in (num_frames - 1, num_frames, num_frames + 1) if t > 1})
    if (num_frames - 1) * patches**2 != length:
        raise InputError(
            f"--len {length} is not (T-1)·P² for the given --frames and --patches "
            f"(nearest: {', '.join(map(str, near_lengths))})"
        )
    return num_frames, patches


def layout(recipe: BCBRecipe) -> Layout:
    """Fields of a BCB file."""
    size, num = recipe.size_px, recipe.num_balls
    names = COLOR_NAMES[: 1 + recipe.num_colors]
    return {
        **standard_layout(recipe.num_frames, size, size, num),
        "objects/color": Field((recipe.num_frames, num), "uint8", attrs=categorical(names)),
        "objects/radius": Field((num,), "float32", attrs={"kind": "numeric", "unit": "px"}),
    }


def palette(recipe: BCBRecipe) -> np.ndarray:
    """Pixel classes: black background, white, then the colours; uint8 [2 + num_colors, 3]."""
    return np.array([(0, 0, 0)] + [PAINTS[name] for name in COLOR_NAMES[: 1 + recipe.num_colors]], np.uint8)


def attributes(recipe: BCBRecipe) -> dict[str, Any]:
    """Root attributes of a BCB file."""
    return {
        "rule": recipe.rule,
        "sequence_length": recipe.sequence_length,
        "patches_per_side": recipe.patches_per_side,
        "palette": palette(recipe),
    }


def make_episode(recipe: BCBRecipe, rng: np.random.Generator) -> Episode:
    """One episode, a pure function of the recipe and the generator's state."""
    num, num_context = recipe.num_balls, recipe.num_frames - 1
    radius = np.full(num, recipe.radius_px)
    start = place_discs(rng, radius, recipe.size_px, apart=True)
    velocity = recipe.speed_px_per_frame * directions(rng, num)
    blinking = rng.integers(num, size=num_context)
    blink_color = rng.integers(1, 1 + recipe.num_colors, size=num_context)

    motion = simulate(start, velocity, radius, np.ones(num), recipe.size_px, recipe.num_frames, collide=True)
    color = np.full((recipe.num_frames, num), WHITE, np.uint8)
    color[np.arange(num_context), blinking] = blink_color
    color[-1] = target_colors(blinking, blink_color, num, recipe.rule)
    paints = palette(recipe)[1:]
    frames, masks, visible = paint(motion.position, radius, np.zeros(num, np.int64), paints[color], recipe.size_px)
    return {
        "frames": frames,
        "masks": masks,
        "objects/position": motion.position,
        "objects/velocity": motion.velocity,
        "objects/visible": visible,
        "objects/color": color,
        "objects/radius": radius,
    }


def target_colors(blinking: np.ndarray, blink_color: np.ndarray, num_balls: int, rule: str) -> np.ndarray:
    """Colours of the balls in the target.

    Args:
        blinking: [n] ball that shows a colour in each context frame.
        blink_color: [n] the colour that it shows.
        num_balls: N.
        rule: `earliest` or `frequent`.

    Returns:
        uint8 [N] colour codes; white for a ball that never blinked.
    """
    target = np.full(num_balls, WHITE, np.uint8)
    for ball in range(num_balls):
        shown = blink_color[blinking == ball]
        if len(shown) == 0:
            continue
        if rule == "earliest":
            target[ball] = shown[0]
        else:
            counts = np.bincount(shown)
            # argmax takes the first of equals, and `shown` is in order of time
            target[ball] = shown[np.argmax(counts[shown])]
    return target
