"""Sequence models over slots, composed from layers; one interface for all of them."""

from slotssm.models.composition import ModelOutput, ModelState, SlotSequenceModel
from slotssm.models.rows import OCSlotSSM, SlotSSM, build_model

__all__ = ["ModelOutput", "ModelState", "OCSlotSSM", "SlotSSM", "SlotSequenceModel", "build_model"]
