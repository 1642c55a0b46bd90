"""The models by name: each is one row of the composition."""

from collections.abc import Callable

from slotssm.config import ModelConfig, OCSlotSSMConfig, SequenceModelConfig, SlotSSMConfig, TimeMixerConfig
from slotssm.layers import S4D, S5, InvertedAttention, Mamba, Mamba2, SlotEncoder, SlotMixer, TimeMixer
from slotssm.models.composition import SlotLayer, SlotSequenceModel


class SlotSSM(SlotSequenceModel):
    """SlotSSM (paper, sections 3 and 4): slot encoder before the first layer, time mixer, slot mixer."""

    def __init__(self, config: SlotSSMConfig) -> None:
        encoder = SlotEncoder(
            config.num_slots,
            config.slot_dim,
            config.num_encoder_layers,
            config.num_heads,
            config.mlp_ratio,
            config.dropout,
        )
        layers = [_layer(config, encoder if index == 0 else None) for index in range(config.num_layers)]
        super().__init__(layers, config.num_slots, config.slot_dim, learned_queries=False)


class OCSlotSSM(SlotSequenceModel):
    """OC-SlotSSM (paper, section 5.1): inverted attention to the input tokens in every layer."""

    def __init__(self, config: OCSlotSSMConfig) -> None:
        layers = [_layer(config, InvertedAttention(config.slot_dim)) for _ in range(config.num_layers)]
        super().__init__(layers, config.num_slots, config.slot_dim, learned_queries=True)


def build_model(config: ModelConfig) -> SlotSequenceModel:
    """The model that a configuration describes."""
    return SlotSSM(config) if isinstance(config, SlotSSMConfig) else OCSlotSSM(config)


TIME_MIXERS: dict[str, Callable[..., TimeMixer]] = {"mamba": Mamba, "mamba2": Mamba2, "s4d": S4D, "s5": S5}
"""Kinds of time mixers to their classes, whose arguments have the names of the configuration's fields."""


def build_time_mixer(config: TimeMixerConfig, dim: int) -> TimeMixer:
    """The time mixer that a configuration describes, for slots of width `dim`."""
    return TIME_MIXERS[config.kind](dim, **config.model_dump(exclude={"kind"}))


def _layer(config: SequenceModelConfig, reader: SlotEncoder | InvertedAttention | None) -> SlotLayer:
    return SlotLayer(
        config.slot_dim,
        reader,
        build_time_mixer(config.time_mixer, config.slot_dim),
        SlotMixer(config.slot_dim, config.num_heads, config.mlp_ratio, config.dropout),
    )
