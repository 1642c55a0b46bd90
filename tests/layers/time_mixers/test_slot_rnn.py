from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from slotssm.layers.time_mixers.slot_rnn import SlotGRU, SlotGRUState, gru_update

DIM, HEADS, SLOTS, LENGTH = 12, 3, 4, 20


def build(dim: int = DIM, heads: int = HEADS) -> SlotGRU:
    """In float64, with no parameter at its initial value (norms start as the identity)."""
    torch.manual_seed(1)
    layer = SlotGRU(dim, heads, mlp_ratio=2.0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return layer.double().eval()


def random_slots(batch: int = 2, length: int = LENGTH, num_slots: int = SLOTS, dim: int = DIM) -> torch.Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, length, num_slots, dim, dtype=torch.float64, generator=generator)


def random_state(batch: int = 2) -> SlotGRUState:
    return SlotGRUState(torch.randn(batch, SLOTS, DIM, dtype=torch.float64))


def plain(layer: SlotGRU, slots: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Cell and mixer as modules, slot by slot and step by step."""
    outputs = []
    for t in range(slots.shape[1]):
        updated = [layer.gru(slots[:, t, k], hidden[:, k]) for k in range(slots.shape[2])]
        hidden = layer.mixer(torch.stack(updated, 1))
        outputs.append(hidden)
    return torch.stack(outputs, 1)


def close(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


# --- the formula ------------------------------------------------------------------------------------------


def test_the_update_is_torchs_gru_cell():
    cell = nn.GRUCell(5, 7).double()
    x, h = torch.randn(3, 5, dtype=torch.float64), torch.randn(3, 7, dtype=torch.float64)
    inputs = nn.functional.linear(x, cell.weight_ih, cell.bias_ih)
    recurrent = nn.functional.linear(h, cell.weight_hh, cell.bias_hh)
    close((gru_update(inputs[:, :14], inputs[:, 14:], recurrent, h),), (cell(x, h),))


@pytest.mark.parametrize(("length", "num_slots"), [(1, 1), (1, 4), (9, 1), (20, 4)])
def test_it_is_a_cell_and_the_mixer_in_a_loop(length, num_slots):
    layer, slots = build(), random_slots(2, length, num_slots)
    state = layer.initial_state(2, num_slots)
    expected = plain(layer, slots, state.hidden)
    close((layer(slots)[0], layer(slots)[1].hidden), (expected, expected[:, -1]))


def test_gradients_are_those_of_the_loop():
    layer, slots, state = build(), random_slots().requires_grad_(), random_state()
    hidden = state.hidden.requires_grad_()
    weight = torch.randn_like(slots)
    inputs = [slots, hidden, *layer.parameters()]
    found = torch.autograd.grad((layer(slots, state)[0] * weight).sum(), inputs)
    close(found, torch.autograd.grad((plain(layer, slots, hidden) * weight).sum(), inputs))


def test_gradients_go_back_through_the_state():
    layer, slots = build(), random_slots().requires_grad_()
    weight, inputs = torch.randn_like(slots), [slots, *layer.parameters()]
    first, state = layer(slots[:, :9])
    middle, state = layer.step(slots[:, 9], state)
    pieces = torch.cat([first, middle[:, None], layer(slots[:, 10:], state)[0]], 1)
    found = torch.autograd.grad((pieces * weight).sum(), inputs)
    close(found, torch.autograd.grad((layer(slots)[0] * weight).sum(), inputs))


def test_gradients_are_those_of_finite_differences():
    layer, slots = build(2, 1), random_slots(1, 3, 2, 2).requires_grad_()
    hidden = torch.randn(1, 2, 2, dtype=torch.float64, requires_grad=True)

    def outputs(slots, hidden, *parameters):
        y, state = layer(slots, SlotGRUState(hidden))
        return y, *state

    assert torch.autograd.gradcheck(outputs, (slots, hidden, *layer.parameters()))


def test_parameters_are_those_of_the_cell_and_of_the_mixer():
    names = {name.split(".")[0]: None for name in SlotGRU(8, 2, 4.0).state_dict()}
    assert list(names) == ["gru", "mixer"]
    # a GRU cell, then queries, keys and values, the output map with bias, two norms, the MLP
    assert sum(parameter.numel() for parameter in SlotGRU(8, 2, 4.0).parameters()) == (
        (2 * 3 * 64 + 2 * 24) + 3 * 64 + (64 + 8) + 2 * 16 + (2 * 8 * 32 + 32 + 8)
    )


# --- properties -------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(cuts=st.lists(st.integers(0, LENGTH), max_size=4), step=st.booleans())
def test_any_chunking_and_stepping_equal_the_whole(cuts, step):
    layer, slots = build(), random_slots()
    whole, end = layer(slots)
    pieces, state = [], layer.initial_state(2, SLOTS)
    for index, (first, last) in enumerate(pairwise([0, *sorted(cuts), LENGTH])):
        # sequences and single steps take turns, each going on from what the other left
        if step == bool(index % 2):
            piece, state = layer(slots[:, first:last], state)
            pieces.append(piece)
        else:
            for t in range(first, last):
                piece, state = layer.step(slots[:, t], state)
                pieces.append(piece[:, None])
    close((torch.cat(pieces, 1), *state), (whole, *end))


@settings(deadline=None, max_examples=20)
@given(time=st.integers(0, LENGTH - 1), slot=st.integers(0, SLOTS - 1))
def test_a_change_reaches_its_own_and_later_steps_only(time, slot):
    layer, slots = build(), random_slots()
    changed = slots.clone()
    changed[:, time, slot] += 1
    before, after = layer(slots)[0], layer(changed)[0]
    assert torch.equal(before[:, :time], after[:, :time])
    assert ((before - after)[:, time:].abs().amax(-1) > 0).all()


@settings(deadline=None, max_examples=10)
@given(order=st.permutations(range(SLOTS)))
def test_it_permutes_with_the_slots(order):
    layer, slots, state = build(), random_slots(), random_state()
    y, end = layer(slots, state)
    permuted = layer(slots[:, :, order], SlotGRUState(state.hidden[:, order]))
    close((permuted[0], *permuted[1]), (y[:, :, order], end.hidden[:, order]))


def test_batch_elements_do_not_meet():
    layer, slots = build(), random_slots(batch=3)
    changed = slots.clone()
    changed[0] += 1
    assert torch.equal(layer(slots)[0][1:], layer(changed)[0][1:])
    close(layer(slots[1:2])[:1], (layer(slots)[0][1:2],))


def test_the_state_is_the_last_output_and_matters():
    layer, slots, state = build(), random_slots(), random_state()
    y, end = layer(slots, state)
    assert torch.equal(end.hidden, y[:, -1])
    assert not torch.allclose(y[:, 0], layer(slots)[0][:, 0])
    assert not layer.initial_state(2, SLOTS).hidden.any()


def test_a_state_is_not_changed_by_its_use():
    layer, slots, state = build(), random_slots(), random_state()
    kept = state.hidden.clone()
    y, end = layer(slots, state)
    kept_end = end.hidden.clone()
    layer.step(slots[:, 0], end)
    y.zero_()
    assert torch.equal(state.hidden, kept)
    assert torch.equal(end.hidden, kept_end)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtypes(dtype):
    layer, slots = build(), random_slots()
    expected = layer(slots)[0]
    layer = layer.to(dtype)
    state = layer.initial_state(2, SLOTS)
    y, end = layer(slots.to(dtype), state)
    assert {part.dtype for part in (y, *state, *end)} == {dtype}
    # bfloat16 has eight bits
    scale = expected.abs().max().item()
    error = (y.double() - expected).abs().max().item()
    assert error < scale * {torch.float64: 1e-14, torch.float32: 1e-5, torch.bfloat16: 0.2}[dtype]


def test_autocast_is_close_to_float32():
    layer, slots = build().float(), random_slots().float()
    expected = layer(slots)[0]
    with torch.autocast("cpu", torch.bfloat16):
        first, state = layer(slots[:, :-1])
        last, state = layer.step(slots[:, -1], state)
    assert state.hidden.dtype == torch.float32
    found = torch.cat([first, last[:, None]], 1)
    assert (found - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize(("batch", "length"), [(0, 5), (2, 0), (1, 1)])
def test_empty_and_short_inputs(batch, length):
    layer, slots = build(), random_slots(batch, length)
    y, state = layer(slots)
    y.sum().backward()
    assert y.shape == slots.shape
    assert state.hidden.shape == (batch, SLOTS, DIM)


def test_dropout_acts_in_training_only():
    layer, slots = SlotGRU(DIM, HEADS, 2.0, dropout=0.5), torch.randn(2, 5, SLOTS, DIM)
    state = layer.initial_state(2, SLOTS)
    assert not torch.equal(layer(slots)[0], layer(slots)[0])
    assert not torch.equal(layer.step(slots[:, 0], state)[0], layer.step(slots[:, 0], state)[0])
    # each of the two blocks has its own
    layer.mixer.mlp.eval()
    assert not torch.equal(layer(slots)[0], layer(slots)[0])
    layer.eval()
    assert torch.equal(layer(slots)[0], layer(slots)[0])


def test_gradients_of_long_sequences_are_finite():
    layer, slots = SlotGRU(4, 2, 2.0), torch.randn(1, 2560, 2, 4, requires_grad=True)
    y, _ = layer(slots)
    y.square().sum().backward()
    assert y.abs().max() < 1e3
    for gradient in (slots.grad, *(parameter.grad for parameter in layer.parameters())):
        assert gradient.isfinite().all()
        assert gradient.any()
