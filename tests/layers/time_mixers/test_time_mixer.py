"""What all time mixers promise, whichever they are."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from slotssm.layers import S4D, S5, Mamba, Mamba2, TimeMixer

LENGTH, DIM = 150, 8
MIXERS = {
    "mamba": lambda: Mamba(DIM, d_state=4, expand=1.25),
    "mamba2": lambda: Mamba2(DIM, d_state=4, headdim=4, ngroups=2, chunk_size=16),
    "s4d": lambda: S4D(DIM, d_state=6),
    "s5": lambda: S5(DIM, d_state=6),
}


def build(kind):
    """A mixer in float64 whose parameters have all left their initial values."""
    torch.manual_seed(1)
    mixer = MIXERS[kind]()
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return mixer.double()


def random_input(batch=2, length=LENGTH):
    return torch.randn(batch, length, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(batch))


def close(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.fixture(params=MIXERS)
def mixer(request):
    return build(request.param)


def test_it_is_a_time_mixer(mixer):
    assert isinstance(mixer, TimeMixer)


@settings(deadline=None, max_examples=40)
@given(kind=st.sampled_from(list(MIXERS)), cuts=st.lists(st.integers(0, LENGTH), max_size=5), step=st.booleans())
def test_any_chunking_and_stepping_equal_the_whole(kind, cuts, step):
    mixer, u = build(kind), random_input()
    whole, end = mixer(u)
    pieces, state = [], mixer.initial_state(2)
    for index, (first, last) in enumerate(pairwise([0, *sorted(cuts), LENGTH])):
        # sequences and single steps take turns, each going on from what the other left
        if step == bool(index % 2):
            piece, state = mixer(u[:, first:last], state)
            pieces.append(piece)
        else:
            for t in range(first, last):
                piece, state = mixer.step(u[:, t], state)
                pieces.append(piece[:, None])
    close((torch.cat(pieces, 1), *state), (whole, *end))


def test_no_state_is_the_initial_state(mixer):
    u = random_input()
    close((mixer(u)[0], *mixer(u)[1]), (mixer(u, mixer.initial_state(2))[0], *mixer(u, mixer.initial_state(2))[1]))
    assert not any(part.any() for part in mixer.initial_state(2))


def test_state_keeps_its_shapes_and_dtypes(mixer):
    expected = [(part.shape, part.dtype) for part in mixer.initial_state(2)]
    for state in (mixer(random_input())[1], mixer.step(random_input()[:, 0], mixer.initial_state(2))[1]):
        assert [(part.shape, part.dtype) for part in state] == expected


def test_nothing_of_the_future_leaks_in(mixer):
    u = random_input()
    changed = u.clone()
    changed[:, 70:] += 1
    before, after = mixer(u)[0], mixer(changed)[0]
    torch.testing.assert_close(before[:, :70], after[:, :70], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(before[:, 70], after[:, 70])


def test_batch_elements_do_not_meet(mixer):
    u = random_input(batch=3)
    close(mixer(u[1:2])[:1], (mixer(u)[0][1:2],))


def test_gradients_reach_every_parameter_and_go_back_through_the_state(mixer):
    u = random_input().requires_grad_()
    _, state = mixer(u[:, :100])
    y, _ = mixer(u[:, 100:].detach(), state)
    y.square().sum().backward()
    assert (u.grad[:, 80:100].abs().amax((0, 2)) > 0).all()
    mixer(u.detach())[0].square().sum().backward()
    for name, parameter in mixer.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize(("batch", "length"), [(0, 5), (2, 0), (2, 1)])
def test_empty_and_short_inputs(mixer, batch, length):
    u = random_input(batch, length)
    y, state = mixer(u)
    y.sum().backward()
    assert y.shape == u.shape
    assert state[0].shape[0] == batch


def test_long_sequences_stay_bounded(mixer):
    mixer = mixer.float()
    y, state = mixer(torch.randn(1, 20_000, DIM))
    assert all(part.abs().max() < 1e4 for part in (y, *state))


def test_weights_survive_a_file_of_real_numbers(mixer):
    found = load(save(mixer.state_dict()))
    assert not any(value.is_complex() for value in found.values())
    assert all(torch.equal(value, found[name]) for name, value in mixer.state_dict().items())


def test_half_precision_weights_and_autocast_are_near_float32(mixer):
    mixer, u = mixer.float(), random_input().float()
    expected = mixer(u)[0]
    with torch.autocast("cpu", torch.bfloat16):
        mixed = mixer(u)[0]
    assert (mixed.float() - expected).abs().max() < 0.05 * expected.abs().max()
    half = mixer.bfloat16()
    y, state = half(u.bfloat16())
    assert y.dtype == half.step(u[:, 0].bfloat16(), state)[0].dtype == torch.bfloat16
