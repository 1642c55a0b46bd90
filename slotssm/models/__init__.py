"""Sequence models over slots, composed from layers; one interface for all of them."""

from slotssm.models.composition import JointSlotLayer, Layer, SlotLayer, SlotSequenceModel
from slotssm.models.model import ModelOutput, ModelState, SlotModel
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
    "JointSlotLayer",
    "Layer",
    "ModelOutput",
    "ModelState",
    "OCSlotSSM",
    "RIMs",
    "SAVi",
    "SingleStateSSM",
    "SlotLayer",
    "SlotModel",
    "SlotRNN",
    "SlotSSM",
    "SlotSequenceModel",
    "SlotTransformer",
    "SplitSSM",
    "Transformer",
    "build_model",
]
