"""The models by name: stacks of layers, but for SAVi, whose recurrence reads the tokens."""

from collections.abc import Callable
from typing import TypeVar

from slotssm.config import (
    EncodedModelConfig,
    ModelConfig,
    OCSlotSSMConfig,
    RIMConfig,
    SAViConfig,
    SequenceModelConfig,
    SingleStateSSMConfig,
    SlotRNNConfig,
    SlotSSMConfig,
    SlotTransformerConfig,
    SplitSSMConfig,
    StateSpaceModelConfig,
    TimeMixerConfig,
    TransformerConfig,
)
from slotssm.layers import (
    RIM,
    S4D,
    S5,
    CausalSlotAttention,
    InvertedAttention,
    JoiningEncoder,
    Mamba,
    Mamba2,
    MLPBlock,
    Reader,
    SlotEncoder,
    SlotGRU,
    SlotMixer,
    SlotSplitter,
    TimeMixer,
)
from slotssm.models.composition import JointSlotLayer, Layer, SlotLayer, SlotSequenceModel
from slotssm.models.model import SlotModel
from slotssm.models.savi import SAVi

AnyModelConfig = TypeVar("AnyModelConfig", bound=SequenceModelConfig)


class SlotSSM(SlotSequenceModel):
    """SlotSSM (paper, sections 3 and 4): slot encoder before the first layer, time mixer, slot mixer.

    Every layer has the same K; that it may differ between layers (section 4.3) is left out.
    """

    def __init__(self, config: SlotSSMConfig | SingleStateSSMConfig) -> None:
        super().__init__(_stack(config, _encoder(config), _state_space_layer), config.num_slots, config.slot_dim)


class SingleStateSSM(SlotSSM):
    """Single State SSM (paper, section 7.1): SlotSSM with one CLS token and so one monolithic state."""


class SplitSSM(SlotSequenceModel):
    """Single State SSM (Split) (paper, section 7.1): slots outside, one state inside.

    The encoder's K slots are concatenated and mapped to the width of the one state; after the last layer a linear
    map and a cut give K slots again. The two maps are our choice: they keep the model's size comparable.
    """

    def __init__(self, config: SplitSSMConfig) -> None:
        dim, num_slots = config.slot_dim, config.num_slots
        reader = JoiningEncoder(_encoder(config), num_slots, dim)
        layers, splitter = _stack(config, reader, _state_space_layer), SlotSplitter(num_slots, dim)
        super().__init__(layers, num_slots, dim, splitter=splitter, num_states=1)


class OCSlotSSM(SlotSequenceModel):
    """OC-SlotSSM (paper, section 5.1): inverted attention to the input tokens in every layer.

    Every layer has the same K; that it may differ between layers (section 4.3) is left out.
    """

    def __init__(self, config: OCSlotSSMConfig) -> None:
        layers = [_state_space_layer(config, InvertedAttention(config.slot_dim)) for _ in range(config.num_layers)]
        super().__init__(layers, config.num_slots, config.slot_dim, learned_queries=True)


class SlotTransformer(SlotSequenceModel):
    """SlotTransformer (paper, appendix C.2): attention over all slots of all steps so far, then an MLP per slot.

    Unlike the slots of a state space model, those of one step see each other in the attention over time already,
    so there is no slot mixer.
    """

    def __init__(self, config: SlotTransformerConfig | TransformerConfig) -> None:
        def layer(config: SequenceModelConfig, reader: Reader | None) -> Layer:
            attention = CausalSlotAttention(config.slot_dim, config.num_heads, config.dropout)
            mlp = MLPBlock(config.slot_dim, _mlp_ratio(config), config.dropout)
            return JointSlotLayer(config.slot_dim, reader, attention, mlp)

        super().__init__(_stack(config, _encoder(config), layer), config.num_slots, config.slot_dim)


class Transformer(SlotTransformer):
    """Transformer (paper, section 7.1): SlotTransformer with one CLS token, one embedding a step."""


class SlotRNN(SlotSequenceModel):
    """SlotRNN (paper, appendix C.2): a GRU shared by all slots, the slot mixer within the recurrence.

    By default a residual variant: a layer adds its input to its states. The paper's layer gives the states themselves,
    x = h, which is `residual = false` of the configuration. The norm before the recurrence is ours in both.
    """

    def __init__(self, config: SlotRNNConfig) -> None:
        def layer(config: SlotRNNConfig, reader: Reader | None) -> Layer:
            recurrence = SlotGRU(config.slot_dim, config.num_heads, _mlp_ratio(config), config.dropout)
            return JointSlotLayer(config.slot_dim, reader, recurrence, None, residual=config.residual)

        super().__init__(_stack(config, _encoder(config), layer), config.num_slots, config.slot_dim)


class RIMs(SlotSequenceModel):
    """Recurrent Independent Mechanisms (Goyal et al. 2019, arXiv 1909.10893), as many units as slots.

    The units read the slot encoder's slots, which the paper gives to all models (section 7.1).
    """

    def __init__(self, config: RIMConfig) -> None:
        def layer(_: SequenceModelConfig, reader: Reader | None) -> Layer:
            units = RIM(config.slot_dim, config.num_slots, config.num_active, config.num_heads, dropout=config.dropout)
            return JointSlotLayer(config.slot_dim, reader, units, None, residual=False)

        super().__init__(_stack(config, _encoder(config), layer), config.num_slots, config.slot_dim)


MODELS: dict[type[SequenceModelConfig], Callable[..., SlotModel]] = {
    SlotSSMConfig: SlotSSM,
    OCSlotSSMConfig: OCSlotSSM,
    SingleStateSSMConfig: SingleStateSSM,
    SplitSSMConfig: SplitSSM,
    TransformerConfig: Transformer,
    SlotTransformerConfig: SlotTransformer,
    SlotRNNConfig: SlotRNN,
    RIMConfig: RIMs,
    SAViConfig: SAVi,
}
"""Configurations to models."""
TIME_MIXERS: dict[str, Callable[..., TimeMixer]] = {"mamba": Mamba, "mamba2": Mamba2, "s4d": S4D, "s5": S5}
"""Kinds of time mixers to their classes, whose arguments have the names of the configuration's fields."""


def build_model(config: ModelConfig) -> SlotModel:
    """The model that a configuration describes."""
    return MODELS[type(config)](config)


def build_time_mixer(config: TimeMixerConfig, dim: int) -> TimeMixer:
    """The time mixer that a configuration describes, for slots of width `dim`."""
    return TIME_MIXERS[config.kind](dim, **config.model_dump(exclude={"kind"}))


def _encoder(config: EncodedModelConfig) -> SlotEncoder:
    return SlotEncoder(
        config.num_slots,
        config.slot_dim,
        config.num_encoder_layers,
        config.num_heads,
        config.mlp_ratio,
        config.dropout,
    )


def _mlp_ratio(config: SequenceModelConfig) -> float:
    return config.layer_mlp_ratio or config.mlp_ratio


def _stack(
    config: AnyModelConfig, reader: Reader, layer: Callable[[AnyModelConfig, Reader | None], Layer]
) -> list[Layer]:
    """Layers of which the first reads the tokens."""
    return [layer(config, reader if index == 0 else None) for index in range(config.num_layers)]


def _state_space_layer(config: StateSpaceModelConfig, reader: Reader | None) -> SlotLayer:
    return SlotLayer(
        config.slot_dim,
        reader,
        build_time_mixer(config.time_mixer, config.slot_dim),
        SlotMixer(config.slot_dim, config.num_heads, _mlp_ratio(config), config.dropout),
    )
