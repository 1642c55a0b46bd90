"""Blinking Color Balls (paper, section 7.2): which colour did each ball get, many steps ago?

White balls bounce. In each context frame, one uniformly drawn ball shows one of the non-white colours, also drawn
uniformly. The last frame is the target: every ball has the colour that it was assigned first (`earliest`) or most
often (`frequent`; ties go to the colour assigned earliest); a ball that was never drawn stays white. Both rules give
the same context frames for the same seed.
"""

from collections.abc import Iterable
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field as Setting
from pydantic import model_validator

from generators.colors import COLORS
from generators.limits import check_coverage, check_speed
from generators.padding import padded
from generators.physics import directions, place_discs, simulate
from generators.rasterizer import rasterize
from slotssm.config import Recipe
from slotssm.data.episodes import Episode, Field, Layout, categorical, numeric, standard_layout
from slotssm.data.generator import Generator
from slotssm.data.spec import RGB
from slotssm.errors import InputError
from slotssm.registry import register_generator

WHITE = 0
NUM_FRAMES = {80: 6, 320: 6, 1280: 6, 160: 11, 640: 11, 2560: 11}
"""The paper's sequence lengths L to their number of frames T; P follows from L = (T - 1) P²."""
MAX_FRAMES = 1000


class BCBRecipe(Recipe):
    """Blinking Color Balls: everything that determines the content of its episodes (paper, section 7.2)."""

    kind: Literal["bcb"] = "bcb"
    rule: Literal["earliest", "frequent"] = "earliest"
    """Colour of a ball in the target: the first one it was assigned, or the most frequent one."""
    num_frames: int = Setting(6, ge=2, le=1000)
    """T: context frames plus the target, which is the last frame."""
    patches_per_side: int = Setting(4, ge=1)
    """P: each context frame is read as P x P patches, one per step; 1 reads whole frames."""
    num_balls: int = Setting(4, ge=1, le=100)
    """Number of balls in every episode (N of the file); with `min_balls`, the largest number."""
    min_balls: int | None = Setting(None, ge=1)
    """Smallest number of balls if it varies between episodes, drawn uniformly up to `num_balls`; episodes with fewer
    are padded. None: always `num_balls`, as in the paper."""
    size_px: int = Setting(64, ge=8, le=256)
    """Side of the square frame in pixels."""
    radius_px: float = Setting(5.68, gt=0)
    """Radius of every ball in pixels (measured in the authors' figures)."""
    speed_px_per_frame: float = Setting(3.0, ge=0)
    """Speed of every ball in the first frame; collisions change it but conserve the root mean square."""
    num_colors: int = Setting(5, ge=1, le=5)
    """Number of non-white colours to draw from, in palette order."""

    @property
    def color_names(self) -> list[str]:
        """White and the blinking colours; their order is the colour code."""
        return list(COLORS)[: 1 + self.num_colors]

    @property
    def palette(self) -> list[RGB]:
        """RGB of the pixel classes: black background, white, then the blinking colours."""
        return [(0, 0, 0), *(COLORS[name] for name in self.color_names)]

    @property
    def sequence_length(self) -> int:
        """L = (T - 1) * P * P steps."""
        return (self.num_frames - 1) * self.patches_per_side**2

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.size_px % self.patches_per_side:
            raise ValueError(f"patches_per_side {self.patches_per_side} does not divide size_px {self.size_px}")
        if self.min_balls is not None and self.min_balls > self.num_balls:
            raise ValueError(f"min_balls {self.min_balls} exceeds num_balls {self.num_balls}")
        check_coverage(self.num_balls, self.radius_px, self.size_px)
        check_speed(self.speed_px_per_frame, self.size_px)
        return self


def recipe_for_length(
    length: int | None, num_frames: int | None, patches_per_side: int | None, **fields: Any
) -> dict[str, Any]:
    """Recipe fields for a sequence length, or for explicit frames and patches.

    Args:
        length: L, or None to determine it from the other two (default 80).
        num_frames: T, or None.
        patches_per_side: P, or None.
        fields: further fields of `BCBRecipe`.

    Raises:
        InputError: the three contradict each other, or `length` is not possible.
    """
    if length is None and num_frames is None and patches_per_side is None:
        length = 80
    if length is not None:
        size_px = fields.get("size_px") or BCBRecipe.model_fields["size_px"].default
        num_frames, patches_per_side = _solve_length(length, num_frames, patches_per_side, size_px)
    return {
        "num_frames": 6 if num_frames is None else num_frames,
        "patches_per_side": 4 if patches_per_side is None else patches_per_side,
        **fields,
    }


def _solve_length(length: int, num_frames: int | None, patches: int | None, size_px: int) -> tuple[int, int]:
    if num_frames is None and patches is None:
        if length not in NUM_FRAMES:
            raise InputError(
                f"`length` {length} is not one of {', '.join(map(str, sorted(NUM_FRAMES)))} "
                f"(nearest: {_nearest(length, NUM_FRAMES)}); "
                "others (T-1)·P² come from `num_frames` T and `patches_per_side` P"
            )
        num_frames = NUM_FRAMES[length]
    frames = range(2, MAX_FRAMES + 1) if num_frames is None else [num_frames]
    sides = [p for p in range(1, size_px + 1) if size_px % p == 0] if patches is None else [patches]
    if not sides or frames[0] < 2 or sides[0] < 1:
        return num_frames or 0, patches or 0  # the recipe's validation reports the value that is out of range
    possible = {(t - 1) * p * p: (t, p) for t in frames for p in sides}
    if length not in possible:
        given = f"`num_frames` {num_frames}" if patches is None else f"`patches_per_side` {patches}"
        given = given if num_frames is None or patches is None else f"`num_frames` {num_frames} and {given}"
        raise InputError(
            f"`length` {length} is not (T-1)·P² with {given} at {size_px} px (nearest: {_nearest(length, possible)})"
        )
    return possible[length]


def _nearest(length: int, possible: Iterable[int]) -> str:
    """The two lengths closest to `length`."""
    return ", ".join(map(str, sorted(sorted(possible, key=lambda known: abs(known - length))[:2])))


def layout(recipe: BCBRecipe) -> Layout:
    """Fields of a BCB file."""
    size, num = recipe.size_px, recipe.num_balls
    return {
        **standard_layout(recipe.num_frames, size, size, num),
        "objects/color": Field(
            ("time", "object"), (recipe.num_frames, num), "uint8", attrs=categorical(recipe.color_names)
        ),
        "objects/radius": Field(("object",), (num,), "float32", attrs=numeric("px")),
    }


def attributes(recipe: BCBRecipe) -> dict[str, Any]:
    """Root attributes of a BCB file."""
    return {
        "rule": recipe.rule,
        "sequence_length": recipe.sequence_length,
        "patches_per_side": recipe.patches_per_side,
        "palette": np.array(recipe.palette, np.uint8),
    }


def make_episode(recipe: BCBRecipe, rng: np.random.Generator) -> Episode:
    """Make one episode: a pure function of the recipe and the state of `rng`."""
    num, num_context = recipe.num_balls, recipe.num_frames - 1
    if recipe.min_balls is not None:
        num = int(rng.integers(recipe.min_balls, num + 1))
    radius = np.full(num, recipe.radius_px)
    start = place_discs(rng, radius, recipe.size_px, apart=True)
    velocity = recipe.speed_px_per_frame * directions(rng, num)
    blinking = rng.integers(num, size=num_context)
    blink_color = rng.integers(1, 1 + recipe.num_colors, size=num_context)

    motion = simulate(start, velocity, radius, np.ones(num), recipe.size_px, recipe.num_frames, collide=True)
    color = np.full((recipe.num_frames, num), WHITE, np.uint8)
    color[np.arange(num_context), blinking] = blink_color
    color[-1] = target_colors(blinking, blink_color, num, recipe.rule)
    paints = np.array(recipe.palette[1:], np.uint8)
    frames, masks, visible = rasterize(motion.position, radius, np.zeros(num, np.int64), paints[color], recipe.size_px)
    episode = {
        "frames": frames,
        "masks": masks,
        "objects/position": motion.position,
        "objects/velocity": motion.velocity,
        "objects/visible": visible,
        "objects/color": color,
        "objects/radius": radius,
    }
    return padded(episode, layout(recipe))


def target_colors(blinking: np.ndarray, blink_color: np.ndarray, num_balls: int, rule: str) -> np.ndarray:
    """Colours of the balls in the target.

    Args:
        blinking: [n] index of the ball that blinks in each context frame.
        blink_color: [n] code of the colour that it shows.
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
            # argmax takes the first of ties, and `shown` is in temporal order
            target[ball] = shown[np.argmax(counts[shown])]
    return target


@register_generator("bcb", BCBRecipe)
class BlinkingColorBalls(Generator[BCBRecipe]):
    """Generator of Blinking Color Balls."""

    def layout(self) -> Layout:
        """Fields of the file."""
        return layout(self.recipe)

    def attributes(self) -> dict[str, Any]:
        """Palette, rule, sequence length and patches per side."""
        return attributes(self.recipe)

    def make_episode(self, rng: np.random.Generator) -> Episode:
        """Make one episode: a pure function of the recipe and the state of `rng`."""
        return make_episode(self.recipe, rng)

    def file_name(self) -> str:
        """For example bcb-earliest-2560."""
        return f"bcb-{self.recipe.rule}-{self.recipe.sequence_length}"
