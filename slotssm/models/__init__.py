"""Sequence models over slots, with one interface.

Each module of this package registers its models on import; all of them are imported here.
"""

from importlib import import_module
from pkgutil import iter_modules

from slotssm.config import ModelConfig
from slotssm.models.composition import JointSlotLayer, Layer, SlotLayer, SlotSequenceModel
from slotssm.models.model import ModelOutput, ModelState, SlotModel
from slotssm.models.recurrent import RIMConfig, RIMs, SlotRNN, SlotRNNConfig
from slotssm.models.savi import SAVi, SAViConfig, SAViPlusPlus, SAViPlusPlusConfig
from slotssm.models.slot_transformer import SlotTransformer, SlotTransformerConfig, Transformer, TransformerConfig
from slotssm.models.stacks import EncodedModelConfig, SequenceModelConfig, StateSpaceModelConfig, build_time_mixer
from slotssm.models.state_space import (
    OCSlotSSM,
    OCSlotSSMConfig,
    SingleStateSSM,
    SingleStateSSMConfig,
    SlotSSM,
    SlotSSMConfig,
    SplitSSM,
    SplitSSMConfig,
)
from slotssm.registry import MODELS

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")


def build_model(config: ModelConfig) -> SlotModel:
    """The model that a configuration describes, with weights initialised from torch's global generator."""
    model: SlotModel = MODELS[config.kind].code(config)
    return model


__all__ = [
    "EncodedModelConfig",
    "JointSlotLayer",
    "Layer",
    "ModelOutput",
    "ModelState",
    "OCSlotSSM",
    "OCSlotSSMConfig",
    "RIMConfig",
    "RIMs",
    "SAVi",
    "SAViConfig",
    "SAViPlusPlus",
    "SAViPlusPlusConfig",
    "SequenceModelConfig",
    "SingleStateSSM",
    "SingleStateSSMConfig",
    "SlotLayer",
    "SlotModel",
    "SlotRNN",
    "SlotRNNConfig",
    "SlotSSM",
    "SlotSSMConfig",
    "SlotSequenceModel",
    "SlotTransformer",
    "SlotTransformerConfig",
    "SplitSSM",
    "SplitSSMConfig",
    "StateSpaceModelConfig",
    "Transformer",
    "TransformerConfig",
    "build_model",
    "build_time_mixer",
]
