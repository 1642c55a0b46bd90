"""Baselines of the size of a SlotSSM or an OC-SlotSSM: the same widths, depths, encoder and decoder."""

from functools import cache
from typing import overload

import torch
from torch import nn

from slotssm.config import (
    EncodedModelConfig,
    ObjectModelConfig,
    OCSlotSSMConfig,
    RIMConfig,
    RunConfig,
    SAViConfig,
    SingleStateSSMConfig,
    SlotRNNConfig,
    SlotSSMConfig,
    SlotTransformerConfig,
    SplitSSMConfig,
    TransformerConfig,
)
from slotssm.errors import InputError
from slotssm.models import build_model

MODELS: dict[str, type[EncodedModelConfig]] = {
    "slotssm": SlotSSMConfig,
    "slot-transformer": SlotTransformerConfig,
    "single-state-ssm": SingleStateSSMConfig,
    "split-ssm": SplitSSMConfig,
    "transformer": TransformerConfig,
    "slot-rnn": SlotRNNConfig,
    "rim": RIMConfig,
}
"""Names of the models that the sequence experiments compare."""
OBJECT_MODELS: dict[str, type[ObjectModelConfig]] = {"oc-slotssm": OCSlotSSMConfig, "savi": SAViConfig}
"""Names of the models that the object-centric experiment compares."""
TOLERANCE = 0.1
"""Models that are compared differ in size by no more than this share."""
_UNIT = 8
"""Hidden widths of MLPs are multiples of this."""


def with_model(run: RunConfig, name: str) -> RunConfig:
    """A run of SlotSSM or OC-SlotSSM with another model of the same size."""
    if not isinstance(run.model, SlotSSMConfig | OCSlotSSMConfig):
        raise InputError(
            f"{run.name} has a model of kind '{run.model.kind}'; baselines are matched to 'slotssm' or 'oc-slotssm'"
        )
    return run.model_copy(update={"model": matched(run.model, name)})


@overload
def matched(reference: SlotSSMConfig, name: str) -> EncodedModelConfig: ...
@overload
def matched(reference: OCSlotSSMConfig, name: str) -> ObjectModelConfig: ...
def matched(reference: SlotSSMConfig | OCSlotSSMConfig, name: str) -> EncodedModelConfig | ObjectModelConfig:
    """The model of that name with as many parameters as the reference, as nearly as the layers' MLPs allow.

    Width, slots, depth, heads, dropout and encoder are the reference's, the time mixer too where there is one; the
    MLPs of the layers are made wider or narrower until the sizes agree. Three exceptions: models of one slot have
    the same weights as with several, and so a smaller state; RIM has one layer, and weights of its own in every
    unit, which makes it larger, as in the paper; SAVi has one block in its predictor, whatever the depth.

    Raises:
        KeyError: the name belongs to no model that is compared with the reference.
        InputError: MLPs of no width give the size.
    """
    kind = (MODELS if isinstance(reference, SlotSSMConfig) else OBJECT_MODELS)[name]
    if kind is type(reference):
        return reference
    left_out = {"kind"} | set(type(reference).model_fields) - set(kind.model_fields)
    left_out |= {"num_slots"} if kind in (SingleStateSSMConfig, TransformerConfig) else set()
    left_out |= {"num_layers"} if kind in (RIMConfig, SAViConfig) else set()
    values = reference.model_dump(exclude=left_out)
    if kind is RIMConfig:
        # four of six, as the paper has it
        return RIMConfig.model_validate({**values, "num_active": max(1, round(reference.num_slots * 2 / 3))})
    config = kind.model_validate(values)
    num_mlps = config.num_layers + isinstance(config, SAViConfig)  # the corrector has one too
    excess = (count_parameters(config) - count_parameters(reference)) / num_mlps
    channel = 2 * config.slot_dim + 1  # parameters of one hidden channel
    hidden = int(config.slot_dim * (config.layer_mlp_ratio or config.mlp_ratio)) - excess / channel
    widened = max(_UNIT, round(hidden / _UNIT) * _UNIT)
    found = config.model_copy(update={"layer_mlp_ratio": widened / config.slot_dim})
    ratio = count_parameters(found) / count_parameters(reference)
    if abs(ratio - 1) > TOLERANCE:
        raise InputError(
            f"{name} cannot be given the size of this {reference.kind}: it would have {ratio:.2f} times its parameters"
        )
    return found


@cache
def count_parameters(config: EncodedModelConfig | ObjectModelConfig) -> int:
    """Parameters of a model, without making its weights."""
    with torch.device("meta"):
        model: nn.Module = build_model(config)
    return sum(parameter.numel() for parameter in model.parameters())
