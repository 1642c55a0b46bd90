"""Sequence models over slots, composed from layers; one interface for all of them."""

from slotssm.models.composition import ModelOutput, ModelState, SlotSequenceModel
from slotssm.models.rows import (
    OCSlotSSM,
    RIMs,
    SingleStateSSM,
    SlotRNN,
    SlotSSM,
    SlotTransformer,
    SplitSSM,
    Transformer,
    build_model,
)
from slotssm.models.savi import SAVi

__all__ = [
    "ModelOutput",
    "ModelState",
    "OCSlotSSM",
    "RIMs",
    "SAVi",
    "SingleStateSSM",
    "SlotRNN",
    "SlotSSM",
    "SlotSequenceModel",
    "SlotTransformer",
    "SplitSSM",
    "Transformer",
    "build_model",
]
