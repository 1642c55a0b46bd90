"""The interface of generators, which make the episodes of a recipe."""

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
        recipe: everything that determines their content, besides seed, split and index.
    """

    def __init__(self, recipe: AnyRecipe) -> None:
        self.recipe = recipe

    @abstractmethod
    def layout(self) -> Layout:
        """Fields of the file, including `frames`."""

    def attributes(self) -> dict[str, Any]:
        """Further root attributes of the file, such as `palette`."""
        return {}

    @abstractmethod
    def make_episode(self, rng: np.random.Generator) -> Episode:
        """One episode with all fields of the layout: a pure function of the recipe and the state of `rng`."""

    def file_name(self) -> str:
        """Default file name for this recipe, without suffix."""
        return self.recipe.kind


def generator_of(recipe: Recipe) -> Generator[Any]:
    """The generator of a recipe, by the recipe's kind."""
    found: Generator[Any] = GENERATORS[recipe.kind].code(recipe)
    return found
