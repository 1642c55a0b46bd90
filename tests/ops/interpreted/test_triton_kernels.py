"""Triton's kernels, run by its interpreter on the CPU, against the reference: `make test-triton`."""

import importlib.util
import os

import pytest
import torch
import torch.nn.functional as F
from scan_cases import LAYOUTS, NAMES, covering, random_convolution, random_scan, relative_error

from slotssm.ops import backends, convolution, selective_scan
from slotssm.ops.triton import availability, convolution_operator, scan_operator

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or os.environ.get(availability.INTERPRETED) != "1",
    reason="the package triton is not installed, or does not interpret (TRITON_INTERPRET=1)",
)

# the interpreter takes milliseconds for each step of each block of channels
CASES = covering(
    {
        "length": (1, 2, 15, 16, 17, 33),
        "states": (1, 3, 5, 16, 64),
        "channels": (1, 15, 16, 17, 80),
        "batch": (1, 2, 3),
        "layout": tuple(LAYOUTS),
        "left_out": ((), ("D",), ("z",), ("delta_bias",), ("initial_state",), NAMES[5:]),
        "softplus": (True, False),
    },
    fits=lambda length, states, channels, batch, **_: (
        length * batch * -(-channels // scan_operator._tile(channels, states)[0]) <= 80
    ),
)


def arranged(case: dict, dtype: torch.dtype) -> dict[str, torch.Tensor]:
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
    y, final = selective_scan(**arguments, delta_softplus=softplus, return_final_state=True, backend=backend)
    generator = torch.Generator().manual_seed(99)
    weights = [torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out.dtype) for out in (y, final)]
    total = (y * weights[0]).sum() + (final * weights[1]).sum()
    found = dict(
        zip(arguments, torch.autograd.grad(total, list(arguments.values()), materialize_grads=True), strict=True)
    )
    return {"y": y, "final": final, **found}


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_values_and_gradients_equal_the_reference_in_float64(case):
    expected = values_and_gradients(arranged(case, torch.float64), "reference", case["softplus"])
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 2e-5)):
        for name, found in values_and_gradients(arranged(case, dtype), "triton", case["softplus"]).items():
            assert found.dtype == dtype, name
            assert relative_error(found, expected[name]) < tolerance, name


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_inputs_of_half_precision_have_a_state_in_float32(half):
    wide = ("A", "D", "delta_bias", "initial_state")
    exact = {
        name: (value.float() if name in wide else value.to(half).float()).detach().requires_grad_()
        for name, value in random_scan(33).items()
    }
    rounded = {
        name: (value if name in wide else value.to(half)).detach().requires_grad_() for name, value in exact.items()
    }
    expected, found = (values_and_gradients(each, "triton", True) for each in (exact, rounded))
    assert found["final"].dtype == torch.float32
    assert relative_error(found["final"], expected["final"]) < 1e-5
    epsilon = torch.finfo(half).eps
    for name, value in found.items():
        if name != "final":
            assert value.dtype == (half if name == "y" or name not in wide else torch.float32), name
            # the outputs, and the weights of the loss, are rounded once
            assert relative_error(value, expected[name]) < 8 * epsilon, name


def test_gradcheck():
    arguments = random_scan(18, channels=2, states=2, batch=1)

    def scan(*values):
        named = dict(zip(arguments, values, strict=True))
        return selective_scan(**named, delta_softplus=True, return_final_state=True, backend="triton")

    assert torch.autograd.gradcheck(scan, tuple(arguments.values()), fast_mode=True)


def test_large_numbers_overflow_in_neither_softplus_nor_gate():
    arguments = random_scan(5, dtype=torch.float32)
    with torch.no_grad():
        arguments["dt"][0, 0] = 200.0
        arguments["dt"][0, 1] = -200.0
        arguments["z"][0, 2] = -200.0
        arguments["z"][0, 3] = 200.0
    expected = values_and_gradients(arguments, "reference", True)
    for name, found in values_and_gradients(arguments, "triton", True).items():
        assert torch.isfinite(found).all(), name
        assert relative_error(found, expected[name]) < 1e-5, name


@pytest.mark.parametrize("length", [0, 1])
def test_empty_sequences_pass_the_state_on(length):
    arguments = random_scan(length)
    for name, found in values_and_gradients(arguments, "triton", True).items():
        expected = values_and_gradients(arguments, "reference", True)[name]
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("length", [1, 3, 31, 32, 33, 70])
@pytest.mark.parametrize("channels", [5, 33])
def test_the_convolution_equals_torch(length, channels):
    x, past, weight, bias = random_convolution(length, channels)
    # the operator takes time before channels
    y = convolution_operator.convolve(x, past.transpose(1, 2), weight, bias)
    history = torch.cat([past, x.transpose(1, 2)], -1)[..., 1:]
    expected = F.silu(F.conv1d(history, weight[:, None], bias, groups=channels)).transpose(1, 2)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    ours, theirs = (torch.autograd.grad(out.square().sum(), (x, past, weight, bias)) for out in (y, expected))
    for name, found, wanted in zip(("x", "past", "weight", "bias"), ours, theirs, strict=True):
        assert relative_error(found, wanted) < 1e-12, name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_convolution_reads_any_layout(layout):
    x, past, weight, bias = (tensor.detach() for tensor in random_convolution(9))
    given = (x, past.transpose(1, 2), weight, bias)
    arranged_tensors = [LAYOUTS[layout](tensor) for tensor in given]
    found = convolution_operator.convolve(*arranged_tensors)
    expected = convolution_operator.convolve(*(tensor.contiguous() for tensor in arranged_tensors))
    assert torch.equal(found, expected)


def test_the_trial_does_not_depend_on_where_the_first_call_is():
    for failure in (availability._scan_failure, availability._convolution_failure):
        failure.cache_clear()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert availability.refusal("cpu", "float32", backends._reference) is None
        assert availability.convolution_refusal("cpu", "float32", convolution._in_plain_torch) is None


@pytest.mark.parametrize("softness", [-20.0, -9.0, -5.0, 0.0])
def test_small_step_sizes_keep_their_digits(softness):
    """Mamba starts with steps of 0.001 to 0.1, where log(1 + x) loses most digits of float32."""
    exact = {name: value.detach() for name, value in random_scan(17, channels=5).items()}
    exact["dt"] = exact["dt"] / 4 + softness
    exact = {name: value.requires_grad_() for name, value in exact.items()}
    rounded = {name: value.detach().float().requires_grad_() for name, value in exact.items()}
    expected = values_and_gradients(exact, "reference", True)
    for name, found in values_and_gradients(rounded, "triton", True).items():
        assert relative_error(found, expected[name]) < 2e-6, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_convolution_computes_in_float32(dtype):
    x, past, weight, bias = (tensor.detach().float() for tensor in random_convolution(37, 35))
    exact = [x.to(dtype).double(), past.transpose(1, 2).to(dtype).double(), weight.double(), bias.double()]
    rounded = [*(tensor.to(dtype) for tensor in (x, past.transpose(1, 2))), weight, bias]
    exact, rounded = ([tensor.requires_grad_() for tensor in tensors] for tensors in (exact, rounded))
    expected, found = convolution._in_plain_torch(*exact), convolution_operator.convolve(*rounded)
    assert found.dtype == dtype
    ours, theirs = (torch.autograd.grad(y.double().sum(), given) for y, given in ((found, rounded), (expected, exact)))
    assert relative_error(found.double(), expected) < 4 * torch.finfo(dtype).eps
    for gradient, wanted, given in zip(ours, theirs, rounded, strict=True):
        assert gradient.dtype == given.dtype
        assert relative_error(gradient.double(), wanted) < 4 * torch.finfo(gradient.dtype).eps


def test_the_interpreter_is_never_the_automatic_choice(monkeypatch):
    monkeypatch.setattr(backends, "_automatic", {})
    assert backends.choose("auto", "cpu", "float32", False) == "fused"
