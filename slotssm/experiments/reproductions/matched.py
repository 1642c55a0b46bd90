"""Baselines matched in size to a SlotSSM or an OC-SlotSSM, with the same widths, depths, encoder and decoder.

SAVi++ alone has an encoder of its own, with which it is matched together.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from slotssm.config import ModelConfig, RunConfig
from slotssm.documents import load, override
from slotssm.errors import InputError
from slotssm.experiments.datasets import spec_of
from slotssm.experiments.reproductions.comparison import Row
from slotssm.models import SequenceModelConfig, build_model
from slotssm.registry import MODELS
from slotssm.tasks import build_task

SEQUENCE_MODELS = (
    "slotssm",
    "slot-transformer",
    "single-state-ssm",
    "split-ssm",
    "transformer",
    "slot-rnn",
    "rim",
)
"""Models with a slot encoder, which are compared in the paper's sequence experiments."""
WIDE, RESIDUAL = "wide-single-state-ssm", "residual-slot-rnn"
VARIANTS: Mapping[str, str] = MappingProxyType({WIDE: "single-state-ssm", RESIDUAL: "slot-rnn"})
"""Further models that are compared, with their kinds: Single State SSM with as many state channels as all slots of the
SlotSSM together, and thus more parameters; SlotRNN whose layers add their inputs to their states, which the paper's do
not."""
OBJECT_MODELS = ("oc-slotssm", "savi")
"""Models whose slots compete for tokens, which are compared in the paper's object-centric experiments."""
SNITCH_MODELS = ("slotssm", "slot-transformer", "single-state-ssm", "oc-slotssm")
"""Models that are compared in the paper's localisation of the snitch, where slots may or may not compete."""
DEPTH_MODELS = ("oc-slotssm", "savi++")
"""Models that are compared in the paper's depth experiment."""
MODULAR_MODELS = ("slotssm", "slot-transformer", "split-ssm", "slot-rnn", RESIDUAL, "rim")
"""Models with several slots that do not compete for tokens, in which the paper looks for emergent modularity."""
TOLERANCE = 0.1
"""Largest relative difference in size between models that are compared."""
_UNIT = 8
"""Hidden widths of MLPs are multiples of this."""
_COMPARED = {
    SEQUENCE_MODELS[0]: tuple(dict.fromkeys((*SEQUENCE_MODELS, *VARIANTS, *SNITCH_MODELS))),
    OBJECT_MODELS[0]: tuple(dict.fromkeys((*OBJECT_MODELS, *DEPTH_MODELS))),
}
"""Models that have the size of a reference, by its kind."""


def with_model(run: RunConfig, name: str) -> RunConfig:
    """Replace the SlotSSM or OC-SlotSSM of a run by another model of the same size."""
    return run.replace(model=matched(run.model, name))


def with_encoder(run: RunConfig, name: str, encoder: Mapping[str, Any]) -> RunConfig:
    """Replace the OC-SlotSSM of a run by another model with another frame encoder, of the same size together.

    Args:
        run: a run of OC-SlotSSM.
        name: kind of the model.
        encoder: fields of the task that describe its encoder.
    """
    changed = override(run, {"task": dict(encoder)}, name)
    further = _count_encoder(changed) - _count_encoder(run)
    return changed.replace(model=matched(run.model, name, further))


def _count_encoder(run: RunConfig) -> int:
    """Number of parameters of the frame encoder of a run."""
    with torch.device("meta"):
        task = build_task(run, spec_of(run.data))
    return sum(parameter.numel() for parameter in task.get_submodule("encoder").parameters())


def matched(reference: ModelConfig, name: str, further: int = 0) -> ModelConfig:
    """Configuration of a model with about as many parameters as the reference, of those that can have an effect.

    Width, slots, depth, heads, dropout, encoder and (where there is one) time mixer are those of the reference; the
    MLPs of the layers are widened or narrowed until the sizes agree. Exceptions: single-state models have the same
    number of parameters but one slot, and so a smaller state, and `WIDE` has a state of the same size and more
    parameters; RIM has one layer, and separate weights in every unit, which makes it larger, as in the paper; SAVi has
    one block in its predictor, regardless of depth. An OC-SlotSSM of the size of a SlotSSM reads the tokens in every
    layer and has no slot encoder before the first.

    Args:
        reference: configuration of a SlotSSM or an OC-SlotSSM.
        name: kind of the model to configure, or one of `VARIANTS`.
        further: parameters that other parts of its task have beyond those of the reference's; it gets fewer by as many.

    Raises:
        InputError: the model is not compared with the reference, or no MLP width gives the size.
    """
    if name not in _COMPARED.get(reference.kind, ()):
        known = " and ".join(f"'{names[0]}' ({', '.join(names[1:])})" for names in _COMPARED.values())
        raise InputError(
            f"a model of kind '{reference.kind}' has no '{name}' of its size; baselines are matched to {known}"
        )
    if name == reference.kind:
        return reference
    if name == WIDE:
        return _wide(reference)
    if name == RESIDUAL:
        return matched(reference, VARIANTS[name], further).replace(residual=True)
    kind = MODELS[name].config_class
    assert issubclass(kind, SequenceModelConfig)
    config = kind.like(reference)
    if not config.num_layer_mlps:
        return config
    goal = count_used_parameters(reference) - further
    excess = (count_used_parameters(config) - goal) / config.num_layer_mlps
    channel = 2 * config.slot_dim + 1  # parameters of one hidden channel
    hidden = int(config.slot_dim * config.layer_mlp_width) - excess / channel
    widened = max(_UNIT, round(hidden / _UNIT) * _UNIT)
    found = config.replace(layer_mlp_ratio=widened / config.slot_dim)
    ratio = (count_used_parameters(found) + further) / count_used_parameters(reference)
    if abs(ratio - 1) > TOLERANCE:
        raise InputError(
            f"{name} cannot be given the size of this {reference.kind}: it would have {ratio:.2f} times its parameters"
        )
    return found


def _wide(reference: ModelConfig) -> ModelConfig:
    """A single-state model whose state has K times the channels of one slot's state."""
    single = MODELS[VARIANTS[WIDE]].config_class.like(reference)  # type: ignore[attr-defined]
    mixer = single.time_mixer
    width = "expand" if "expand" in type(mixer).model_fields else "d_state"
    wider = mixer.replace(**{width: reference.num_slots * getattr(mixer, width)})
    return single.replace(time_mixer=wider)


def configs_of(rows: Sequence[Row]) -> dict[str, ModelConfig]:
    """Configurations of the models in a table, by name, from its records."""
    found: dict[str, ModelConfig] = {}
    for row in rows:
        document = row.records[0]["config"]["model"]
        config = load(MODELS.config_class(document), document, row.model)
        assert isinstance(config, ModelConfig)
        found.setdefault(row.model, config)
    return found


def sizes_note(configs: Mapping[str, ModelConfig]) -> str:
    """Note on model sizes: shares of parameters that cannot have any effect and are not matched; empty if none.

    Queries and keys of attention over a single slot have no effect, since a softmax over one key is 1.

    Args:
        configs: configurations by name of the model.
    """
    unused = {name: 1 - count_used_parameters(config) / count_parameters(config) for name, config in configs.items()}
    shown = ", ".join(f"{name} {share:.0%}" for name, share in unused.items() if share >= 0.01)
    return f"parameters of the sequence model without effect, beyond those that are matched: {shown}." if shown else ""


@cache
def count_used_parameters(config: ModelConfig) -> int:
    """Number of parameters that can have an effect."""
    with torch.device("meta"):
        return build_model(config).count_used_parameters()


@cache
def count_parameters(config: ModelConfig) -> int:
    """Number of parameters, without allocating weights."""
    with torch.device("meta"):
        model: nn.Module = build_model(config)
    return sum(parameter.numel() for parameter in model.parameters())
