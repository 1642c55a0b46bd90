import math
import warnings
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.attention import flex_attention

import slotssm.layers.time_mixers.causal_attention as module
from slotssm.layers.time_mixers.causal_attention import CausalSlotAttention, KeyValueState
from slotssm.ops import block_causal

DIM, HEADS = 12, 3
# 64 steps of three slots are one chunk of 192 queries
LENGTH, SLOTS = 150, 3


def build(dim: int = DIM, heads: int = HEADS) -> CausalSlotAttention:
    torch.manual_seed(1)
    return CausalSlotAttention(dim, heads).double().eval()


def random_slots(batch: int = 2, length: int = LENGTH, num_slots: int = SLOTS, dim: int = DIM) -> torch.Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, length, num_slots, dim, dtype=torch.float64, generator=generator)


def naive(block: CausalSlotAttention, slots: torch.Tensor) -> torch.Tensor:
    """The formula for one step and one head at a time, with only the keys that it may see."""
    batch, length, _, dim = slots.shape
    width = dim // block.num_heads
    outputs = []
    for t in range(length):
        seen = slots[:, : t + 1].reshape(batch, -1, dim)
        heads = []
        for head in range(block.num_heads):
            rows = slice(head * width, (head + 1) * width)
            q = torch.einsum("bkd,ed->bke", slots[:, t], block.query.weight[rows])
            k = torch.einsum("bnd,ed->bne", seen, block.key_value.weight[:dim][rows])
            v = torch.einsum("bnd,ed->bne", seen, block.key_value.weight[dim:][rows])
            scores = torch.exp(torch.einsum("bke,bne->bkn", q, k) / math.sqrt(width))
            heads.append(torch.einsum("bkn,bne->bke", scores / scores.sum(-1, keepdim=True), v))
        outputs.append(torch.cat(heads, -1) @ block.out.weight.T + block.out.bias)
    return torch.stack(outputs, 1)


def masked(block: CausalSlotAttention, slots: torch.Tensor) -> torch.Tensor:
    """All pairs at once with an explicit mask, written with torch's own multi-head attention."""
    batch, length, num_slots, dim = slots.shape
    theirs = nn.MultiheadAttention(dim, block.num_heads, batch_first=True).double()
    theirs.in_proj_weight = nn.Parameter(torch.cat([block.query.weight, block.key_value.weight]).detach())
    theirs.in_proj_bias = nn.Parameter(torch.zeros_like(theirs.in_proj_bias))
    theirs.out_proj.load_state_dict(block.out.state_dict())
    step = torch.arange(length).repeat_interleave(num_slots)
    rows = slots.reshape(batch, -1, dim)
    return theirs(rows, rows, rows, attn_mask=step[:, None] < step[None], need_weights=False)[0].view(slots.shape)


def close(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def slopes(function, block, slots, weight):
    slots = slots.clone().requires_grad_()
    loss = (function(slots) * weight).sum()
    return torch.autograd.grad(loss, [slots, *block.parameters()])


# --- the formula ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "num_slots"), [(1, 1), (1, 3), (7, 1), (40, 3), (70, 5)])
def test_it_is_the_formula(length, num_slots):
    block, slots = build(), random_slots(2, length, num_slots)
    close(block(slots)[0], naive(block, slots))
    weight = torch.randn_like(slots)
    found = slopes(lambda slots: block(slots)[0], block, slots, weight)
    close(found, slopes(lambda slots: naive(block, slots), block, slots, weight))


# lengths at, beside and beyond the ends of chunks
@pytest.mark.parametrize("length", [63, 64, 65, 128, 150])
@pytest.mark.parametrize("num_slots", [3, 4])
def test_it_is_torchs_attention_with_a_block_causal_mask(length, num_slots):
    block, slots = build(), random_slots(2, length, num_slots)
    close(block(slots)[0], masked(block, slots))
    weight = torch.randn_like(slots)
    found = slopes(lambda slots: block(slots)[0], block, slots, weight)
    close(found[:1], slopes(lambda slots: masked(block, slots), nn.Identity(), slots, weight))


def test_one_slot_is_the_attention_of_an_ordinary_transformer():
    block, slots = build(), random_slots(num_slots=1)
    layer = nn.MultiheadAttention(DIM, HEADS, bias=True, batch_first=True).double()
    with torch.no_grad():
        layer.in_proj_weight.copy_(torch.cat([block.query.weight, block.key_value.weight]))
        layer.in_proj_bias.zero_()
    layer.out_proj.load_state_dict(block.out.state_dict())
    u, mask = slots[:, :, 0], nn.Transformer.generate_square_subsequent_mask(LENGTH, dtype=torch.float64)
    close(block(slots)[0][:, :, 0], layer(u, u, u, attn_mask=mask, need_weights=False)[0])


@pytest.mark.parametrize("past", [0, 2])
def test_gradients_are_those_of_finite_differences(monkeypatch, past):
    # two chunks of 16 steps, and keys of a state
    monkeypatch.setattr(module, "CHUNK_QUERIES", 1)
    block = build(2, 1)
    slots = random_slots(1, 18, 2, 2).requires_grad_()
    state = KeyValueState(*torch.randn(2, 1, 1, 2 * past, 2, dtype=torch.float64).requires_grad_().unbind())

    def outputs(slots, keys, values, *parameters):
        y, end = block(slots, KeyValueState(keys, values))
        return y, *end

    assert torch.autograd.gradcheck(outputs, (slots, *state, *block.parameters()))


# --- properties -------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(
    cuts=st.lists(st.integers(0, LENGTH), max_size=4),
    num_slots=st.sampled_from([1, 3]),
    step=st.booleans(),
)
def test_any_chunking_and_stepping_equal_the_whole(cuts, num_slots, step):
    block, slots = build(), random_slots(num_slots=num_slots)
    whole, end = block(slots)
    pieces, state = [], block.initial_state(2, num_slots)
    for index, (first, last) in enumerate(pairwise([0, *sorted(cuts), LENGTH])):
        # sequences and single steps take turns, each going on from what the other left
        if step == bool(index % 2):
            piece, state = block(slots[:, first:last], state)
            pieces.append(piece)
        else:
            for t in range(first, last):
                piece, state = block.step(slots[:, t], state)
                pieces.append(piece[:, None])
    close((torch.cat(pieces, 1), *state), (whole, *end))


@settings(deadline=None, max_examples=30)
@given(time=st.integers(0, LENGTH - 1), num_slots=st.sampled_from([1, 3]), data=st.data())
def test_a_change_reaches_its_own_and_later_steps_only(time, num_slots, data):
    block, slots = build(), random_slots(num_slots=num_slots)
    changed = slots.clone()
    changed[:, time, data.draw(st.integers(0, num_slots - 1))] += 1
    before, after = block(slots)[0], block(changed)[0]
    assert torch.equal(before[:, :time], after[:, :time])
    # every slot of the step, since they see each other
    assert ((before - after)[:, time:].abs().amax(-1) > 0).all()


@settings(deadline=None, max_examples=10)
@given(order=st.permutations(range(SLOTS)))
def test_it_permutes_with_the_slots(order):
    block, slots = build(), random_slots()
    close(block(slots[:, :, order])[:1], (block(slots)[0][:, :, order],))


def test_slots_may_change_places_at_every_step():
    # what a slot reads is a set: the order in other steps is nothing to it
    block, slots = build(), random_slots()
    shuffled = slots.clone()
    shuffled[:, 10:20] = shuffled[:, 10:20].flip(2)
    close((block(shuffled)[0][:, 20:],), (block(slots)[0][:, 20:],))


def test_batch_elements_do_not_meet():
    block, slots = build(), random_slots(batch=3)
    changed = slots.clone()
    changed[0] += 1
    assert torch.equal(block(slots)[0][1:], block(changed)[0][1:])
    close(block(slots[1:2])[:1], (block(slots)[0][1:2],))


def test_gradients_go_back_through_the_state():
    block, slots = build(), random_slots()
    weight = torch.randn_like(slots)

    def in_two(slots):
        first, state = block(slots[:, :90])
        return torch.cat([first, block(slots[:, 90:], state)[0]], 1)

    close(slopes(in_two, block, slots, weight), slopes(lambda slots: block(slots)[0], block, slots, weight))


# --- the state --------------------------------------------------------------------------------------------


def test_state_holds_the_keys_and_values_in_the_order_of_time():
    block, slots = build(), random_slots(length=5)
    state = block(slots)[1]
    keys, values = block.key_value(slots.flatten(1, 2)).unflatten(-1, (2, HEADS, 4)).permute(2, 0, 3, 1, 4)
    close(state, (keys, values))


def test_a_state_is_not_changed_by_its_use():
    block, slots = build(), random_slots(length=8)
    _, state = block(slots)
    kept = [part.clone() for part in state]
    first = block.step(slots[:, 0], state)[0]
    block(slots, state)
    assert all(map(torch.equal, state, kept))
    assert torch.equal(block.step(slots[:, 0], state)[0], first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dtypes(dtype):
    block, slots = CausalSlotAttention(DIM, HEADS).to(dtype), random_slots().to(dtype)
    state = block.initial_state(2, SLOTS)
    assert [part.shape for part in state] == [(2, HEADS, 0, 4)] * 2
    y, end = block(slots, state)
    assert {part.dtype for part in (y, *state, *end)} == {dtype}
    # bfloat16 has eight bits
    expected = masked(block.double(), random_slots())
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=0.03 if dtype == torch.bfloat16 else 1e-5)


def test_autocast_is_close_to_float32():
    block, slots = CausalSlotAttention(DIM, HEADS), random_slots().float()
    expected = block(slots)[0]
    with torch.autocast("cpu", torch.bfloat16):
        first, state = block(slots[:, :70], block.initial_state(2, SLOTS))
        second, state = block(slots[:, 70:-1], state)
        last, _ = block.step(slots[:, -1], state)
    found = torch.cat([first, second, last[:, None]], 1)
    assert found.dtype == state.keys.dtype == state.values.dtype == torch.bfloat16
    assert (found - expected).abs().max() < 0.03 * expected.abs().max()


@pytest.mark.parametrize(("batch", "length"), [(0, 5), (2, 0), (1, 1)])
def test_empty_and_short_inputs(batch, length):
    block, slots = build(), random_slots(batch, length)
    y, state = block(slots)
    y.sum().backward()
    assert y.shape == slots.shape
    assert state.keys.shape == (batch, HEADS, length * SLOTS, 4)


def test_dropout_acts_in_training_only():
    block, slots = CausalSlotAttention(DIM, HEADS, dropout=0.5), torch.randn(2, 5, SLOTS, DIM)
    assert (block(slots)[0] == 0).float().mean() > 0.3
    block.eval()
    assert (block(slots)[0] != 0).all()


# --- length -----------------------------------------------------------------------------------------------


def test_no_mask_of_all_pairs_is_held():
    block, slots = CausalSlotAttention(8, 2), torch.randn(1, 320, 6, 8)
    kept: dict[int, int] = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y, _ = block(slots)
    # a mask in floats, full or in pieces, would be half of this at least
    assert sum(kept.values()) < 4 * (320 * 6) ** 2 / 5
    assert y.requires_grad


def test_gradients_of_long_sequences_are_finite():
    block, slots = CausalSlotAttention(4, 2), torch.randn(1, 2560, 2, 4, requires_grad=True)
    block(slots)[0].square().sum().backward()
    for gradient in (slots.grad, *(parameter.grad for parameter in block.parameters())):
        assert gradient.isfinite().all()
        assert gradient.any()


# --- flex attention, as on CUDA ---------------------------------------------------------------------------


@pytest.fixture
def flex(monkeypatch):
    """The dispatch of CUDA on the CPU, where torch has flex attention without its kernel."""
    served = []
    monkeypatch.setattr(block_causal, "serves", lambda q: served.append(q.shape) or True)
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *tensors: None)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "flex_attention called without torch.compile")
        # torch hides it, unless warnings are errors
        warnings.filterwarnings("ignore", "The .grad attribute of a Tensor")
        yield served


def test_through_flex_attention_it_is_the_formula_and_a_sequence_is_its_steps(flex):
    block, slots = build(), random_slots(length=70)
    whole, end = block(slots)
    assert flex == [(2, HEADS, 70 * SLOTS, DIM // HEADS)]
    close([whole], [naive(block, slots)])
    weight = torch.randn_like(slots)
    found = slopes(lambda slots: block(slots)[0], block, slots, weight)
    close(found, slopes(lambda slots: naive(block, slots), block, slots, weight))
    # a continued sequence and single steps are computed by the other path
    first, state = block(slots[:, :1])
    second, state = block(slots[:, 1:69], state)
    last, state = block.step(slots[:, 69], state)
    assert len(flex) == 2
    close((torch.cat([first, second, last[:, None]], 1), *state), (whole, *end))
