"""What all models promise, whichever they are."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import (
    CASES,
    CONFIGS,
    DIM,
    ONE_SLOT,
    SLOTS,
    STEPS,
    TOKENS,
    TRANSFORMERS,
    build,
    case_name,
    close,
    close_states,
    parts,
    random_tokens,
    slots_of,
    start_of,
)

from slotssm.models import SAVi


@pytest.fixture(params=CASES, ids=case_name)
def model(request):
    return build(*request.param)


# --- one interface, one result ----------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=case_name)
@settings(deadline=None, max_examples=10)
@given(cuts=st.lists(st.integers(1, STEPS - 1), unique=True, max_size=4), step=st.booleans())
def test_any_chunking_and_stepping_equal_the_whole(case, cuts, step):
    model, tokens = build(*case), random_tokens()
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


def test_stepping_alone_equals_the_whole(model):
    tokens, state, slots = random_tokens(), None, []
    for t in range(STEPS):
        output = model.step(tokens[:, t], state)
        state = output.state
        slots.append(output.slots)
    whole = model(tokens)
    close(torch.cat(slots, 1), whole.slots)
    close_states(state, whole.state)


def test_no_state_is_the_initial_state(model):
    tokens = random_tokens()
    whole, begun = model(tokens), model(tokens, model.initial_state(2))
    close(begun.slots, whole.slots)
    close_states(begun.state, whole.state)
    # SAVi starts from slots that it has learned, all others from nothing
    assert any(part.any() for part in parts(model.initial_state(2))) == isinstance(model, SAVi)


def test_a_state_matters(model):
    tokens = random_tokens()
    state = model(random_tokens(seed=1)).state
    assert not torch.allclose(model(tokens, state).slots[:, 0], model(tokens).slots[:, 0])


def test_state_counts_the_steps(model):
    assert model.initial_state(2).num_steps == 0
    output = model(random_tokens())
    assert output.state.num_steps == STEPS
    assert model(random_tokens(), output.state).state.num_steps == 2 * STEPS
    assert model.step(random_tokens()[:, 0], output.state).state.num_steps == STEPS + 1
    assert model.step(random_tokens()[:, 0]).state.num_steps == 1


@pytest.mark.parametrize("case", [case for case in CASES if case[0] not in TRANSFORMERS], ids=case_name)
def test_state_has_one_size_whatever_was_seen(case):
    model = build(*case)
    short, long = (parts(model(random_tokens(steps=steps)).state) for steps in (1, 20))
    assert [part.shape for part in short] == [part.shape for part in long]


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_state_of_a_transformer_holds_all_slots_of_all_steps(kind):
    model = build(kind)
    for steps in (1, 4, 20):
        shapes = [part.shape for part in parts(model(random_tokens(steps=steps)).state)]
        # keys and values of two layers, by head
        assert shapes == [(2, 2, steps * slots_of(kind), DIM // 2)] * 4


def test_a_state_is_not_changed_by_its_use(model):
    state = model(random_tokens()).state
    before = [part.clone() for part in parts(state)]
    model(random_tokens(), state)
    model.step(random_tokens()[:, 0], state)
    assert all(map(torch.equal, parts(state), before))


# --- what meets what --------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=case_name)
@settings(deadline=None, max_examples=6)
@given(t=st.integers(0, STEPS - 1), token=st.integers(0, TOKENS - 1))
def test_nothing_reaches_earlier_steps(case, t, token):
    model, tokens = build(*case), random_tokens()
    changed = tokens.clone()
    changed[:, t, token] += torch.randn(DIM, dtype=torch.float64)
    before, after = model(tokens).slots, model(changed).slots
    assert torch.equal(after[:, :t], before[:, :t])
    # memory: some slot feels the change at its own step and at all later ones; not every slot does, since units
    # of RIM that are inactive keep their state
    assert ((after - before)[:, t:].abs().amax((2, 3)) > 1e-12).all()


def test_batch_elements_do_not_meet(model):
    tokens = random_tokens(batch=3)
    whole = model(tokens)
    close(model(tokens[1:2]).slots, whole.slots[1:2])
    changed = tokens.clone()
    changed[0] += torch.randn_like(changed[0])
    after = model(changed)
    close(after.slots[1:], whole.slots[1:])
    assert not torch.allclose(after.slots[0], whole.slots[0])
    close(model.step(changed[:, 0], whole.state).slots[1:], model.step(tokens[:, 0], whole.state).slots[1:])


def test_tokens_of_a_step_are_a_set(model):
    tokens = random_tokens()
    close(model(tokens[:, :, torch.randperm(TOKENS)]).slots, model(tokens).slots)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case[0] not in (*ONE_SLOT, "split-ssm", "rim")], ids=case_name
)
def test_slots_permute_with_their_learned_starts(case):
    model, tokens, order = build(*case), random_tokens(), torch.tensor([2, 0, 1])
    before = model(tokens)
    assert not torch.allclose(before.slots, before.slots[:, :, order])
    start_of(model).data = start_of(model).data[order]
    after = model(tokens)
    close(after.slots, before.slots[:, :, order])
    if before.attention is not None:
        close(after.attention, before.attention[:, :, order])


def test_slots_of_split_ssm_are_places_in_a_concatenation():
    # each has its own columns of the map to the one state: other starts there make other slots, not others' slots
    model, tokens, order = build("split-ssm"), random_tokens(), torch.tensor([2, 0, 1])
    before = model(tokens).slots
    start_of(model).data = start_of(model).data[order]
    after = model(tokens).slots
    assert ((after[:, :, :, None] - before[:, :, None]).abs().amax((1, 4)) > 1e-3).all()
    # columns that move along undo it
    join = model.layers[0].reader.join
    join.weight.data = join.weight.data.unflatten(1, (SLOTS, DIM))[:, order].flatten(1)
    close(model(tokens).slots, before)


def test_units_of_rim_have_weights_of_their_own_and_read_slots_as_a_set():
    # the encoder's slots are tokens for the units, so that their starts may change places and nothing happens
    model, tokens, order = build("rim"), random_tokens(), torch.tensor([2, 0, 1])
    before = model(tokens).slots
    assert not torch.allclose(before, before[:, :, order])
    start_of(model).data = start_of(model).data[order]
    close(model(tokens).slots, before)


# --- gradients and dropout --------------------------------------------------------------------------------


def idle_parameters(kind: str) -> set[str]:
    """Parameters that mathematically change nothing."""
    # one slot alone has one key, and its query nothing to choose
    encoder = {f"layers.0.reader.layers.{index}.self_attention.query.weight" for index in range(2)}
    mixers = {f"layers.{index}.slot_mixer.attention.query.weight" for index in range(2)}
    # what all slots' queries have in common cancels in a softmax over the slots
    common = {f"layers.{index}.reader.norm.bias" for index in range(2)}
    found = {"single-state-ssm": encoder | mixers, "transformer": encoder, "split-ssm": mixers, "oc-slotssm": common}
    found["savi"] = found["savi++"] = {"corrector.norm.bias"}
    return found.get(kind, set())


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_gradients_are_finite_and_reach_every_parameter(case):
    model = build(*case)
    slots = model(random_tokens()).slots
    (slots * torch.randn_like(slots)).sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    reached = {name for name, gradient in gradients.items() if gradient.abs().max() > 1e-12}
    assert {name for name, _ in model.named_parameters()} - reached == idle_parameters(case[0])


def test_gradients_reach_every_unit_of_rim():
    # one unit rests in every step; enough steps for each to be active, and to start from a state of its own
    model = build("rim")
    slots = model(random_tokens(batch=8, steps=30)).slots
    (slots * torch.randn_like(slots)).sum().backward()
    for layer in model.layers:
        for name in ("input_query", "weight_ih", "weight_hh", "bias_ih", "bias_hh", "query_key_value"):
            assert (layer.time_mixer.get_parameter(name).grad.abs().amax((1, 2)) > 1e-12).all(), name


def test_gradients_flow_back_through_a_carried_state(model):
    tokens = random_tokens().requires_grad_()
    state = model(tokens[:, :4]).state
    model(tokens[:, 4:].detach(), state).slots.square().sum().backward()
    assert (tokens.grad[:, :4].abs().amax((2, 3)) > 0).all()
    assert not tokens.grad[:, 4:].any()


def test_gradients_of_two_parts_are_those_of_the_whole(model):
    weight = torch.randn(2, STEPS, 1, DIM, dtype=torch.float64)
    found = []
    for cut in (0, 4):
        tokens = random_tokens().requires_grad_()
        first = model(tokens[:, :cut]) if cut else None
        rest = model(tokens[:, cut:], first.state if first else None)
        slots = torch.cat([first.slots, rest.slots], 1) if first else rest.slots
        found.append(torch.autograd.grad((slots * weight).sum(), [tokens, *model.parameters()], materialize_grads=True))
    for whole, parted in zip(*found, strict=True):
        close(parted, whole)


@pytest.mark.parametrize("kind", CONFIGS)
def test_dropout_is_of_training_only(kind):
    model, tokens = build(kind, dropout=0.5), random_tokens()
    still = model(tokens).slots
    assert torch.equal(model(tokens).slots, still)
    close(still, build(kind)(tokens).slots)
    model.train()
    assert not torch.allclose(model(tokens).slots, model(tokens).slots)
    # the layers have their own beside that of the encoder, SAVi's corrector beside that of the predictor, and the
    # second block of SAVi++'s predictor beside the first
    {"savi": lambda: model.predictor, "savi++": lambda: model.predictor[0]}.get(
        kind, lambda: model.layers[0].reader
    )().eval()
    assert not torch.allclose(model(tokens).slots, model(tokens).slots)
    # SAVi++ has no dropout before its first slots
    second = model.step(tokens[:, 1], model.step(tokens[:, 0], None).state)
    assert not torch.allclose(second.slots, still[:, 1:2])
