"""The interface of a generator: what makes the episodes of a recipe."""

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import numpy as np

from slotssm.config import Recipe
from slotssm.data.episodes import Episode, Layout
from slotssm.registry import GENERATORS

AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


class Generator(ABC, Generic[AnyRecipe]):
    """Makes the episodes of one recipe.

    Args:
        recipe: everything that decides their content, beside seed, split and number.
    """

    def __init__(self, recipe: AnyRecipe) -> None:
        self.recipe = recipe

    @abstractmethod
    def layout(self) -> Layout:
        """Fields of the file; `frames` is one of them."""

    def attributes(self) -> dict[str, Any]:
        """Root attributes of the file beyond those that every file has, such as `palette`."""
        return {}

    @abstractmethod
    def make_episode(self, rng: np.random.Generator) -> Episode:
        """One episode with all fields of the layout: a pure function of the recipe and the state of `rng`."""

    def file_name(self) -> str:
        """Name of a data set of this recipe, without suffix."""
        return self.recipe.kind


def generator_of(recipe: Recipe) -> Generator[Any]:
    """The generator of a recipe, by the recipe's kind."""
    found: Generator[Any] = GENERATORS[recipe.kind].code(recipe)
    return found
