"""The scan and the convolution as torch operators: compilers, exports, and other ways to differentiate."""

import warnings

import pytest
import torch
from scan_cases import NAMES, loss, random_convolution, random_scan, run
from torch.utils.checkpoint import checkpoint

from slotssm.layers import Mamba
from slotssm.ops import backends, causal_convolve
from slotssm.ops.cpu import availability

# --- compilers of torch -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_export_may_be_the_first_use_of_the_kernels(as_users):
    # it is in this process, for which this test comes first
    assert {"slotssm.fused_scan.default", "slotssm.fused_convolution.default"} <= as_users(_exported_mamba, 33)


def _prepare_kernels():
    """Compile all kernels; earlier failures to compile, and choices that followed from them, are forgotten."""
    availability._failures.clear()
    backends._automatic.clear()
    assert [availability.compile_failure(dtype) for dtype in ("float32", "float64")] == [None, None]


def _same_when_compiled(function, inputs, wanted):
    """Outputs and gradients of a function, compiled and plain, for inputs of several lengths."""
    _prepare_kernels()
    torch._dynamo.reset()
    torch.manual_seed(0)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    for length in (9, 33, 70):
        arguments = inputs(length)
        ours, theirs = (
            (*outputs, *torch.autograd.grad(loss(outputs), wanted(arguments)))
            for outputs in (compiled(*arguments), function(*arguments))
        )
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
        # as in an evaluation
        with torch.no_grad():
            torch.testing.assert_close(compiled(*arguments), function(*arguments), rtol=1e-12, atol=1e-12)


def _compiled_scan(backend):
    def scan(*values):
        return run(dict(zip(NAMES, values, strict=True)), backend)

    _same_when_compiled(scan, lambda length: list(random_scan(length, 17, 5).values()), list)


def _compiled_convolution():
    _same_when_compiled(causal_convolve, random_convolution, list)


def _compiled_mamba():
    mamba = Mamba(8, d_state=4).double()

    def block(u, *state):
        outputs, end = mamba(u, *state)
        return outputs, *end

    def inputs(length):
        return [torch.randn(2, length, 8, dtype=torch.float64, requires_grad=True)]

    _same_when_compiled(block, inputs, lambda arguments: [*arguments, *mamba.parameters()])


@pytest.mark.parametrize("backend", ["fused", "chunked", "auto"])
def test_a_compiled_scan_is_the_scan(as_users, backend):
    as_users(_compiled_scan, backend)


def test_a_compiled_convolution_is_the_convolution(as_users):
    as_users(_compiled_convolution)


def test_a_compiled_mamba_is_mamba(as_users):
    as_users(_compiled_mamba)


def _exported_mamba(least):
    torch.manual_seed(0)
    mamba = Mamba(8, d_state=4).double()
    steps = torch.export.Dim("L", min=least, max=4096)
    example = torch.randn(2, 40, 8, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        program = torch.export.export(mamba, (example,), dynamic_shapes=({1: steps},))
    operators = {str(node.target) for node in program.graph.nodes}
    for length in (least, 33, 100):
        u = torch.randn(2, length, 8, dtype=torch.float64)
        for ours, theirs in zip(_flat(program.module()(u)), _flat(mamba(u)), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    return operators


def _flat(outputs):
    return [outputs[0], *outputs[1]]


@pytest.mark.parametrize("least", [33, 4])
def test_export_of_a_mamba_keeps_the_length_open(as_users, least):
    # whatever came before, the kernels are ready
    as_users(_prepare_kernels)
    assert {"slotssm.fused_scan.default", "slotssm.fused_convolution.default"} <= as_users(_exported_mamba, least)


# --- other ways to differentiate --------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["fused", "chunked"])
@pytest.mark.parametrize("reentrant", [True, False])
def test_a_recomputed_scan_has_the_same_gradients(backend, reentrant):
    inputs = list(random_scan(40, 17, 5).values())

    def scan(*values):
        return run(dict(zip(NAMES, values, strict=True)), backend)

    expected = torch.autograd.grad(loss(scan(*inputs)), inputs)
    # reentrant checkpoints work with backward() alone
    loss(checkpoint(scan, *inputs, use_reentrant=reentrant)).backward()
    assert all(torch.equal(value.grad, gradient) for value, gradient in zip(inputs, expected, strict=True))


@pytest.mark.parametrize("backend", ["fused", "chunked"])
def test_torch_func_sees_the_same_gradients(backend):
    inputs = list(random_scan(40, 17, 5).values())

    def scan(*values):
        return run(dict(zip(NAMES, values, strict=True)), backend)

    expected = torch.autograd.grad(loss(scan(*inputs)), inputs)
    detached = [value.detach() for value in inputs]
    found = torch.func.grad(lambda *values: loss(scan(*values)), argnums=tuple(range(len(NAMES))))(*detached)
    outputs, back = torch.func.vjp(scan, *detached)
    for slopes in (found, back(tuple(2 * output for output in outputs))):
        for ours, theirs in zip(slopes, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("backend", ["fused", "chunked"])
def test_autocast_leaves_the_precision_alone(backend):
    arguments = random_scan(40, dtype=torch.float32)
    expected = run(arguments, backend)
    slopes = torch.autograd.grad(loss(expected), list(arguments.values()))
    with torch.autocast("cpu", torch.bfloat16):
        found = run(arguments, backend)
        assert all(map(torch.equal, found, expected))
        assert all(map(torch.equal, torch.autograd.grad(loss(found), list(arguments.values())), slopes))
