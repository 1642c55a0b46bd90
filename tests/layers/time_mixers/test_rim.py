import math
from itertools import pairwise
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slotssm.errors import InputError
from slotssm.layers.time_mixers.rim import RIM, RIMState

DIM, UNITS, ACTIVE, HEADS, TOKENS, LENGTH = 6, 5, 3, 2, 4, 15


def build(num_units: int = UNITS, num_active: int = ACTIVE, dim: int = DIM, heads: int = HEADS) -> RIM:
    torch.manual_seed(1)
    rim = RIM(dim, num_units, num_active, heads, input_key_dim=5).double().eval()
    with torch.no_grad():
        for parameter in rim.parameters():
            parameter.mul_(1.5)
    return rim


def random_tokens(batch: int = 2, length: int = LENGTH, num_tokens: int = TOKENS, dim: int = DIM) -> torch.Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, length, num_tokens, dim, dtype=torch.float64, generator=generator)


def random_state(batch: int = 2, num_units: int = UNITS) -> RIMState:
    return RIMState(torch.randn(batch, num_units, DIM, dtype=torch.float64))


class Slow(NamedTuple):
    """What the slow loop finds: hidden states [T, K, D] and the numbers of the active units of each step."""

    hidden: torch.Tensor
    active: list[list[int]]


def softmax(scores: list[torch.Tensor]) -> list[torch.Tensor]:
    powers = [torch.exp(score) for score in scores]
    return [power / sum(powers) for power in powers]


def read_tokens(rim: RIM, tokens: torch.Tensor, hidden: torch.Tensor, unit: int):
    """What one unit reads from the tokens of one step, and its attention on the null token."""
    query = hidden[unit] @ rim.input_query[unit]
    rows = [torch.zeros_like(tokens[0]), *tokens]
    weights = softmax([query @ (rim.input_key.weight @ row) / math.sqrt(5) for row in rows])
    return sum(weight * (rim.input_value.weight @ row) for weight, row in zip(weights, rows, strict=True)), weights[0]


def read_units(rim: RIM, hidden: list[torch.Tensor], unit: int) -> torch.Tensor:
    """What one unit adds to its state after reading from all of them."""
    dim = hidden[unit].shape[0]
    width, heads = dim // rim.num_heads, []
    maps = [matrix.split(dim, -1) for matrix in rim.query_key_value]
    for head in range(rim.num_heads):
        part = slice(head * width, (head + 1) * width)
        query = (hidden[unit] @ maps[unit][0])[part]
        keys = [(state @ of_unit[1])[part] for state, of_unit in zip(hidden, maps, strict=True)]
        values = [(state @ of_unit[2])[part] for state, of_unit in zip(hidden, maps, strict=True)]
        weights = softmax([query @ key / math.sqrt(width) for key in keys])
        heads.append(sum(weight * value for weight, value in zip(weights, values, strict=True)))
    joined = rim.out_gate.weight @ torch.cat(heads) + rim.out_gate.bias
    return torch.sigmoid(joined[dim:]) * torch.tanh(joined[:dim])


def slow(rim: RIM, tokens: torch.Tensor, hidden: torch.Tensor) -> Slow:
    """One sequence of one sample, unit by unit; inactive ones are never computed."""
    outputs, all_active = [], []
    for now in tokens:
        read = [read_tokens(rim, now, hidden, unit) for unit in range(rim.num_units)]
        # among equals, Python's sort keeps those with lower numbers first
        active = sorted(range(rim.num_units), key=lambda unit: read[unit][1].item())[: rim.num_active]
        moved = list(hidden)
        for unit in active:
            weights = [rim.weight_ih[unit].T, rim.weight_hh[unit].T, rim.bias_ih[unit, 0], rim.bias_hh[unit, 0]]
            moved[unit] = torch.gru_cell(read[unit][0][None], hidden[unit][None], *weights)[0]
        heard = list(moved)
        for unit in active:
            heard[unit] = moved[unit] + read_units(rim, moved, unit)
        hidden = torch.stack(heard)
        outputs.append(hidden)
        all_active.append(active)
    return Slow(torch.stack(outputs), all_active)


def slow_batch(rim: RIM, tokens: torch.Tensor, state: RIMState) -> torch.Tensor:
    return torch.stack([slow(rim, *sample).hidden for sample in zip(tokens, state.hidden, strict=True)])


def close(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


# --- the formula ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_units", "num_active"), [(5, 3), (5, 1), (4, 4), (1, 1)])
@pytest.mark.parametrize("num_tokens", [1, 4])
def test_it_is_the_slow_loop(num_units, num_active, num_tokens):
    rim, tokens = build(num_units, num_active), random_tokens(num_tokens=num_tokens)
    for state in (rim.initial_state(2), random_state(2, num_units)):
        y, end = rim(tokens, state)
        expected = slow_batch(rim, tokens, state)
        close((y, end.hidden), (expected, expected[:, -1]))


def test_gradients_are_those_of_the_slow_loop():
    rim, tokens, state = build(), random_tokens().requires_grad_(), random_state()
    inputs = [tokens, state.hidden.requires_grad_(), *rim.parameters()]
    weight = torch.randn(2, LENGTH, UNITS, DIM, dtype=torch.float64)
    found = torch.autograd.grad((rim(tokens, state)[0] * weight).sum(), inputs)
    close(found, torch.autograd.grad((slow_batch(rim, tokens, state) * weight).sum(), inputs))
    assert all(gradient.any() for gradient in found)


def test_gradients_are_those_of_finite_differences():
    rim, tokens = build(3, 2, dim=2, heads=1), random_tokens(1, 3, 2, 2).requires_grad_()
    hidden = torch.randn(1, 3, 2, dtype=torch.float64, requires_grad=True)

    def outputs(tokens, hidden, *parameters):
        return rim(tokens, RIMState(hidden))[0]

    assert torch.autograd.gradcheck(outputs, (tokens, hidden, *rim.parameters()))


def test_initial_weights_are_uniform_within_the_root_of_the_width():
    rim = RIM(16, 6, 4, 4)
    for name in ("input_query", "weight_ih", "weight_hh", "bias_ih", "bias_hh", "query_key_value"):
        values = rim.get_parameter(name)
        assert values.shape[0] == 6
        assert 0.9 / 4 < values.abs().max() <= 1 / 4, name
        assert values.mean().abs() < 0.05, name
    assert rim.input_key.weight.shape == (64, 16)


# --- who is active ----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(num_active=st.integers(1, UNITS), seed=st.integers(0, 1000))
def test_so_many_are_active_and_the_others_keep_their_state(num_active, seed):
    rim, tokens = build(num_active=num_active), random_tokens(batch=3)
    torch.manual_seed(seed)
    state = random_state(3)
    y, _ = rim(tokens, state)
    before = torch.cat([state.hidden[:, None], y[:, :-1]], 1)
    kept = (before == y).all(-1)
    # an active unit changes in every channel, but for a coincidence
    assert torch.equal(kept, (before == y).any(-1))
    assert (kept.sum(-1) == UNITS - num_active).all()


def test_samples_choose_for_themselves():
    rim, tokens, state = build(), random_tokens(batch=8), random_state(8)
    active = [slow(rim, *sample).active for sample in zip(tokens, state.hidden, strict=True)]
    assert len({tuple(sorted(units)) for sample in active for units in sample}) > 5


def test_equal_attention_makes_the_first_units_active():
    # a state of zeros asks nothing, so all units look alike
    rim, tokens = build(), random_tokens(batch=4)
    y, _ = rim.step(tokens[:, 0], rim.initial_state(4))
    assert (y[:, :ACTIVE] != 0).all()
    assert not y[:, ACTIVE:].any()


def test_no_gradient_goes_through_what_inactive_units_would_have_become():
    rim, tokens, state = build(), random_tokens(batch=1), random_state(1)
    active = slow(rim, tokens[0, :1], state.hidden[0]).active[0]
    rim.step(tokens[:, 0], state)[0].square().sum().backward()
    for name in ("input_query", "weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        touched = [unit for unit, gradient in enumerate(rim.get_parameter(name).grad) if gradient.any()]
        assert touched == sorted(active), name
    queries, keys_values = rim.query_key_value.grad.split([DIM, 2 * DIM], -1)
    assert [unit for unit, gradient in enumerate(queries) if gradient.any()] == sorted(active)
    # active units read from all
    assert all(gradient.any() for gradient in keys_values)


def test_gradients_pass_through_the_state_of_an_inactive_unit():
    rim, tokens, state = build(), random_tokens(batch=1), random_state(1)
    idle = next(unit for unit in range(UNITS) if unit not in slow(rim, tokens[0, :1], state.hidden[0]).active[0])
    y, _ = rim.step(tokens[:, 0], RIMState(state.hidden.requires_grad_()))
    (slope,) = torch.autograd.grad(y[0, idle].sum(), state.hidden)
    expected = torch.zeros_like(slope)
    expected[0, idle] = 1
    assert torch.equal(slope, expected)


@pytest.mark.parametrize("num_active", [0, 6])
def test_an_impossible_number_of_active_units_is_refused(num_active):
    with pytest.raises(InputError, match="of 5 units cannot be active"):
        RIM(DIM, 5, num_active, HEADS)


# --- properties -------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(cuts=st.lists(st.integers(0, LENGTH), max_size=4), step=st.booleans())
def test_any_chunking_and_stepping_equal_the_whole(cuts, step):
    rim, tokens = build(), random_tokens()
    whole, end = rim(tokens)
    pieces, state = [], rim.initial_state(2)
    for index, (first, last) in enumerate(pairwise([0, *sorted(cuts), LENGTH])):
        # sequences and single steps take turns, each going on from what the other left
        if step == bool(index % 2):
            piece, state = rim(tokens[:, first:last], state)
            pieces.append(piece)
        else:
            for t in range(first, last):
                piece, state = rim.step(tokens[:, t], state)
                pieces.append(piece[:, None])
    close((torch.cat(pieces, 1), *state), (whole, *end))


@settings(deadline=None, max_examples=20)
@given(time=st.integers(0, LENGTH - 1))
def test_a_change_reaches_its_own_and_later_steps_only(time):
    rim, tokens = build(), random_tokens()
    changed = tokens.clone()
    changed[:, time] += 1
    before, after = rim(tokens)[0], rim(changed)[0]
    assert torch.equal(before[:, :time], after[:, :time])
    assert ((before - after)[:, time:].abs().amax((-1, -2)) > 0).all()


@settings(deadline=None, max_examples=10)
@given(order=st.permutations(range(TOKENS)))
def test_tokens_are_read_as_a_set(order):
    rim, tokens = build(), random_tokens()
    close(rim(tokens[:, :, order])[:1], rim(tokens)[:1])


def test_batch_elements_do_not_meet():
    rim, tokens, state = build(), random_tokens(batch=3), random_state(3)
    changed = tokens.clone()
    changed[0] += 1
    assert torch.equal(rim(tokens, state)[0][1:], rim(changed, state)[0][1:])
    close(rim(tokens[1:2], RIMState(state.hidden[1:2]))[:1], (rim(tokens, state)[0][1:2],))


def test_gradients_go_back_through_the_state():
    rim, tokens = build(), random_tokens().requires_grad_()
    weight = torch.randn(2, LENGTH, UNITS, DIM, dtype=torch.float64)
    inputs = [tokens, *rim.parameters()]
    first, state = rim(tokens[:, :7])
    middle, state = rim.step(tokens[:, 7], state)
    pieces = torch.cat([first, middle[:, None], rim(tokens[:, 8:], state)[0]], 1)
    found = torch.autograd.grad((pieces * weight).sum(), inputs)
    close(found, torch.autograd.grad((rim(tokens)[0] * weight).sum(), inputs))


def test_a_state_is_not_changed_by_its_use():
    rim, tokens, state = build(), random_tokens(), random_state()
    kept = state.hidden.clone()
    y, end = rim(tokens, state)
    kept_end = end.hidden.clone()
    rim.step(tokens[:, 0], end)
    y.detach().zero_()
    assert torch.equal(state.hidden, kept)
    assert torch.equal(end.hidden, kept_end)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtypes(dtype):
    # all are active, so that no rounding changes who is
    rim, tokens = build(num_active=UNITS), random_tokens()
    expected = rim(tokens)[0]
    rim = rim.to(dtype)
    state = rim.initial_state(2)
    assert not state.hidden.any()
    y, end = rim(tokens.to(dtype), state)
    assert {part.dtype for part in (y, *state, *end)} == {dtype}
    # bfloat16 has eight bits
    error = (y.double() - expected).abs().max() / expected.abs().max()
    assert error < {torch.float64: 1e-14, torch.float32: 1e-5, torch.bfloat16: 0.1}[dtype]


def test_autocast_is_close_to_float32():
    rim, tokens = build(num_active=UNITS).float(), random_tokens().float()
    expected = rim(tokens)[0]
    with torch.autocast("cpu", torch.bfloat16):
        first, state = rim(tokens[:, :-1])
        last, state = rim.step(tokens[:, -1], state)
    assert state.hidden.dtype == torch.float32
    found = torch.cat([first, last[:, None]], 1)
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize(("batch", "length"), [(0, 5), (2, 0), (1, 1)])
def test_empty_and_short_inputs(batch, length):
    rim, tokens = build(), random_tokens(batch, length)
    y, state = rim(tokens)
    y.sum().backward()
    assert y.shape == (batch, length, UNITS, DIM)
    assert state.hidden.shape == (batch, UNITS, DIM)


def test_dropout_acts_in_training_only():
    rim, tokens = RIM(DIM, UNITS, ACTIVE, HEADS, dropout=0.5), random_tokens().float()
    state = RIMState(random_state().hidden.float())
    assert not torch.equal(rim(tokens, state)[0], rim(tokens, state)[0])
    rim.eval()
    assert torch.equal(rim(tokens, state)[0], rim(tokens, state)[0])


@pytest.mark.parametrize("name", ["input_value", "out_gate"])
def test_dropout_acts_on_what_was_read_from_tokens_and_from_units(name):
    rim, tokens = RIM(DIM, UNITS, ACTIVE, HEADS, dropout=0.5), random_tokens().float()
    with torch.no_grad():
        # leave only the other of the two something to drop
        rim.get_submodule(name).weight.zero_()
        if name == "out_gate":
            rim.out_gate.bias.zero_()
    state = RIMState(random_state().hidden.float())
    assert not torch.equal(rim.step(tokens[:, 0], state)[0], rim.step(tokens[:, 0], state)[0])


def test_gradients_of_long_sequences_are_finite_and_states_bounded():
    rim, tokens = RIM(4, 3, 2, 2), torch.randn(1, 2560, 2, 4, requires_grad=True)
    y, _ = rim(tokens)
    y.square().sum().backward()
    assert y.abs().max() < 100
    for gradient in (tokens.grad, *(parameter.grad for parameter in rim.parameters())):
        assert gradient.isfinite().all()
        assert gradient.any()
