"""Base classes of the configurations of registered entries; each entry's own class is defined next to its code."""

from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from slotssm.documents import Config
from slotssm.registry import GENERATORS, MODELS, TASKS, TIME_MIXERS


class TimeMixerConfig(Config):
    """Configuration of a time mixer; all fields except `kind` are arguments of the class that it configures."""

    kind: str

    def check_width(self, slot_dim: int) -> None:
        """Refuse a slot width that this time mixer does not support.

        Raises:
            ValueError: the reason.
        """


class ModelConfig(Config):
    """Configuration of a model: the fields that tasks, decoders and comparisons may rely on for any model."""

    kind: str
    num_slots: int = Field(6, ge=1)
    """K: number of slots in every layer."""
    slot_dim: int = Field(64, ge=4)
    """D: width of a slot."""
    num_heads: int = Field(4, ge=1)
    """Heads of every attention layer; must divide slot_dim."""
    mlp_ratio: float = Field(4.0, gt=0)
    """Hidden width of every MLP as a multiple of slot_dim."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout after attention and MLP (0: off)."""

    not_shared: ClassVar[frozenset[str]] = frozenset()
    """Fields that `like` does not copy from the reference model."""

    @classmethod
    def like(cls, reference: "ModelConfig", **values: Any) -> Self:
        """A model of this kind with the values of a reference model in all fields that both have.

        Args:
            reference: the other model.
            values: fields that differ from the reference.
        """
        shared = set(cls.model_fields) & set(type(reference).model_fields) - {"kind"} - cls.not_shared
        return cls.model_validate({name: getattr(reference, name) for name in shared} | values)

    @model_validator(mode="after")
    def _check_width(self) -> Self:
        if self.slot_dim % self.num_heads:
            raise ValueError(f"num_heads {self.num_heads} does not divide slot_dim {self.slot_dim}")
        if self.slot_dim % 4:
            raise ValueError(f"slot_dim {self.slot_dim} must be a multiple of 4 (sine-cosine positions)")
        if int(self.mlp_ratio * self.slot_dim) < 1:
            raise ValueError("mlp_ratio must leave at least one channel of slot_dim")
        return self


class TaskConfig(Config):
    """Configuration of a task: what a model is trained to do."""

    kind: str


class Recipe(Config):
    """Configuration of a generator: everything that determines the content of its episodes besides the seed."""

    kind: str


AnyTimeMixer = Annotated[TimeMixerConfig, TIME_MIXERS]
"""A field for the configuration of any registered time mixer."""
AnyModel = Annotated[ModelConfig, MODELS]
"""A field for the configuration of any registered model."""
AnyTask = Annotated[TaskConfig, TASKS]
"""A field for the configuration of any registered task."""
AnyRecipe = Annotated[Recipe, GENERATORS]
"""A field for any registered recipe."""
