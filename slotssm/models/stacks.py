"""Builders of layer stacks, and the configuration fields that their models share."""

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import Field, model_validator

from slotssm.config import AnyTimeMixer, ModelConfig, TimeMixerConfig
from slotssm.layers import MambaConfig, Reader, SlotEncoder, SlotMixer, TimeMixer
from slotssm.models.composition import Layer, SlotLayer
from slotssm.registry import TIME_MIXERS


class SequenceModelConfig(ModelConfig):
    """Configuration fields of all built-in models."""

    num_layers: int = Field(3, ge=1)
    """Layers of reader (where present), time mixer and slot mixer."""
    layer_mlp_ratio: float | None = Field(None, gt=0)
    """`mlp_ratio` of the layers' MLPs only, for matching model sizes; None is mlp_ratio."""

    @model_validator(mode="after")
    def _check_layer_mlp(self) -> "SequenceModelConfig":
        if int(self.layer_mlp_width * self.slot_dim) < 1:
            raise ValueError("layer_mlp_ratio must leave at least one channel of slot_dim")
        return self

    @property
    def layer_mlp_width(self) -> float:
        """Hidden width of the layers' MLPs as a multiple of slot_dim."""
        return self.layer_mlp_ratio or self.mlp_ratio

    @property
    def num_layer_mlps(self) -> int:
        """Number of MLPs whose width `layer_mlp_ratio` sets."""
        return self.num_layers


class StateSpaceModelConfig(SequenceModelConfig):
    """Configuration fields of the state space models."""

    time_mixer: AnyTimeMixer = MambaConfig()
    """The time mixer, which is applied to each slot."""

    @model_validator(mode="after")
    def _check_time_mixer(self) -> "StateSpaceModelConfig":
        self.time_mixer.check_width(self.slot_dim)
        return self


class EncodedModelConfig(SequenceModelConfig):
    """Configuration fields of models with a CLS-Transformer slot encoder before the first layer."""

    num_encoder_layers: int = Field(3, ge=1)
    """Layers of the slot encoder: self-attention, cross-attention to the tokens, MLP."""


class CompetingModelConfig(SequenceModelConfig):
    """Configuration fields of models whose slots compete for the tokens."""

    null_slot: bool = False
    """Whether tokens may belong to no slot, such as those of the background: a constant logit of 0 takes part in the
    softmax over the slots. Not in the papers."""


AnySequenceConfig = TypeVar("AnySequenceConfig", bound=SequenceModelConfig)


def build_time_mixer(config: TimeMixerConfig, dim: int) -> Any:
    """The time mixer that a configuration describes, for slots of width `dim`."""
    fields = {name: getattr(config, name) for name in type(config).model_fields if name != "kind"}
    mixer: TimeMixer = TIME_MIXERS[config.kind].code(dim, **fields)
    return mixer


def slot_encoder(config: EncodedModelConfig) -> SlotEncoder:
    """The slot encoder, which is the reader of the first layer."""
    return SlotEncoder(
        config.num_slots,
        config.slot_dim,
        config.num_encoder_layers,
        config.num_heads,
        config.mlp_ratio,
        config.dropout,
    )


def stack(
    config: AnySequenceConfig, reader: Reader, layer: Callable[[AnySequenceConfig, Reader | None], Layer]
) -> list[Layer]:
    """Layers of which only the first has a reader."""
    return [layer(config, reader if index == 0 else None) for index in range(config.num_layers)]


def state_space_layer(config: StateSpaceModelConfig, reader: Reader | None) -> SlotLayer:
    """A layer with reader, time mixer for each slot, and slot mixer."""
    return SlotLayer(
        config.slot_dim,
        reader,
        build_time_mixer(config.time_mixer, config.slot_dim),
        SlotMixer(config.slot_dim, config.num_heads, config.layer_mlp_width, config.dropout),
    )
