"""The state space models: SlotSSM, OC-SlotSSM, and the two baselines with one state (paper, sections 3 to 5 and 7.1).

All layers of a model have the same number of slots K; section 4.3 of the paper allows it to differ.
"""

from typing import ClassVar, Literal

from slotssm.layers import InvertedAttention, JoiningEncoder, SlotSplitter
from slotssm.models.composition import SlotSequenceModel
from slotssm.models.stacks import (
    CompetingModelConfig,
    EncodedModelConfig,
    StateSpaceModelConfig,
    slot_encoder,
    stack,
    state_space_layer,
)
from slotssm.registry import register_model


class SlotSSMConfig(StateSpaceModelConfig, EncodedModelConfig):
    """SlotSSM: one state per slot (paper, sections 3 and 4)."""

    kind: Literal["slotssm"] = "slotssm"


class SingleStateSSMConfig(StateSpaceModelConfig, EncodedModelConfig):
    """Single State SSM: the same architecture with one monolithic state (paper, section 7.1)."""

    kind: Literal["single-state-ssm"] = "single-state-ssm"
    num_slots: Literal[1] = 1
    """One CLS token, one state."""
    not_shared: ClassVar[frozenset[str]] = frozenset({"num_slots"})


class SplitSSMConfig(StateSpaceModelConfig, EncodedModelConfig):
    """Single State SSM (Split): the encoder's slots are joined into one state, then split again (section 7.1)."""

    kind: Literal["split-ssm"] = "split-ssm"


class OCSlotSSMConfig(StateSpaceModelConfig, CompetingModelConfig):
    """OC-SlotSSM: one inverted attention to the input tokens in every layer (paper, section 5.1)."""

    kind: Literal["oc-slotssm"] = "oc-slotssm"


@register_model("slotssm", SlotSSMConfig)
class SlotSSM(SlotSequenceModel):
    """SlotSSM (paper, sections 3 and 4): a slot encoder, then layers of time mixer and slot mixer."""

    def __init__(self, config: SlotSSMConfig | SingleStateSSMConfig) -> None:
        super().__init__(stack(config, slot_encoder(config), state_space_layer), config.num_slots, config.slot_dim)


@register_model("single-state-ssm", SingleStateSSMConfig)
class SingleStateSSM(SlotSSM):
    """Single State SSM (paper, section 7.1): SlotSSM with one CLS token, so one monolithic state."""


@register_model("split-ssm", SplitSSMConfig)
class SplitSSM(SlotSequenceModel):
    """Single State SSM (Split) (paper, section 7.1): K slots at input and output, one state in between.

    The encoder's K slots are concatenated and mapped to the width of the single state; after the last layer, a linear
    map gives K slots again. The two maps are our choice: they keep the model's size comparable.
    """

    def __init__(self, config: SplitSSMConfig) -> None:
        dim, num_slots = config.slot_dim, config.num_slots
        reader = JoiningEncoder(slot_encoder(config), num_slots, dim)
        layers, splitter = stack(config, reader, state_space_layer), SlotSplitter(num_slots, dim)
        super().__init__(layers, num_slots, dim, splitter=splitter, num_states=1)


@register_model("oc-slotssm", OCSlotSSMConfig)
class OCSlotSSM(SlotSequenceModel):
    """OC-SlotSSM (paper, section 5.1): inverted attention to the input tokens in every layer."""

    def __init__(self, config: OCSlotSSMConfig) -> None:
        layers = [
            state_space_layer(config, InvertedAttention(config.slot_dim, null_slot=config.null_slot))
            for _ in range(config.num_layers)
        ]
        super().__init__(layers, config.num_slots, config.slot_dim, learned_queries=True)
        self.null_slot = config.null_slot
