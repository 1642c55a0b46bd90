"""Baselines of the size of a SlotSSM: the same widths, depths, encoder and decoder."""

from functools import cache

import torch
from torch import nn

from slotssm.config import (
    EncodedModelConfig,
    RIMConfig,
    RunConfig,
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
TOLERANCE = 0.1
"""Models that are compared differ in size by no more than this share."""
_UNIT = 8
"""Hidden widths of MLPs are multiples of this."""


def with_model(run: RunConfig, name: str) -> RunConfig:
    """A run of SlotSSM with another model of the same size."""
    if not isinstance(run.model, SlotSSMConfig):
        raise InputError(f"{run.name} has a model of kind '{run.model.kind}'; baselines are matched to 'slotssm'")
    return run.model_copy(update={"model": matched(run.model, name)})


def matched(reference: SlotSSMConfig, name: str) -> EncodedModelConfig:
    """The model of that name with as many parameters as the reference, as nearly as the layers' MLPs allow.

    Width, slots, depth, heads, dropout and encoder are the reference's, the time mixer too where there is one; the
    MLPs of the layers are made wider or narrower until the sizes agree. Two exceptions: models of one slot have the
    same weights as with several, and so a smaller state; RIM has one layer, and weights of its own in every unit,
    which makes it larger, as in the paper.
    """
    kind = MODELS[name]
    if kind is SlotSSMConfig:
        return reference
    left_out = {"kind"} | {field for field in SlotSSMConfig.model_fields if field not in kind.model_fields}
    left_out |= {"num_slots"} if kind in (SingleStateSSMConfig, TransformerConfig) else set()
    left_out |= {"num_layers"} if kind is RIMConfig else set()
    values = reference.model_dump(exclude=left_out)
    if kind is RIMConfig:
        # four of six, as the paper has it
        return RIMConfig.model_validate({**values, "num_active": max(1, round(reference.num_slots * 2 / 3))})
    config = kind.model_validate(values)
    excess = (count_parameters(config) - count_parameters(reference)) / config.num_layers
    channel = 2 * config.slot_dim + 1  # parameters of one hidden channel
    hidden = int(config.slot_dim * (config.layer_mlp_ratio or config.mlp_ratio)) - excess / channel
    widened = max(_UNIT, round(hidden / _UNIT) * _UNIT)
    found = config.model_copy(update={"layer_mlp_ratio": widened / config.slot_dim})
    ratio = count_parameters(found) / count_parameters(reference)
    if abs(ratio - 1) > TOLERANCE:
        raise InputError(
            f"{name} cannot be given the size of this SlotSSM: it would have {ratio:.2f} times its parameters"
        )
    return found


@cache
def count_parameters(config: EncodedModelConfig) -> int:
    """Parameters of a model, without making its weights."""
    with torch.device("meta"):
        model: nn.Module = build_model(config)
    return sum(parameter.numel() for parameter in model.parameters())
