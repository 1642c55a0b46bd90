"""The baselines that attend to all steps so far: SlotTransformer and Transformer (paper, section 7.1 and C.2)."""

from typing import ClassVar, Literal

from slotssm.layers import CausalSlotAttention, MLPBlock, Reader
from slotssm.models.composition import JointSlotLayer, Layer, SlotSequenceModel
from slotssm.models.stacks import EncodedModelConfig, slot_encoder, stack
from slotssm.registry import register_model


class SlotTransformerConfig(EncodedModelConfig):
    """SlotTransformer: attention over all slots of all steps so far (paper, appendix C.2)."""

    kind: Literal["slot-transformer"] = "slot-transformer"


class TransformerConfig(EncodedModelConfig):
    """Transformer: causal attention over one embedding per step (paper, section 7.1)."""

    kind: Literal["transformer"] = "transformer"
    num_slots: Literal[1] = 1
    """One CLS token, one embedding per step."""
    not_shared: ClassVar[frozenset[str]] = frozenset({"num_slots"})


@register_model("slot-transformer", SlotTransformerConfig)
class SlotTransformer(SlotSequenceModel):
    """SlotTransformer (paper, appendix C.2): attention over all slots of all steps so far, then an MLP per slot.

    The attention over time already includes the other slots of the same step, so there is no slot mixer.
    """

    def __init__(self, config: SlotTransformerConfig | TransformerConfig) -> None:
        def layer(config: EncodedModelConfig, reader: Reader | None) -> Layer:
            attention = CausalSlotAttention(config.slot_dim, config.num_heads, config.dropout)
            mlp = MLPBlock(config.slot_dim, config.layer_mlp_width, config.dropout)
            return JointSlotLayer(config.slot_dim, reader, attention, mlp)

        super().__init__(stack(config, slot_encoder(config), layer), config.num_slots, config.slot_dim)


@register_model("transformer", TransformerConfig)
class Transformer(SlotTransformer):
    """Transformer (paper, section 7.1): SlotTransformer with one CLS token, so one embedding per step."""
