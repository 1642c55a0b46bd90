"""The data set of a run: a recipe with counts and seed, or a file."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from slotssm.config.entries import AnyRecipe
from slotssm.documents import Choice, Config


class RecipeData(Config):
    """Generated episodes: the recipe, their number and the seed."""

    recipe: AnyRecipe
    """Everything that determines the content of the episodes besides the seed."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Seed of the data."""
    num_train: int = Field(1000, ge=0)
    """Number of episodes in the split `train`; 0 omits the split."""
    num_val: int = Field(100, ge=0)
    """Number of episodes in the split `val`; 0 omits the split."""
    num_test: int = Field(100, ge=0)
    """Number of episodes in the split `test`; 0 omits the split."""

    @property
    def num_episodes(self) -> dict[str, int]:
        """Number of episodes by split, without empty splits."""
        counts = {"train": self.num_train, "val": self.num_val, "test": self.num_test}
        return {split: count for split, count in counts.items() if count}


class FileData(Config):
    """Episodes of an existing file, imported or generated."""

    path: str = Field(min_length=1)
    """The episode file."""
    sha256: str = ""
    """Content hash that the file must have; if empty, it is filled in when the run starts."""
    num_train: int | None = Field(None, ge=1)
    """Use only the first episodes of the split `train`, at most this many; None uses all."""
    num_val: int | None = Field(None, ge=0)
    """Use at most this many episodes of the split `val`; None leaves the limit to `train.num_eval_episodes`."""


DataConfig = RecipeData | FileData


class _DataChoice(Choice):
    """The field `data`: a table with the key `path` is a file, any other table is a recipe."""

    def config_class(self, document: Any) -> type[Config]:
        """The class of a data set that is given as a mapping; `ValueError` if it is not a data set."""
        if not isinstance(document, Mapping):
            raise ValueError("data must be a table with the key recipe, or path for a file")
        if "path" in document and "recipe" in document:
            raise ValueError("data has both recipe and path; a data set is either generated or a file")
        return FileData if "path" in document else RecipeData

    def takes(self, config: Config) -> bool:
        """Whether a configuration describes a data set."""
        return isinstance(config, FileData | RecipeData)


AnyData = Annotated[RecipeData | FileData, _DataChoice()]
"""A field for a recipe with counts and seed, or a file."""
