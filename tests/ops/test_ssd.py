import inspect
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slotssm.errors import InputError
from slotssm.ops import selective_scan
from slotssm.ops.ssd import ssd, ssd_step

MOVING = ("x", "dt", "B", "C")


def random_ssd(length, heads=4, width=3, groups=2, states=5, batch=2, dtype=torch.float64):
    """Arguments of `ssd`, all of the optional ones included; each requires a gradient."""
    generator = torch.Generator().manual_seed(length)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    arguments = {
        "x": normal(batch, length, heads, width),
        "dt": torch.exp(normal(batch, length, heads) - 1),
        "A": -torch.exp(normal(heads)),
        "B": normal(batch, length, groups, states),
        "C": normal(batch, length, groups, states),
        "D": normal(heads),
        "initial_state": normal(batch, heads, width, states),
    }
    return {name: value.to(dtype).requires_grad_() for name, value in arguments.items()}


def run(arguments, **options):
    return ssd(**arguments, return_final_state=True, **options)


def looped(x, dt, A, B, C, D, initial_state):
    """The recurrence as it is written, step by step and head by head."""
    length, heads = x.shape[1:3]
    per_group, state, outputs = heads // B.shape[2], initial_state, []
    for t in range(length):
        states, ys = [], []
        for h in range(heads):
            g = h // per_group
            drive = dt[:, t, h, None, None] * torch.einsum("bp,bn->bpn", x[:, t, h], B[:, t, g])
            states.append(torch.exp(dt[:, t, h] * A[h])[:, None, None] * state[:, h] + drive)
            ys.append(torch.einsum("bpn,bn->bp", states[-1], C[:, t, g]) + D[h] * x[:, t, h])
        state = torch.stack(states, 1)
        outputs.append(torch.stack(ys, 1))
    return (torch.stack(outputs, 1) if outputs else torch.zeros_like(x)), state


def gradients(outputs, arguments):
    """Gradients of a random function of both outputs with respect to every argument."""
    generator = torch.Generator().manual_seed(99)
    weights = [torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype) for out in outputs]
    loss = sum((out * weight).sum() for out, weight in zip(outputs, weights, strict=True))
    return dict(zip(arguments, torch.autograd.grad(loss, list(arguments.values())), strict=True))


def close(ours, theirs, tolerance=1e-10):
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


# --- values and gradients ---------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("length", "chunk_size"), [(1, 32), (7, 1), (31, 8), (32, 8), (33, 8), (40, 64)])
def test_values_and_gradients_are_those_of_the_recurrence(length, chunk_size, groups):
    arguments = random_ssd(length, groups=groups)
    ours, theirs = run(arguments, chunk_size=chunk_size), looped(**arguments)
    close(ours, theirs)
    expected = gradients(theirs, arguments)
    for name, gradient in gradients(ours, arguments).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-9, msg=name)


def test_it_is_the_selective_scan_of_mamba_with_shared_decays():
    a = random_ssd(50, groups=1)
    per_channel = {"D": a["D"].repeat_interleave(3), "A": a["A"].repeat_interleave(3)[:, None].expand(-1, 5)}
    y, final = selective_scan(
        a["x"].flatten(2),
        a["dt"].repeat_interleave(3, dim=-1),
        B=a["B"][:, :, 0],
        C=a["C"][:, :, 0],
        initial_state=a["initial_state"].flatten(1, 2),
        return_final_state=True,
        backend="reference",
        **per_channel,
    )
    close(run(a, chunk_size=8), (y.unflatten(-1, (4, 3)), final.unflatten(1, (4, 3))))


def test_optional_arguments_can_be_left_out():
    arguments = random_ssd(9)
    zeros = {"D": torch.zeros_like(arguments["D"]), "initial_state": torch.zeros_like(arguments["initial_state"])}
    needed = {name: value for name, value in arguments.items() if name not in zeros}
    close(run(needed), looped(**needed, **zeros))
    assert torch.equal(ssd(**needed), run(needed)[0])


def test_gradcheck():
    arguments = random_ssd(5, heads=2, width=2, groups=1, states=2, batch=1)

    def scan(*values):
        return run(dict(zip(arguments, values, strict=True)), chunk_size=2)

    assert torch.autograd.gradcheck(scan, tuple(arguments.values()))


def test_steps_are_the_recurrence():
    arguments = random_ssd(7)
    state, outputs = arguments["initial_state"], []
    for t in range(7):
        moving = {name: arguments[name][:, t] for name in MOVING}
        y, state = ssd_step(state, **moving, A=arguments["A"], D=arguments["D"])
        outputs.append(y)
    close((torch.stack(outputs, 1), state), looped(**arguments))


# --- chunking ---------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(cuts=st.lists(st.integers(0, 70), max_size=5), chunk_size=st.integers(1, 80))
def test_pieces_with_carried_state_equal_the_whole_in_any_chunks(cuts, chunk_size):
    arguments = random_ssd(70)
    state, pieces = arguments["initial_state"], []
    for first, last in pairwise([0, *sorted(cuts), 70]):
        part = {name: arguments[name][:, first:last] for name in MOVING}
        y, state = run(arguments | part | {"initial_state": state}, chunk_size=chunk_size)
        pieces.append(y)
    close((torch.cat(pieces, 1), state), run(arguments), 1e-11)


def test_no_state_is_kept_for_every_step():
    arguments = random_ssd(256, heads=2, width=16, groups=1, states=32, batch=1)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda t: t):
        run(arguments)
    assert max(kept) <= 256 * 2 * 32
    assert sum(kept) < 256 * 2 * 16 * 32


# --- accuracy and extremes --------------------------------------------------------------------------------


def test_float32_is_within_2e_5_of_float64():
    exact = random_ssd(300)
    single = {name: value.detach().float().requires_grad_() for name, value in exact.items()}
    exact = {name: value.detach().double().requires_grad_() for name, value in single.items()}
    ours, theirs = run(single), run(exact)
    for one, other in zip(ours, theirs, strict=True):
        assert (one.double() - other).abs().max() < 2e-5 * other.abs().max()
    expected = gradients(theirs, exact)
    for name, gradient in gradients(ours, single).items():
        assert (gradient.double() - expected[name]).abs().max() < 2e-5 * expected[name].abs().max(), name


def test_small_steps_after_a_large_one_keep_their_digits():
    # a reset of decay exp(-30 000), then a slow memory: running sums would round the small steps away
    arguments = {name: value.detach().float() for name, value in random_ssd(32).items()}
    arguments["dt"] = torch.full_like(arguments["dt"], 1e-3)
    arguments["dt"][:, 4] = 1e4
    arguments["A"] = torch.full_like(arguments["A"], -3.0)
    exact = run({name: value.double() for name, value in arguments.items()})
    for ours, theirs in zip(run(arguments), exact, strict=True):
        assert (ours.double() - theirs).abs().max() < 1e-6 * theirs.abs().max()


@pytest.mark.parametrize("dt", [0.0, 1e-8, 50.0, 1e4, 1e30])
def test_extreme_step_sizes_stay_finite(dt):
    arguments = random_ssd(40, dtype=torch.float32)
    arguments["dt"] = torch.full_like(arguments["dt"], dt).requires_grad_()
    outputs = run(arguments)
    assert all(value.isfinite().all() for value in (*outputs, *gradients(outputs, arguments).values()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    arguments = {name: value.detach().to(dtype) for name, value in random_ssd(40).items()}
    y, final = run(arguments)
    exact, exact_final = run({name: value.float() for name, value in arguments.items()})
    assert (y.dtype, final.dtype) == (dtype, torch.float32)
    assert torch.equal(y, exact.to(dtype))
    assert torch.equal(final, exact_final)


def test_autocast_does_not_round_the_scan():
    arguments = {name: value.detach().float() for name, value in random_ssd(40).items()}
    with torch.autocast("cpu", torch.bfloat16):
        inside = run(arguments)
    assert all(torch.equal(one, other) for one, other in zip(inside, run(arguments), strict=True))


def test_a_sequence_without_steps_returns_the_state_it_got():
    arguments = random_ssd(0)
    y, final = run(arguments)
    assert y.shape == (2, 0, 4, 3)
    assert torch.equal(final, arguments["initial_state"])
    (gradient,) = torch.autograd.grad(final.sum(), arguments["initial_state"])
    assert torch.equal(gradient, torch.ones_like(gradient))


def test_an_empty_batch_has_gradients_of_zero():
    arguments = random_ssd(5, batch=0)
    outputs = run(arguments)
    assert outputs[0].shape == (0, 5, 4, 3)
    assert not gradients(outputs, arguments)["A"].any()


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dt", "A", "B", "C", "D", "initial_state"])
def test_shapes_that_do_not_fit_are_refused(name):
    # without the annotation check of the test suite, as users run it: some would be broadcast
    scan, arguments = inspect.unwrap(ssd), random_ssd(4)
    arguments[name] = arguments[name][:1]
    with pytest.raises(InputError, match=rf"^{name} has shape"):
        scan(**arguments)


def test_groups_that_do_not_divide_the_heads_are_refused():
    with pytest.raises(InputError, match="B has 3 groups, which do not divide the 4 heads of x"):
        ssd(**random_ssd(4, groups=3))


def test_a_chunk_without_steps_is_refused():
    with pytest.raises(InputError, match="chunk_size 0 is below 1"):
        ssd(**random_ssd(4), chunk_size=0)
