"""The recurrent baselines: SlotRNN (paper, appendix C.2) and RIM."""

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from slotssm.config import ModelConfig
from slotssm.layers import RIM, Reader, SlotGRU
from slotssm.models.composition import JointSlotLayer, Layer, SlotSequenceModel
from slotssm.models.stacks import EncodedModelConfig, slot_encoder, stack
from slotssm.registry import register_model


class SlotRNNConfig(EncodedModelConfig):
    """SlotRNN: a GRU shared by all slots, with the slot mixer inside the recurrence (paper, appendix C.2)."""

    kind: Literal["slot-rnn"] = "slot-rnn"
    residual: bool = False
    """Whether a layer adds its input to its states, which is our variant; the paper's layer outputs the states
    themselves, x = h."""


class RIMConfig(EncodedModelConfig):
    """RIM: recurrent units with separate weights, of which few are active (Goyal et al. 2019, 1909.10893)."""

    kind: Literal["rim"] = "rim"
    num_layers: int = Field(1, ge=1)
    """Layers of recurrent units; each reads the units of the layer below."""
    num_active: int = Field(4, ge=1)
    """Units that update their state in each step."""
    not_shared: ClassVar[frozenset[str]] = frozenset({"num_layers"})

    @classmethod
    def like(cls, reference: ModelConfig, **values: Any) -> "RIMConfig":
        """One unit per slot, two thirds of them active: four of six, as in the paper."""
        num_active = max(1, round(reference.num_slots * 2 / 3))
        return super().like(reference, **{"num_active": num_active, **values})

    @property
    def num_layer_mlps(self) -> int:
        """The units have no MLP."""
        return 0

    @model_validator(mode="after")
    def _check_active(self) -> "RIMConfig":
        if self.num_active > self.num_slots:
            raise ValueError(f"num_active {self.num_active} exceeds num_slots {self.num_slots}")
        return self


@register_model("slot-rnn", SlotRNNConfig)
class SlotRNN(SlotSequenceModel):
    """SlotRNN (paper, appendix C.2): a GRU shared by all slots, the slot mixer within the recurrence.

    A layer gives the states themselves, x = h. In a variant of ours, `residual = true` of the configuration, it adds
    its input to them. The norm before the recurrence is ours in both.
    """

    def __init__(self, config: SlotRNNConfig) -> None:
        def layer(config: SlotRNNConfig, reader: Reader | None) -> Layer:
            recurrence = SlotGRU(config.slot_dim, config.num_heads, config.layer_mlp_width, config.dropout)
            return JointSlotLayer(config.slot_dim, reader, recurrence, None, residual=config.residual)

        super().__init__(stack(config, slot_encoder(config), layer), config.num_slots, config.slot_dim)


@register_model("rim", RIMConfig)
class RIMs(SlotSequenceModel):
    """Recurrent Independent Mechanisms (Goyal et al. 2019, arXiv 1909.10893), as many units as slots.

    The units read the slot encoder's slots, which the paper gives to all models (section 7.1).
    """

    def __init__(self, config: RIMConfig) -> None:
        def layer(config: RIMConfig, reader: Reader | None) -> Layer:
            units = RIM(config.slot_dim, config.num_slots, config.num_active, config.num_heads, dropout=config.dropout)
            return JointSlotLayer(config.slot_dim, reader, units, None, residual=False)

        super().__init__(stack(config, slot_encoder(config), layer), config.num_slots, config.slot_dim)
