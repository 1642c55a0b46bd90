"""Making an episode of any registered generator."""

import numpy as np

from slotssm.config import Recipe
from slotssm.data.episodes import SPLITS, Episode
from slotssm.data.generator import generator_of


def make_episode(recipe: Recipe, seed: int, split: str, index: int) -> Episode:
    """Episode `index` of a split: a pure function of its four arguments.

    Neighbouring seeds and episodes are independent streams of numpy's `SeedSequence`.
    """
    stream = np.random.SeedSequence(seed, spawn_key=(SPLITS.index(split), index))
    return generator_of(recipe).make_episode(np.random.default_rng(stream))
