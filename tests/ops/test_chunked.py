from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scan_cases import random_scan, relative_error, solved
from torch.utils.checkpoint import checkpoint

from slotssm.errors import SlotSSMError
from slotssm.ops import chunked, reference

NAMES = ("x", "delta", "A", "B", "C", "initial_state")
STEPS = chunked.CHUNK_STEPS
# with the states of one step of this size, a block of `random_scan` has two chunks
SMALL = 2 * 2 * 5 * 3


@pytest.fixture(params=[chunked.STEP_NUMEL, SMALL, 1], ids=["wide", "two_chunks", "one_sequence"])
def step_numel(request, monkeypatch):
    """Blocks of very different sizes; the result must not depend on them."""
    monkeypatch.setattr(chunked, "STEP_NUMEL", request.param)
    return request.param


def case(length, channels=5, states=3, batch=2, dtype=torch.float64):
    arguments = random_scan(length, channels, states, batch, dtype)
    arguments["delta"] = F.softplus(arguments["dt"].detach()).requires_grad_()
    return {name: arguments[name] for name in NAMES}


def values(arguments, scan=chunked.scan):
    return scan(*(arguments[name] for name in NAMES))


def weighted(outputs, seed=99):
    """A random function of both outputs."""
    generator = torch.Generator().manual_seed(seed)
    weights = (torch.randn(output.shape, generator=generator, dtype=torch.float64) for output in outputs)
    return sum((output * weight.to(output)).sum() for output, weight in zip(outputs, weights, strict=True))


def gradients(arguments, scan=chunked.scan):
    found = torch.autograd.grad(weighted(values(arguments, scan)), [arguments[name] for name in NAMES])
    return dict(zip(NAMES, found, strict=True))


def assert_like_the_reference(arguments, tolerance):
    for ours, theirs in zip(values(arguments), values(arguments, reference.scan), strict=True):
        assert relative_error(ours, theirs) < tolerance
    expected = gradients(arguments, reference.scan)
    for name, gradient in gradients(arguments).items():
        assert relative_error(gradient, expected[name]) < tolerance, name


# --- values and gradients ---------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, STEPS - 1, STEPS, STEPS + 1, 2 * STEPS - 1, 2 * STEPS, 2 * STEPS + 1, 257])
def test_values_and_gradients_equal_the_reference(length, step_numel):
    assert_like_the_reference(case(length), 1e-10)


@pytest.mark.parametrize("states", [1, 3, 16, 64])
@pytest.mark.parametrize("channels", [1, 80])
def test_widths(channels, states):
    assert_like_the_reference(case(STEPS + 1, channels, states), 1e-10)


def test_groups_of_sequences_that_differ_in_size():
    # the last group is one sequence, with several chunks to a block; the others have one chunk
    channels, states = 64, 16
    size = chunked.STEP_NUMEL // (channels * states)
    assert_like_the_reference(case(2 * STEPS + 3, channels, states, batch=size + 1), 1e-10)


@pytest.mark.parametrize("length", [1, STEPS + 1, 3 * STEPS])
def test_scan_is_the_solution_of_the_recurrence(length, step_numel):
    arguments = case(length)
    y, final = values(arguments)
    expected_y, expected_final = solved({**arguments, "dt": arguments["delta"]}, softplus=False)
    np.testing.assert_allclose(y.detach(), expected_y, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(final.detach(), expected_final, rtol=1e-10, atol=1e-10)


def test_float32_is_within_2e_6_of_float64(step_numel):
    single = case(3 * STEPS + 1, dtype=torch.float32)
    double = {name: value.detach().double().requires_grad_() for name, value in single.items()}
    for ours, theirs in zip(values(single), values(double, reference.scan), strict=True):
        assert ours.dtype == torch.float32
        assert relative_error(ours, theirs) < 2e-6
    expected = gradients(double, reference.scan)
    for name, gradient in gradients(single).items():
        assert relative_error(gradient, expected[name]) < 2e-6, name


@pytest.mark.parametrize("length", [3, STEPS + 2])
def test_gradcheck(length, monkeypatch):
    monkeypatch.setattr(chunked, "STEP_NUMEL", 2)
    arguments = case(length, channels=1, states=2, batch=1)
    assert torch.autograd.gradcheck(chunked.scan, tuple(arguments.values()), fast_mode=length > STEPS)


@pytest.mark.parametrize("index", [0, 1], ids=["y", "final"])
def test_gradients_flow_from_either_output_alone(index):
    arguments = case(2 * STEPS + 1)
    inputs = list(arguments.values())
    ours, theirs = (
        torch.autograd.grad(values(arguments, scan)[index].square().sum(), inputs, allow_unused=True)
        for scan in (chunked.scan, reference.scan)
    )
    for name, gradient, expected in zip(NAMES, ours, theirs, strict=True):
        # nothing of the final state depends on C
        expected = torch.zeros_like(arguments[name]) if expected is None else expected
        assert relative_error(gradient, expected) < 1e-10, name


def test_second_derivatives_are_refused():
    arguments = case(3)
    (slope,) = torch.autograd.grad(weighted(values(arguments)), arguments["x"], create_graph=True)
    with pytest.raises(
        SlotSSMError,
        match=r"chunked_scan_backward.* has no further derivative; selective_scan\(backend='reference'\) has",
    ):
        torch.autograd.grad(slope.sum(), arguments["delta"])


# --- memory -----------------------------------------------------------------------------------------------


def test_no_tensor_holds_the_states_of_all_steps(monkeypatch):
    monkeypatch.setattr(chunked, "STEP_NUMEL", 1)
    arguments = case(8 * STEPS, channels=16, states=16)
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True) as profile:
        gradients(arguments)
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest < arguments["x"].numel() * 16 * 8 / 4


# --- being an operator ------------------------------------------------------------------------------------


def test_operators_pass_opcheck():
    arguments = tuple(case(STEPS + 2).values())
    assert set(torch.library.opcheck(chunked.chunked_scan.forward, arguments).values()) == {"SUCCESS"}
    arguments = [value.detach() for value in arguments]
    y, final, stored = chunked.chunked_scan.forward(*arguments)
    checks = torch.library.opcheck(chunked.chunked_scan.backward, (*arguments[:5], stored, y, final))
    assert set(checks.values()) == {"SUCCESS"}


def test_torch_func_and_checkpointing_see_the_same_gradients():
    arguments = case(STEPS + 2)
    inputs, expected = tuple(arguments.values()), gradients(arguments)
    recomputed = torch.autograd.grad(weighted(checkpoint(chunked.scan, *inputs, use_reentrant=False)), inputs)
    detached = tuple(value.detach() for value in inputs)
    functional = torch.func.grad(lambda *inputs: weighted(chunked.scan(*inputs)), argnums=tuple(range(6)))(*detached)
    for index, name in enumerate(NAMES):
        assert torch.equal(recomputed[index], expected[name]), name
        assert torch.equal(functional[index], expected[name]), name


def test_autocast_leaves_the_precision_alone():
    arguments = case(STEPS + 2, dtype=torch.float32)
    expected_values, expected_gradients = values(arguments), gradients(arguments)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(map(torch.equal, values(arguments), expected_values))
        assert all(map(torch.equal, gradients(arguments).values(), expected_gradients.values()))


def test_shapes_are_known_without_values():
    arguments = {name: value.detach().to("meta") for name, value in case(STEPS + 2).items()}
    y, final = values(arguments)
    assert (y.shape, final.shape) == (arguments["x"].shape, arguments["initial_state"].shape)


class _Scan(torch.nn.Module):
    def forward(self, *inputs):
        return chunked.scan(*inputs)


def test_export_keeps_the_length_open():
    long, short = (tuple(value.detach() for value in case(length).values()) for length in (3 * STEPS + 1, 3))
    steps = {1: torch.export.Dim("L", min=2, max=4096)}
    program = torch.export.export(_Scan(), long, dynamic_shapes=((steps, steps, None, steps, steps, None),))
    assert all(map(torch.equal, program.module()(*short), chunked.scan(*short)))


def test_non_contiguous_inputs_give_the_same():
    arguments = case(STEPS + 3)
    # the same values in reversed memory order
    strange = {
        name: value.detach().permute(*range(value.ndim)[::-1]).contiguous().permute(*range(value.ndim)[::-1])
        for name, value in arguments.items()
    }
    assert not strange["x"].is_contiguous()
    strange = {name: value.requires_grad_() for name, value in strange.items()}
    assert all(map(torch.equal, values(strange), values(arguments)))
    expected = gradients(arguments)
    for name, gradient in gradients(strange).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-14, atol=1e-14, msg=name)


def test_inputs_are_not_written_to():
    arguments = case(STEPS + 3)
    before = {name: value.detach().clone() for name, value in arguments.items()}
    gradients(arguments)
    assert all(torch.equal(value, before[name]) for name, value in arguments.items())


def test_every_output_element_is_written(step_numel):
    # deterministic mode fills fresh memory with NaN, so an element that nobody writes shows
    torch.use_deterministic_algorithms(True)
    try:
        arguments = case(2 * STEPS + 3, batch=3)
        outputs = [*values(arguments), *gradients(arguments).values()]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(output.isfinite().all() for output in outputs)


# --- chunking ---------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 5 * STEPS), max_size=5), size=st.sampled_from([1, SMALL, 3 * SMALL]))
def test_pieces_with_carried_state_equal_the_whole(cuts, size, monkeypatch):
    monkeypatch.setattr(chunked, "STEP_NUMEL", size)
    arguments = {name: value.detach() for name, value in case(5 * STEPS).items()}
    whole, whole_final = values(arguments)
    state, pieces = arguments["initial_state"], []
    for first, last in pairwise([0, *sorted(cuts), 5 * STEPS]):
        part = {name: arguments[name][:, first:last] for name in ("x", "delta", "B", "C")}
        y, state = values(arguments | part | {"initial_state": state})
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state, whole_final, rtol=1e-12, atol=1e-12)


# --- extremes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("exponent", [0.0, -1e-8, -1.0, -87.0, -200.0, -1e4])
def test_every_decay_is_safe(exponent, step_numel):
    # exp(-87.3) is the smallest normal number of float32
    arguments = case(3 * STEPS, dtype=torch.float32)
    arguments["A"] = torch.full_like(arguments["A"], exponent).requires_grad_()
    arguments["delta"] = torch.ones_like(arguments["delta"]).requires_grad_()
    assert all(output.isfinite().all() for output in [*values(arguments), *gradients(arguments).values()])
    assert_like_the_reference(arguments, 1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_shows_where_it_does_in_the_reference(name, value, step_numel):
    arguments = {key: value.detach() for key, value in case(3 * STEPS).items()}
    arguments[name].view(-1)[0] = value
    for ours, theirs in zip(values(arguments), values(arguments, reference.scan), strict=True):
        assert torch.equal(ours.isfinite(), theirs.isfinite())


@pytest.mark.parametrize("name", NAMES)
def test_a_nan_reaches_the_gradients_that_it_does_in_the_reference(name, step_numel):
    arguments = {key: value.detach().clone() for key, value in case(3 * STEPS).items()}
    arguments[name].view(-1)[-1] = float("nan")
    arguments = {key: value.requires_grad_() for key, value in arguments.items()}
    expected = gradients(arguments, reference.scan)
    for key, gradient in gradients(arguments).items():
        assert torch.equal(gradient.isnan(), expected[key].isnan()), key


def test_a_sequence_without_steps_returns_the_state_it_got():
    arguments = case(0)
    y, final = values(arguments)
    assert y.shape == (2, 0, 5)
    assert torch.equal(final, arguments["initial_state"])
    (gradient,) = torch.autograd.grad(final.sum(), arguments["initial_state"])
    assert torch.equal(gradient, torch.ones_like(gradient))


def test_an_empty_batch_has_gradients_of_zero():
    arguments = case(5, batch=0)
    found = gradients(arguments)
    assert values(arguments)[0].shape == (0, 5, 5)
    assert not found["A"].any()
    assert found["x"].shape == (0, 5, 5)
