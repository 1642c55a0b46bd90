import functools
import inspect
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scan_cases import LAYOUTS, NAMES, covering, loss, random_scan, relative_error, solved

from slotssm.errors import InputError, SlotSSMError
from slotssm.ops import selective_scan, selective_scan_step
from slotssm.ops.cpu.scan_operator import fused_scan

BACKENDS = ("reference", "chunked", "fused")
FAST = ("chunked", "fused")


def run(arguments, backend, softplus=True):
    return selective_scan(**arguments, delta_softplus=softplus, return_final_state=True, backend=backend)


def gradients(arguments, backend, softplus=True):
    """Gradients of a random function of both outputs with respect to every argument."""
    y, final = run(arguments, backend, softplus)
    generator = torch.Generator().manual_seed(99)
    weights = [torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype) for out in (y, final)]
    loss = (y * weights[0]).sum() + (final * weights[1]).sum()
    return dict(zip(arguments, torch.autograd.grad(loss, list(arguments.values())), strict=True))


# --- values -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 65])
def test_scan_is_the_solution_of_the_recurrence(backend, length):
    arguments = random_scan(length)
    y, final = run(arguments, backend)
    expected_y, expected_final = solved(arguments)
    np.testing.assert_allclose(y.detach(), expected_y, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(final.detach(), expected_final, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("left_out", [("D",), ("z",), ("delta_bias",), ("initial_state",), NAMES[5:]])
@pytest.mark.parametrize("softplus", [True, False])
def test_optional_arguments_can_be_left_out(backend, left_out, softplus):
    arguments = {name: value for name, value in random_scan(9).items() if name not in left_out}
    if not softplus:
        arguments["dt"] = arguments["dt"].abs()
        if "delta_bias" in arguments:
            arguments["delta_bias"] = arguments["delta_bias"].abs()
    y, final = run(arguments, backend, softplus)
    expected_y, expected_final = solved(arguments, softplus)
    np.testing.assert_allclose(y.detach(), expected_y, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(final.detach(), expected_final, rtol=1e-10, atol=1e-10)


def test_steps_are_the_scan():
    arguments = random_scan(7)
    y, final = run(arguments, "reference")
    state, fixed = arguments["initial_state"], {name: arguments[name] for name in ("A", "D", "delta_bias")}
    for t in range(7):
        moving = {name: arguments[name][:, t] for name in ("x", "dt", "B", "C", "z")}
        output, state = selective_scan_step(state, **moving, **fixed, delta_softplus=True)
        torch.testing.assert_close(output, y[:, t], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state, final, rtol=1e-12, atol=1e-12)


def test_final_state_is_returned_only_on_request():
    arguments = random_scan(3)
    alone = selective_scan(**arguments, delta_softplus=True)
    assert torch.equal(alone, run(arguments, "auto")[0])


# --- against the reference --------------------------------------------------------------------------------


# lengths about a chunk's edge; states in tiles and single; channels about a vector's and a block's edge; batches that
# are cut into small and into large blocks
CASES = covering(
    {
        "length": (1, 2, 31, 32, 33, 63, 64, 65, 257),
        "states": (1, 3, 5, 7, 16, 64),
        "channels": (1, 15, 16, 17, 80, 127, 128, 129, 300),
        "batch": (1, 2, 8, 9),
        "layout": tuple(LAYOUTS),
        "left_out": ((), ("D",), ("z",), ("delta_bias",), ("initial_state",), NAMES[5:]),
        "softplus": (True, False),
    },
    # the reference keeps every state
    fits=lambda length, states, channels, batch, **_: length * states * channels * batch <= 500_000,
)
CASES += [
    {
        "length": 2560,
        "states": states,
        "channels": channels,
        "batch": 1,
        "layout": layout,
        "left_out": (),
        "softplus": on,
    }
    for states, channels, layout, on in ((16, 17, "second half", True), (7, 2, "every second", False))
]


def arranged(case: dict, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Arguments of a case; their values are numbers of float32."""
    sizes = (case[name] for name in ("length", "channels", "states", "batch"))
    arguments = {name: value.detach().float() for name, value in random_scan(*sizes).items()}
    if not case["softplus"]:
        arguments |= {name: arguments[name].abs() for name in ("dt", "delta_bias")}
    return {
        name: LAYOUTS[case["layout"]](value.to(dtype)).requires_grad_()
        for name, value in arguments.items()
        if name not in case["left_out"]
    }


def values_and_gradients(arguments: dict, backend: str, softplus: bool) -> dict[str, torch.Tensor]:
    outputs = run(arguments, backend, softplus)
    return {"y": outputs[0], "final": outputs[1]} | gradients(arguments, backend, softplus)


@functools.cache
def by_the_reference(index: int) -> dict[str, torch.Tensor]:
    return values_and_gradients(arranged(CASES[index], torch.float64), "reference", CASES[index]["softplus"])


@pytest.mark.parametrize("index", range(len(CASES)), ids=lambda index: "-".join(map(str, CASES[index].values())))
@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 2e-5)])
def test_values_and_gradients_equal_the_reference_in_float64(index, backend, dtype, tolerance):
    arguments = arranged(CASES[index], dtype)
    expected = by_the_reference(index)
    for name, found in values_and_gradients(arguments, backend, CASES[index]["softplus"]).items():
        assert found.dtype == dtype, name
        assert relative_error(found, expected[name]) < tolerance, name


@pytest.mark.parametrize("backend", FAST)
def test_gradcheck(backend):
    arguments = random_scan(3, channels=2, states=2, batch=1)

    def scan(*values):
        return run(dict(zip(arguments, values, strict=True)), backend)

    assert torch.autograd.gradcheck(scan, tuple(arguments.values()))


def test_fused_gradients_cross_a_chunk_edge_in_gradcheck():
    # only the last step is read, so the gradient of the first must pass two stored states
    arguments = random_scan(66, channels=1, states=1, batch=1)
    start = (arguments["initial_state"], arguments["A"])

    def last(initial_state, A):
        y, _ = run(arguments | {"initial_state": initial_state, "A": A * 0.01}, "fused")
        return y[:, -1]

    assert torch.autograd.gradcheck(last, start)


@pytest.mark.parametrize("direction", ["y", "final"])
@pytest.mark.parametrize("backend", FAST)
def test_gradients_flow_from_either_output_alone(backend, direction):
    for name, gradient in _one_sided(random_scan(40), backend, direction).items():
        expected = _one_sided(random_scan(40), "reference", direction)[name]
        if expected is None:
            assert gradient is None or not gradient.any(), name
        else:
            assert relative_error(gradient, expected) < 1e-10, name


def _one_sided(arguments, backend, direction):
    output = run(arguments, backend)[direction == "final"]
    found = torch.autograd.grad(output.square().sum(), list(arguments.values()), allow_unused=True)
    return dict(zip(arguments, found, strict=True))


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("wanted", NAMES)
def test_gradients_reach_only_what_requires_them(backend, wanted):
    arguments = {name: value.detach() for name, value in random_scan(5).items()}
    arguments[wanted].requires_grad_()
    run(arguments, backend)[0].sum().backward()
    assert arguments[wanted].grad.any()
    assert all(value.grad is None for name, value in arguments.items() if name != wanted)


@pytest.mark.parametrize("backend", FAST)
def test_second_derivatives_are_refused_rather_than_zero(backend):
    arguments = random_scan(5)
    with pytest.raises((RuntimeError, SlotSSMError)):
        _twice(run(arguments, backend)[0].square().sum(), arguments["x"], arguments["dt"])


def _twice(loss, first, second):
    (slope,) = torch.autograd.grad(loss, first, create_graph=True)
    return torch.autograd.grad(slope.square().sum(), second)


@pytest.mark.parametrize("backend", FAST)
def test_inputs_are_not_written_to(backend):
    arguments = random_scan(35)
    before = {name: value.detach().clone() for name, value in arguments.items()}
    gradients(arguments, backend)
    assert all(torch.equal(value, before[name]) for name, value in arguments.items())


def test_every_output_element_is_written():
    # deterministic mode fills fresh memory with NaN, so an element that nobody writes shows
    torch.use_deterministic_algorithms(True)
    try:
        arguments = random_scan(33, channels=65)
        outputs = [*run(arguments, "fused"), *gradients(arguments, "fused").values()]
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(output.isfinite().all() for output in outputs)


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize("softplus", [True, False])
def test_custom_op_passes_opcheck(gated, softplus):
    arguments = random_scan(34)
    names = ("x", "dt", "A", "B", "C", "D", "z", "delta_bias")
    tensors = [arguments[name] if gated or name != "z" else None for name in names]
    found = torch.library.opcheck(fused_scan.forward, (*tensors, softplus, arguments["initial_state"]))
    assert set(found.values()) == {"SUCCESS"}


# --- chunking ---------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(cuts=st.lists(st.integers(0, 70), max_size=5), backend=st.sampled_from(BACKENDS))
def test_pieces_with_carried_state_equal_the_whole(cuts, backend):
    arguments = random_scan(70)
    whole, whole_final = run(arguments, backend)
    state, pieces = arguments["initial_state"], []
    edges = [0, *sorted(cuts), 70]
    for first, last in pairwise(edges):
        part = {name: arguments[name][:, first:last] for name in ("x", "dt", "B", "C", "z")}
        y, state = run(arguments | part | {"initial_state": state}, backend)
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state, whole_final, rtol=1e-12, atol=1e-12)


def test_gradients_flow_through_the_carried_state():
    arguments = random_scan(40)
    names = ("x", "dt", "B", "C", "z")
    first, state = run(arguments | {name: arguments[name][:, :25] for name in names}, "fused")
    second, _ = run(arguments | {name: arguments[name][:, 25:] for name in names} | {"initial_state": state}, "fused")
    pieces = torch.autograd.grad(torch.cat([first, second], 1).square().sum(), list(arguments.values()))
    whole = torch.autograd.grad(run(arguments, "fused")[0].square().sum(), list(arguments.values()))
    for ours, theirs in zip(pieces, whole, strict=True):
        assert relative_error(ours, theirs) < 1e-11


# --- extremes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dt", [-1e4, -50.0, 0.0, 50.0, 1e4])
def test_extreme_step_sizes_stay_finite(backend, dt):
    arguments = random_scan(40, dtype=torch.float32)
    arguments["dt"] = torch.full_like(arguments["dt"], dt).requires_grad_()
    outputs = [*run(arguments, backend), *gradients(arguments, backend).values()]
    assert all(output.isfinite().all() for output in outputs)


@pytest.mark.parametrize("rate", [-1e4, -200.0, -90.0, -87.0])
def test_fast_decay_forgets_like_the_reference(rate):
    # exp(-87.3) is the smallest normal number of float32
    arguments = random_scan(5, dtype=torch.float32)
    arguments["A"] = torch.full_like(arguments["A"], rate).requires_grad_()
    arguments["dt"] = torch.ones_like(arguments["dt"]).requires_grad_()
    ours, theirs = (selective_scan(**arguments, backend=backend) for backend in ("fused", "reference"))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("exponent", [-1e-30, -1e-8, -1e-3, -100.0, -740.0, -1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_survive_slow_and_fast_decay(exponent, dtype):
    arguments = random_scan(40, dtype=dtype)
    arguments["A"] = torch.full_like(arguments["A"], exponent).requires_grad_()
    arguments["dt"] = torch.ones_like(arguments["dt"]).requires_grad_()
    arguments["delta_bias"] = torch.zeros_like(arguments["delta_bias"]).requires_grad_()
    exact = {name: value.detach().double().requires_grad_() for name, value in arguments.items()}
    expected = gradients(exact, "reference", softplus=False)
    for name, gradient in gradients(arguments, "fused", softplus=False).items():
        tolerance = 1e-10 if dtype == torch.float64 else 2e-5
        torch.testing.assert_close(gradient.double(), expected[name], rtol=tolerance, atol=tolerance, msg=name)


def spoilt(name, value, place, dtype):
    """Arguments one of whose numbers, the first or the last, is replaced."""
    arguments = {key: tensor.detach().clone() for key, tensor in random_scan(35, 20, 5, dtype=dtype).items()}
    arguments[name].view(-1)[place] = value
    return {key: tensor.requires_grad_() for key, tensor in arguments.items()}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("place", [0, -1])
def test_fused_does_not_lose_what_is_not_finite(name, value, dtype, place):
    arguments = spoilt(name, value, place, dtype)
    for ours, theirs in zip(run(arguments, "fused"), run(arguments, "reference"), strict=True):
        if np.isnan(value):
            assert torch.equal(ours.isnan(), theirs.isnan())
        assert not (ours.isfinite() & ~theirs.isfinite()).any()
    expected = gradients(arguments, "reference")
    for key, gradient in gradients(arguments, "fused").items():
        lost = gradient.isfinite() & ~expected[key].isfinite()
        # zero times infinity: a state that is forgotten at once has no slope here, and NaN there
        assert name == "A" or (name in ("dt", "delta_bias") and key == "A") or not lost.any(), key


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("name", ["dt", "z", "delta_bias"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_step_that_is_masked_out_leaves_the_state_as_it_is(backend, name, dtype):
    # -inf and the lowest number are what others fill in to mask a step; softplus and SiLU are zero there
    for value in (-torch.inf, torch.finfo(dtype).min):
        arguments = spoilt(name, value, 0, dtype)
        for ours, theirs in zip(run(arguments, backend), run(arguments, "reference"), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4, equal_nan=True)


def test_a_nan_in_the_gradient_of_an_output_stays_where_it_is():
    # 33 channels are two blocks, the second of which fills one lane of a vector that the first one filled
    arguments = random_scan(70, channels=33, batch=1)
    found = []
    for backend in ("fused", "reference"):
        y, _ = run(arguments, backend)
        slope = torch.ones_like(y)
        slope[0, 0, 5] = torch.nan
        found.append(torch.autograd.grad(y, list(arguments.values()), slope))
    for name, ours, theirs in zip(arguments, *found, strict=True):
        assert torch.equal(ours.isnan(), theirs.isnan()), name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(backend, dtype):
    arguments = {name: value.detach().to(dtype) for name, value in random_scan(40).items()}
    y, final = run(arguments, backend)
    exact, exact_final = run({name: value.float() for name, value in arguments.items()}, backend)
    assert (y.dtype, final.dtype) == (dtype, torch.float32)
    assert torch.equal(y, exact.to(dtype))
    assert torch.equal(final, exact_final)


@pytest.mark.parametrize("backend", FAST)
def test_half_precision_gradients_arrive_in_their_own_dtype(backend):
    arguments = random_scan(40, dtype=torch.bfloat16)
    for name, gradient in gradients(arguments, backend).items():
        assert gradient.dtype == torch.bfloat16, name
        assert gradient.isfinite().all(), name


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sequence_without_steps_returns_the_state_it_got(backend):
    arguments = random_scan(0)
    y, final = run(arguments, backend)
    assert y.shape == (2, 0, 5)
    assert torch.equal(final, arguments["initial_state"])
    (gradient,) = torch.autograd.grad(final.sum(), arguments["initial_state"])
    assert torch.equal(gradient, torch.ones_like(gradient))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_single_number_is_a_scan(backend):
    arguments = random_scan(1, channels=1, states=1, batch=1)
    for ours, theirs in zip(run(arguments, backend), solved(arguments), strict=True):
        np.testing.assert_allclose(ours.detach(), theirs, rtol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_empty_batch_has_gradients_of_zero(backend):
    arguments = random_scan(5, batch=0)
    found = gradients(arguments, backend)
    assert run(arguments, backend)[0].shape == (0, 5, 5)
    assert not found["A"].any()
    assert found["x"].shape == (0, 5, 5)


# --- refusals ---------------------------------------------------------------------------------------------


def test_unknown_backend_is_refused():
    with pytest.raises(InputError, match=r"'cuda' is not one of auto, fused, triton, mamba_ssm, chunked, reference"):
        selective_scan(**random_scan(2), backend="cuda")


def test_fused_refuses_another_device():
    arguments = {name: value.detach().to("meta") for name, value in random_scan(2).items()}
    with pytest.raises(InputError, match="runs on the CPU"):
        selective_scan(**arguments, backend="fused")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["dt", "A", "B", "C", "D", "z", "delta_bias", "initial_state"])
def test_shapes_that_do_not_fit_are_refused(backend, name):
    # without the annotation check of the test suite, as users run it: the kernels would read beyond the array
    scan = inspect.unwrap(selective_scan)
    arguments = random_scan(4)
    arguments[name] = arguments[name][:1]
    with pytest.raises(InputError, match=rf"^{name} has shape"):
        scan(**arguments, backend=backend)


# --- memory -----------------------------------------------------------------------------------------------


def test_forward_and_backward_need_less_than_three_times_the_memory_of_the_inputs():
    arguments = random_scan(640, 80, 16, 12, torch.float32)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        torch.autograd.grad(loss(run(arguments, "fused")), list(arguments.values()))
    steps = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    in_use = peak = 0
    for event in sorted(steps, key=lambda event: event.start_ns()):
        in_use += event.nbytes()
        peak = max(peak, in_use)
    size = sum(value.nbytes for value in arguments.values())
    assert size < peak < 3 * size
