from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slotssm.errors import InputError
from slotssm.ops.diagonal import diagonal_scan, diagonal_step

REAL, COMPLEX = torch.float64, torch.complex128


def random_scan(length, dtype=REAL, channels=3, states=4, batch=2):
    """Arguments of `diagonal_scan`, slow and fast, turning and not; each requires a gradient."""
    generator = torch.Generator().manual_seed(length)

    def normal(*shape, dtype=COMPLEX):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    arguments = {
        "u": normal(batch, length, channels, dtype=dtype),
        "log_decay": torch.complex(-torch.exp(normal(channels, states, dtype=REAL)), normal(channels, states).imag),
        "B": normal(channels, states),
        "C": normal(channels, states),
        "initial_state": normal(batch, channels, states),
    }
    return {name: value.requires_grad_() for name, value in arguments.items()}


def looped(u, log_decay, B, C, initial_state):
    """The recurrence as it is written."""
    state, outputs = initial_state, []
    for t in range(u.shape[1]):
        state = torch.exp(log_decay) * state + B * u[:, t, :, None]
        y = torch.einsum("bdn,dn->bd", state, C)
        outputs.append(y if u.is_complex() else y.real)
    return torch.stack(outputs, 1), state


def gradients(outputs, arguments):
    """Gradients of a random real function of both outputs with respect to every argument."""
    generator = torch.Generator().manual_seed(99)
    loss = 0
    for output in outputs:
        loss = loss + (output * torch.randn(output.shape, generator=generator, dtype=output.dtype)).sum()
    loss = loss.real if loss.is_complex() else loss
    return dict(zip(arguments, torch.autograd.grad(loss, list(arguments.values())), strict=True))


def close(ours, theirs, tolerance=1e-10):
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [REAL, COMPLEX])
@pytest.mark.parametrize(("length", "chunk_size"), [(1, 64), (7, 1), (31, 8), (32, 8), (33, 8)])
def test_values_and_gradients_are_those_of_the_recurrence(length, chunk_size, dtype):
    arguments = random_scan(length, dtype)
    ours, theirs = diagonal_scan(**arguments, chunk_size=chunk_size), looped(**arguments)
    assert ours[0].dtype == dtype
    close(ours, theirs)
    expected = gradients(theirs, arguments)
    for name, gradient in gradients(ours, arguments).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-9, msg=name)


@pytest.mark.parametrize("dtype", [REAL, COMPLEX])
def test_gradcheck(dtype):
    arguments = random_scan(5, dtype, channels=2, states=2, batch=1)

    def scan(*values):
        return diagonal_scan(*values, chunk_size=2)

    assert torch.autograd.gradcheck(scan, tuple(arguments.values()))


@settings(deadline=None, max_examples=30)
@given(
    cuts=st.lists(st.integers(0, 70), max_size=5), chunk_size=st.integers(1, 80), dtype=st.sampled_from([REAL, COMPLEX])
)
def test_pieces_and_steps_with_carried_state_equal_the_whole_in_any_chunks(cuts, chunk_size, dtype):
    arguments = random_scan(70, dtype)
    system = {name: arguments[name] for name in ("log_decay", "B", "C")}
    state, pieces = arguments["initial_state"], []
    for index, (first, last) in enumerate(pairwise([0, *sorted(cuts), 70])):
        if index % 2:
            for t in range(first, last):
                y, state = diagonal_step(state, arguments["u"][:, t], **system)
                pieces.append(y[:, None])
        else:
            y, state = diagonal_scan(
                arguments["u"][:, first:last], **system, initial_state=state, chunk_size=chunk_size
            )
            pieces.append(y)
    close((torch.cat(pieces, 1), state), diagonal_scan(**arguments), 1e-11)


def test_no_state_is_kept_for_every_step():
    arguments = random_scan(512, channels=4, states=64, batch=8)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t):
        diagonal_scan(**arguments)
    assert sum(kept) < 8 * 512 * 4 * 64


def test_single_precision_is_within_2e_5_of_double():
    exact = random_scan(500)
    single = {name: value.to(torch.complex64 if value.is_complex() else torch.float32) for name, value in exact.items()}
    exact = {name: value.to(COMPLEX if value.is_complex() else REAL) for name, value in single.items()}
    ours, theirs = diagonal_scan(**single), diagonal_scan(**exact)
    assert (ours[0].dtype, ours[1].dtype) == (torch.float32, torch.complex64)
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).abs().max() < 2e-5 * other.abs().max()


def test_half_precision_and_autocast_do_not_round_the_scan():
    arguments = {
        name: value.detach().to(torch.complex64 if value.is_complex() else torch.bfloat16)
        for name, value in random_scan(40).items()
    }
    exact = diagonal_scan(**arguments | {"u": arguments["u"].float()})
    with torch.autocast("cpu", torch.bfloat16):
        y, final = diagonal_scan(**arguments)
    assert torch.equal(y, exact[0].bfloat16())
    assert torch.equal(final, exact[1])


@pytest.mark.parametrize("rate", [0.0, -1e-6, -100.0, -1e30])
def test_slow_and_fast_decays_stay_finite(rate):
    arguments = random_scan(100)
    turn = arguments["log_decay"].detach().imag
    arguments["log_decay"] = torch.complex(torch.full_like(turn, rate), turn).requires_grad_()
    outputs = diagonal_scan(**arguments)
    assert all(value.isfinite().all() for value in (*outputs, *gradients(outputs, arguments).values()))


def test_a_sequence_without_steps_returns_the_state_it_got():
    arguments = random_scan(0)
    y, final = diagonal_scan(**arguments)
    assert y.shape == (2, 0, 3)
    assert torch.equal(final, arguments["initial_state"])


def test_an_empty_batch_has_gradients_of_zero():
    arguments = random_scan(5, batch=0)
    outputs = diagonal_scan(**arguments)
    assert outputs[0].shape == (0, 5, 3)
    assert not gradients(outputs, arguments)["B"].any()


def test_a_chunk_without_steps_is_refused():
    with pytest.raises(InputError, match="chunk_size 0 is below 1"):
        diagonal_scan(**random_scan(4), chunk_size=0)
