"""The generators by recipe kind, and the one function that makes an episode."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from generators import bcb, bouncing
from slotssm.config import BCBRecipe, BouncingRecipe
from slotssm.data.episodes import SPLITS, Episode, Layout


@dataclass(frozen=True)
class Generator:
    """What the writer needs to know of a data set."""

    recipe_class: type[BCBRecipe] | type[BouncingRecipe]
    layout: Callable[[Any], Layout]
    attributes: Callable[[Any], dict[str, Any]]
    make_episode: Callable[[Any, np.random.Generator], Episode]


GENERATORS = {
    "bcb": Generator(BCBRecipe, bcb.layout, bcb.attributes, bcb.make_episode),
    "bouncing": Generator(BouncingRecipe, bouncing.layout, bouncing.attributes, bouncing.make_episode),
}


def make_episode(recipe: BCBRecipe | BouncingRecipe, seed: int, split: str, index: int) -> Episode:
    """Episode `index` of a split: a pure function of its four arguments.

    Neighbouring seeds and episodes are independent streams of numpy's `SeedSequence`.
    """
    stream = np.random.SeedSequence(seed, spawn_key=(SPLITS.index(split), index))
    return GENERATORS[recipe.kind].make_episode(recipe, np.random.default_rng(stream))
