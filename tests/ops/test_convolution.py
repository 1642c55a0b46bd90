import inspect
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from scan_cases import LAYOUTS, covering, relative_error

from slotssm.errors import SlotSSMError
from slotssm.ops.convolution import causal_convolve
from slotssm.ops.cpu.convolution_operator import fused_convolution

NAMES = ("x", "past", "weight", "bias")
CASES = covering(
    {
        "length": (0, 1, 2, 3, 63, 64, 65, 200),
        "taps": (1, 2, 4, 5, 9),
        "channels": (1, 16, 17, 130),
        "batch": (1, 2, 8),
        "layout": tuple(LAYOUTS),
    },
    fits=lambda **_: True,
)


def arranged(length, taps, channels, batch, layout="contiguous", dtype=torch.float64):
    """Inputs whose values are numbers of float32; each requires a gradient."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((batch, length, channels), (batch, channels, taps), (channels, taps), (channels,))
    values = (LAYOUTS[layout](torch.randn(shape, generator=generator).to(dtype)) for shape in shapes)
    return {name: value.requires_grad_() for name, value in zip(NAMES, values, strict=True)}


def by_torch(x, past, weight, bias):
    history = torch.cat([past, x.transpose(1, 2)], -1)
    # no output reads the oldest step, but torch convolves no sequence that is shorter than its kernel
    unread = 0 if x.shape[1] == 0 else 1
    y = F.conv1d(history[..., unread:], weight[:, None], bias, groups=len(weight))[..., 1 - unread :]
    return F.silu(y).transpose(1, 2), history[..., -weight.shape[1] :]


def values_and_gradients(convolve, arguments):
    outputs = convolve(**arguments)
    generator = torch.Generator().manual_seed(99)
    weights = [torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out) for out in outputs]
    loss = sum((out * weight).sum() for out, weight in zip(outputs, weights, strict=True))
    found = torch.autograd.grad(loss, list(arguments.values()))
    return {"y": outputs[0], "last": outputs[1], **dict(zip(NAMES, found, strict=True))}


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_it_is_torchs_depthwise_convolution_of_past_and_present(case, dtype, tolerance):
    expected = values_and_gradients(by_torch, arranged(**case))
    for name, found in values_and_gradients(causal_convolve, arranged(**case, dtype=dtype)).items():
        assert found.dtype == dtype, name
        assert found.shape == expected[name].shape, name
        assert found.numel() == 0 or relative_error(found, expected[name]) < tolerance, name


def test_gradcheck():
    tensors = tuple(arranged(3, 4, 2, 2).values())
    assert torch.autograd.gradcheck(causal_convolve, tensors)


def test_second_derivatives_are_refused_rather_than_zero():
    arguments = arranged(5, 4, 3, 2)
    with pytest.raises(SlotSSMError, match=r"fused_convolution_backward.* has no further derivative$"):
        _twice(causal_convolve(**arguments)[0].square().sum(), arguments["x"], arguments["weight"])


def _twice(loss, first, second):
    (slope,) = torch.autograd.grad(loss, first, create_graph=True)
    return torch.autograd.grad(slope.square().sum(), second)


@pytest.mark.parametrize("wanted", NAMES)
def test_gradients_reach_only_what_requires_them(wanted):
    arguments = {name: value.detach() for name, value in arranged(5, 4, 3, 2).items()}
    arguments[wanted].requires_grad_()
    causal_convolve(**arguments)[0].square().sum().backward()
    assert arguments[wanted].grad.any()
    assert all(value.grad is None for name, value in arguments.items() if name != wanted)


def test_inputs_are_not_written_to():
    arguments = arranged(70, 4, 17, 2)
    before = {name: value.detach().clone() for name, value in arguments.items()}
    values_and_gradients(causal_convolve, arguments)
    assert all(torch.equal(value, before[name]) for name, value in arguments.items())


@pytest.mark.parametrize("length", [0, 3, 70])
def test_every_output_element_is_written(length):
    # deterministic mode fills fresh memory with NaN, so an element that nobody writes shows
    torch.use_deterministic_algorithms(True)
    try:
        found = values_and_gradients(causal_convolve, arranged(length, 9, 65, 2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(tensor.isfinite().all() for tensor in found.values())


@pytest.mark.parametrize("taps", [1, 4])
@pytest.mark.parametrize("length", [2, 70])
def test_custom_op_passes_opcheck(length, taps):
    x, past, weight, bias = arranged(length, taps, 5, 2).values()
    past = past.detach().transpose(1, 2).requires_grad_()
    checks = torch.library.opcheck(fused_convolution.forward, (x, past, weight, bias))
    assert set(checks.values()) == {"SUCCESS"}
    tensors = [tensor.detach() for tensor in (x, past, weight, bias, x)]
    checks = torch.library.opcheck(fused_convolution.backward, tuple(tensors))
    assert set(checks.values()) == {"SUCCESS"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", [0, -1])
def test_what_is_not_finite_shows_where_it_does_in_torch(name, value, place):
    arguments = arranged(70, 4, 17, 2)
    arguments[name].detach().view(-1)[place] = value
    expected = values_and_gradients(by_torch, arguments)
    for key, found in values_and_gradients(causal_convolve, arguments).items():
        assert not (found.isfinite() & ~expected[key].isfinite()).any(), key
        if torch.tensor(value).isnan():
            assert torch.equal(found.isnan(), expected[key].isnan()), key


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [30.0, 90.0, 1e4, 1e30])
def test_silu_of_large_numbers_equals_torchs(dtype, size):
    arguments = {name: value.detach() for name, value in arranged(9, 4, 5, 2, dtype=dtype).items()}
    arguments["x"] = arguments["x"] * size
    torch.testing.assert_close(causal_convolve(**arguments)[0], by_torch(**arguments)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("length", [0, 5])
def test_an_empty_batch_has_gradients_of_zero(length):
    found = values_and_gradients(causal_convolve, arranged(length, 4, 3, 0))
    assert found["y"].shape == (0, length, 3)
    assert found["last"].shape == (0, 3, 4)
    assert not found["weight"].any()
    assert not found["bias"].any()


def test_a_sequence_without_steps_leaves_the_past_alone():
    arguments = arranged(0, 4, 6, 2)
    y, last = causal_convolve(**arguments)
    assert y.shape == (2, 0, 6)
    assert torch.equal(last, arguments["past"])


@pytest.mark.parametrize("cuts", [(1, 2, 3), (0, 64), (63, 65)])
@pytest.mark.parametrize("taps", [1, 4, 9])
def test_pieces_with_carried_past_equal_the_whole(cuts, taps):
    arguments = arranged(70, taps, 17, 2)
    whole, end = causal_convolve(**arguments)
    last, pieces = arguments["past"], []
    for first, stop in pairwise([0, *cuts, 70]):
        piece, last = causal_convolve(arguments["x"][:, first:stop], last, arguments["weight"], arguments["bias"])
        pieces.append(piece)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=1e-13, atol=1e-13)
    assert torch.equal(last, end)
    pieces, whole = (
        torch.autograd.grad(y.square().sum(), list(arguments.values())) for y in (torch.cat(pieces, 1), whole)
    )
    for ours, theirs in zip(pieces, whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    arguments = {name: value.detach().to(dtype) for name, value in arranged(70, 4, 17, 2).items()}
    y, last = causal_convolve(**arguments)
    exact, _ = causal_convolve(**{name: value.float() for name, value in arguments.items()})
    assert (y.dtype, last.dtype) == (dtype, dtype)
    assert torch.equal(y, exact.to(dtype))


@pytest.mark.parametrize("length", [2, 10])
@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("past", (1, 6, 4)),
        ("past", (3, 6, 4)),
        ("past", (2, 5, 4)),
        ("past", (2, 8, 4)),
        ("past", (2, 6, 3)),
        ("weight", (5, 4)),
        ("weight", (8, 4)),
        ("bias", (5,)),
        ("bias", (8,)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(name, shape, length):
    # without the annotation check of the test suite, as users run it: the kernels would read beyond the array
    convolve = inspect.unwrap(causal_convolve)
    arguments = arranged(length, 4, 6, 2) | {name: torch.randn(shape, dtype=torch.float64)}
    with pytest.raises((RuntimeError, ValueError, SlotSSMError)):
        convolve(**arguments)
