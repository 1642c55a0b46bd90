"""Parameters of whole models: which decay, and which can never receive a gradient."""

import pytest
import torch
from model_cases import (
    CASES,
    CONFIGS,
    CORRECTING,
    MIXERS,
    ONE_SLOT,
    SLOTS,
    STATE_SPACE,
    build,
    case_name,
    config_of,
    random_tokens,
)

from slotssm.layers import count_unused_parameters, decayed_parameters
from slotssm.models import build_model


def linear(*names: str) -> set[str]:
    return {f"{name}.weight" for name in names}


def attention(name: str) -> set[str]:
    return linear(f"{name}.query", f"{name}.key_value", f"{name}.out")


def mlp(name: str) -> set[str]:
    return linear(f"{name}.net.1", f"{name}.net.3")


def mixer(name: str) -> set[str]:
    return attention(f"{name}.attention") | mlp(f"{name}.mlp")


def encoder(name: str) -> set[str]:
    found = linear(f"{name}.to_slots")
    for layer in ("layers.0", "layers.1"):
        of_kinds = [attention(f"{name}.{layer}.{kind}_attention") for kind in ("self", "cross")]
        found |= set.union(*of_kinds, mlp(f"{name}.{layer}.mlp"))
    return found


TIME_MIXERS = {
    "mamba": ("in_proj", "conv1d", "x_proj", "dt_proj", "out_proj"),
    "mamba2": ("in_proj", "conv1d", "out_proj"),
    "s4d": ("out_proj",),
    "s5": ("gate",),
}


def expected(kind: str, time_mixer: str) -> set[str]:
    """Names of the parameters of a model of two layers that decay."""
    if kind in CORRECTING:
        found = linear("corrector.query", "corrector.key_value")
        found |= mlp("corrector.mlp") if kind == "savi" else set()
        found |= {"corrector.gru.weight_ih", "corrector.gru.weight_hh"}
        return found | mixer("predictor.0") | mixer("predictor.1")
    found = set()
    if kind == "split-ssm":
        found |= encoder("layers.0.reader.encoder") | linear("layers.0.reader.join", "splitter.split")
    elif kind != "oc-slotssm":
        found |= encoder("layers.0.reader")
    for layer in ("layers.0", "layers.1"):
        if kind == "oc-slotssm":
            found |= attention(f"{layer}.reader")
        if kind in STATE_SPACE:
            found |= linear(*(f"{layer}.time_mixer.{name}" for name in TIME_MIXERS[time_mixer]))
            found |= mixer(f"{layer}.slot_mixer")
        elif kind == "slot-rnn":
            found |= {f"{layer}.time_mixer.gru.weight_{part}" for part in ("ih", "hh")}
            found |= mixer(f"{layer}.time_mixer.mixer")
        elif kind == "rim":
            found |= linear(*(f"{layer}.time_mixer.{name}" for name in ("input_key", "input_value", "out_gate")))
            own = ("weight_ih", "weight_hh", "input_query", "query_key_value")
            found |= {f"{layer}.time_mixer.{name}" for name in own}
        else:
            found |= attention(f"{layer}.time_mixer") | mlp(f"{layer}.slot_mixer")
    return found


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_weight_decay_by_name(case):
    model = build(*case)
    decayed = {id(parameter) for parameter in decayed_parameters(model)}
    assert {name for name, parameter in model.named_parameters() if id(parameter) in decayed} == expected(*case)


COUNTED = [(kind, "mamba", 1) for kind in CONFIGS] + [("slotssm", mixer, 1) for mixer in MIXERS if mixer != "mamba"]
COUNTED += [(*case, SLOTS) for case in CASES if case[0] not in ONE_SLOT]


@pytest.mark.parametrize(("kind", "time_mixer", "num_slots"), COUNTED)
def test_used_parameters_are_those_that_a_backward_pass_reaches(kind, time_mixer, num_slots):
    active = {"num_active": max(1, num_slots - 1)} if kind == "rim" else {}
    model = build(kind, time_mixer, num_slots=num_slots, **active)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("Lambda_re"):
                # S5 cuts off real parts that would let a state grow, and their gradient
                parameter.clamp_(max=-0.1)
    slots = model(random_tokens(batch=8, steps=30)).slots
    loss = (slots * torch.randn_like(slots)).sum()
    gradients = torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)
    # a softmax over one key leaves rounding errors of a gradient
    rounding = 1e-12 * max(gradient.abs().max() for gradient in gradients)
    reached = sum(int((gradient.abs() > rounding).sum()) for gradient in gradients)
    assert model.count_used_parameters() == reached


def test_a_model_without_weights_can_be_counted():
    for kind in CONFIGS:
        with torch.device("meta"):
            model = build_model(config_of(kind))
        assert model.count_used_parameters() == build(kind).count_used_parameters()


@pytest.mark.parametrize("kind", ["single-state-ssm", "transformer"])
def test_queries_and_keys_of_one_slot_are_left_out(kind):
    model, dim = build(kind), 8
    unused = count_unused_parameters(model, 1)
    # two layers of the slot encoder, and slot mixers where there are any
    assert unused == 2 * dim**2 * (4 if kind == "single-state-ssm" else 2)
    assert model.count_used_parameters() == sum(parameter.numel() for parameter in model.parameters()) - unused
