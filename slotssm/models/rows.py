"""The models by name: each is one row of the composition."""

from slotssm.config import ModelConfig, OCSlotSSMConfig, SequenceModelConfig, SlotSSMConfig
from slotssm.layers import InvertedAttention, Mamba, SlotEncoder, SlotMixer
from slotssm.models.composition import SlotLayer, SlotSequenceModel


class SlotSSM(SlotSequenceModel):
    """SlotSSM (paper, sections 3 and 4): slot encoder before the first layer, Mamba per slot, slot mixer."""

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


def _layer(config: SequenceModelConfig, reader: SlotEncoder | InvertedAttention | None) -> SlotLayer:
    mamba = config.time_mixer
    return SlotLayer(
        config.slot_dim,
        reader,
        Mamba(config.slot_dim, d_state=mamba.d_state, d_conv=mamba.d_conv, expand=mamba.expand),
        SlotMixer(config.slot_dim, config.num_heads, config.mlp_ratio, config.dropout),
    )
