"""The data set of a run: a recipe with counts and seed, or a file."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from slotssm.config.entries import AnyRecipe
from slotssm.documents import Choice, Config


class RecipeData(Config):
    """Episodes that are generated: the recipe, how many of them, and the seed."""

    recipe: AnyRecipe
    """What the episodes are made of."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of the data; 0 is a seed like any other."""
    num_train: int = Field(1000, ge=0)
    """Episodes in the split `train`; 0 leaves the split out."""
    num_val: int = Field(100, ge=0)
    """Episodes in the split `val`; 0 leaves the split out."""
    num_test: int = Field(100, ge=0)
    """Episodes in the split `test`; 0 leaves the split out."""

    @property
    def num_episodes(self) -> dict[str, int]:
        """Episodes by split, without the empty ones."""
        counts = {"train": self.num_train, "val": self.num_val, "test": self.num_test}
        return {split: count for split, count in counts.items() if count}


class FileData(Config):
    """Episodes of a file that is there already, imported or generated."""

    path: str = Field(min_length=1)
    """The episode file."""
    sha256: str = ""
    """Content hash of the file, without which it is not read; filled in when the run starts if it is empty."""
    num_train: int | None = Field(None, ge=1)
    """At most so many episodes of the split `train`, from the first on; None takes all."""
    num_val: int | None = Field(None, ge=0)
    """At most so many episodes of the split `val`; None takes as many as `train.num_eval_episodes` asks for."""


DataConfig = RecipeData | FileData


class _DataChoice(Choice):
    """The field `data`: a table with the key `path` is a file, any other a recipe."""

    def config_class(self, document: Any) -> type[Config]:
        """The class of a data set that is given as a mapping; `ValueError` if it is none."""
        if not isinstance(document, Mapping):
            raise ValueError("data is a table with the key recipe, or path for a file")
        if "path" in document and "recipe" in document:
            raise ValueError("data has a recipe and a path; a data set is either generated or a file")
        return FileData if "path" in document else RecipeData

    def takes(self, config: Config) -> bool:
        """Whether a configuration is that of a data set."""
        return isinstance(config, FileData | RecipeData)


AnyData = Annotated[RecipeData | FileData, _DataChoice()]
"""A field that takes a recipe with counts and seed, or a file."""
