from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slotssm.config import Mamba2Config, MambaConfig, OCSlotSSMConfig, S4DConfig, S5Config, SlotSSMConfig
from slotssm.layers import S4D, S5, Mamba, Mamba2
from slotssm.models import OCSlotSSM, SlotSSM, build_model

KINDS = ("slotssm", "oc-slotssm")
MIXERS = {
    "mamba": MambaConfig(d_state=4, expand=1.25),
    "mamba2": Mamba2Config(d_state=4, headdim=4, ngroups=2),
    "s4d": S4DConfig(d_state=4),
    "s5": S5Config(d_state=4),
}
STEPS, TOKENS, SLOTS, DIM = 9, 5, 3, 8


def build(kind: str, mixer: str = "mamba", **changes):
    """A small model in float64 whose parameters have all left their initial values."""
    common = {
        "num_slots": SLOTS,
        "slot_dim": DIM,
        "num_layers": 2,
        "num_heads": 2,
        "mlp_ratio": 2.0,
        "time_mixer": MIXERS[mixer],
    } | changes
    config = SlotSSMConfig(num_encoder_layers=2, **common) if kind == "slotssm" else OCSlotSSMConfig(**common)
    torch.manual_seed(3)
    model = build_model(config).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def random_tokens(batch: int = 2, steps: int = STEPS, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, steps, TOKENS, DIM, generator=generator, dtype=torch.float64)


def start_of(model) -> torch.nn.Parameter:
    """The learned vectors that tell the slots apart."""
    return model.queries if model.queries is not None else model.layers[0].reader.cls


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def close_states(ours, theirs):
    assert ours.num_steps == theirs.num_steps
    for layer, other in zip(ours.layers, theirs.layers, strict=True):
        for part, other_part in zip(layer, other, strict=True):
            close(part, other_part)


@pytest.fixture(params=[(kind, mixer) for mixer in MIXERS for kind in KINDS], ids="-".join)
def model(request):
    return build(*request.param)


# --- one interface, one result ----------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(
    kind=st.sampled_from(KINDS),
    mixer=st.sampled_from(list(MIXERS)),
    cuts=st.lists(st.integers(1, STEPS - 1), unique=True, max_size=4),
    step=st.booleans(),
)
def test_any_chunking_and_stepping_equal_the_whole(kind, mixer, cuts, step):
    model, tokens = build(kind, mixer), random_tokens()
    whole = model(tokens)
    edges, state, pieces = [0, *sorted(cuts), STEPS], None, []
    for index, (first, last) in enumerate(pairwise(edges)):
        # sequences and single steps take turns, each going on from what the other left
        if step == bool(index % 2):
            pieces.append(model(tokens[:, first:last], state))
            state = pieces[-1].state
        else:
            for t in range(first, last):
                pieces.append(model.step(tokens[:, t], state))
                state = pieces[-1].state
    close(torch.cat([piece.slots for piece in pieces], 1), whole.slots)
    if whole.attention is not None:
        close(torch.cat([piece.attention for piece in pieces], 1), whole.attention)
    close_states(state, whole.state)


def test_state_counts_the_steps(model):
    assert model.initial_state(2).num_steps == 0
    output = model(random_tokens())
    assert output.state.num_steps == STEPS
    assert model(random_tokens(), output.state).state.num_steps == 2 * STEPS
    assert model.step(random_tokens()[:, 0], output.state).state.num_steps == STEPS + 1
    assert model.step(random_tokens()[:, 0]).state.num_steps == 1


def test_state_has_one_size_whatever_was_seen(model):
    short, long = (model(random_tokens(steps=steps)).state for steps in (1, 20))
    for one, other in zip(short.layers, long.layers, strict=True):
        assert [part.shape for part in one] == [part.shape for part in other]


def test_a_state_is_not_changed_by_its_use(model):
    state = model(random_tokens()).state
    before = [part.clone() for layer in state.layers for part in layer]
    model(random_tokens(), state)
    model.step(random_tokens()[:, 0], state)
    assert all(torch.equal(part, old) for part, old in zip((p for la in state.layers for p in la), before, strict=True))


# --- what the paper says ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_model_is_the_papers_composition(kind):
    # slot by slot and step by step, where the model folds slots and time into the batch
    model, tokens = build(kind), random_tokens()
    slots = None if kind == "slotssm" else [model.queries.expand(2, -1, -1)] * STEPS
    for layer in model.layers:
        if kind == "oc-slotssm":
            read = [layer.reader(slots[t], tokens[:, t]) for t in range(STEPS)]
            slots = [updated for updated, _ in read]
        elif slots is None:
            slots = [layer.reader(tokens[:, t]) for t in range(STEPS)]
        else:
            assert layer.reader is None
        stacked = torch.stack(slots, 1)
        over_time = [stacked[:, :, k] + layer.time_mixer(layer.time_norm(stacked[:, :, k]))[0] for k in range(SLOTS)]
        slots = [layer.slot_mixer(torch.stack([slot[:, t] for slot in over_time], 1)) for t in range(STEPS)]
    output = model(tokens)
    close(output.slots, torch.stack(slots, 1))
    if kind == "oc-slotssm":
        close(output.attention, torch.stack([attention for _, attention in read], 1))
    else:
        assert output.attention is None


def test_slots_compete_for_every_token():
    attention = build("oc-slotssm")(random_tokens()).attention
    assert attention.shape == (2, STEPS, SLOTS, TOKENS)
    close(attention.sum(2), torch.ones(2, STEPS, TOKENS, dtype=torch.float64))


def test_time_is_mixed_within_each_slot_alone():
    model = build("slotssm", num_layers=1)
    layer = model.layers[0]
    slots = torch.randn(2, STEPS, SLOTS, DIM, dtype=torch.float64)
    changed = slots.clone()
    changed[:, 2, 1] += torch.randn(DIM, dtype=torch.float64)
    moved = (layer.mix_time(changed, None)[0] - layer.mix_time(slots, None)[0]).abs().sum(-1)
    assert (moved[:, :, [0, 2]] == 0).all()
    assert (moved[:, :2, 1] == 0).all()
    assert (moved[:, 2:, 1] > 0).all()


def test_slots_permute_with_their_learned_starts(model):
    tokens, order = random_tokens(), torch.tensor([2, 0, 1])
    before = model(tokens)
    assert not torch.allclose(before.slots, before.slots[:, :, order])
    start_of(model).data = start_of(model).data[order]
    after = model(tokens)
    close(after.slots, before.slots[:, :, order])
    if before.attention is not None:
        close(after.attention, before.attention[:, :, order])


def test_tokens_of_a_step_are_a_set(model):
    tokens = random_tokens()
    close(model(tokens[:, :, torch.randperm(TOKENS)]).slots, model(tokens).slots)


@settings(deadline=None, max_examples=20)
@given(
    kind=st.sampled_from(KINDS),
    mixer=st.sampled_from(list(MIXERS)),
    t=st.integers(0, STEPS - 1),
    token=st.integers(0, TOKENS - 1),
)
def test_nothing_reaches_earlier_steps(kind, mixer, t, token):
    model, tokens = build(kind, mixer), random_tokens()
    changed = tokens.clone()
    changed[:, t, token] += torch.randn(DIM, dtype=torch.float64)
    before, after = model(tokens).slots, model(changed).slots
    close(after[:, :t], before[:, :t])
    # memory: the change is felt at its own step and at all later ones
    assert ((after - before)[:, t:].abs().amax((2, 3)) > 1e-12).all()


def test_batch_elements_do_not_meet(model):
    tokens = random_tokens(batch=3)
    whole = model(tokens)
    close(model(tokens[1:2]).slots, whole.slots[1:2])
    changed = tokens.clone()
    changed[0] += 1
    close(model(changed).slots[1:], whole.slots[1:])


def test_gradients_are_finite_and_reach_every_parameter(model):
    slots = model(random_tokens()).slots
    (slots * torch.randn_like(slots)).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_gradients_flow_back_through_a_carried_state(model):
    tokens = random_tokens().requires_grad_()
    state = model(tokens[:, :4]).state
    model(tokens[:, 4:].detach(), state).slots.square().sum().backward()
    assert (tokens.grad[:, :4].abs().amax((2, 3)) > 0).all()
    assert not tokens.grad[:, 4:].any()


@pytest.mark.parametrize(("kind", "model_class"), [("slotssm", SlotSSM), ("oc-slotssm", OCSlotSSM)])
def test_configuration_decides_the_model(kind, model_class):
    model = build(kind, num_layers=3, num_slots=5)
    assert isinstance(model, model_class)
    assert len(model.layers) == 3
    assert model(random_tokens()).slots.shape == (2, STEPS, 5, DIM)
    assert all(layer.time_mixer.d_inner == int(1.25 * DIM) for layer in model.layers)


@pytest.mark.parametrize(
    ("mixer", "mixer_class"), [("mamba", Mamba), ("mamba2", Mamba2), ("s4d", S4D), ("s5", S5)], ids=list(MIXERS)
)
@pytest.mark.parametrize("kind", KINDS)
def test_configuration_decides_the_time_mixer_and_all_of_its_fields(kind, mixer, mixer_class):
    for layer in build(kind, mixer).layers:
        assert type(layer.time_mixer) is mixer_class
        assert layer.time_mixer.d_state == 4
    if mixer == "mamba2":
        assert (layer.time_mixer.headdim, layer.time_mixer.ngroups, layer.time_mixer.chunk_size) == (4, 2, 32)


def test_dropout_is_of_training_only():
    model, tokens = build("slotssm", dropout=0.5), random_tokens()
    assert torch.equal(model(tokens).slots, model(tokens).slots)
    model.train()
    assert not torch.equal(model(tokens).slots, model(tokens).slots)
