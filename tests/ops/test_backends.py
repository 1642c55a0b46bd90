"""The scan and the convolution under torch.compile and torch.export, and how their kernels are compiled and chosen."""

import importlib
import logging
import multiprocessing
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ProcessPoolExecutor
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest
import torch
from scan_cases import LAYOUTS, NAMES, random_scan, relative_error
from torch.utils.checkpoint import checkpoint

import slotssm
from slotssm.errors import InputError, SlotSSMError
from slotssm.layers import Mamba
from slotssm.ops import (
    availability,
    bridge,
    causal_convolve,
    fused_convolution,
    fused_scan,
    mamba_ssm,
    selective_scan,
    threads,
)

# the package shows the function under the name of its module
choices = importlib.import_module("slotssm.ops.selective_scan")
KERNELS = [fused_scan._forward_kernel, fused_scan._backward_kernel]
KERNELS += [fused_convolution._forward_kernel, fused_convolution._backward_kernel]


def run(arguments, backend="fused"):
    return selective_scan(**arguments, delta_softplus=True, return_final_state=True, backend=backend)


def loss(outputs):
    return sum(output.square().sum() for output in outputs)


def convolution(length, channels=17):
    shapes = ((2, length, channels), (2, channels, 4), (channels, 4), (channels,))
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


# --- compilers of torch -----------------------------------------------------------------------------------


# a process where annotations are not checked: torch.compile cannot look through the checks
@pytest.fixture(scope="module")
def as_users():
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        yield lambda function, *arguments: process.submit(function, *arguments).result(timeout=120)


def test_export_may_be_the_first_use_of_the_kernels(as_users):
    # it is in this process, for which this test comes first
    assert {"slotssm.fused_scan.default", "slotssm.fused_convolution.default"} <= as_users(_exported_mamba, 33)


def _same_when_compiled(function, inputs, wanted):
    """Outputs and gradients of a function, compiled and plain, for inputs of several lengths."""
    _cache_use()
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


def _compiled_scan(backend):
    def scan(*values):
        return run(dict(zip(NAMES, values, strict=True)), backend)

    _same_when_compiled(scan, lambda length: list(random_scan(length, 17, 5).values()), list)


def _compiled_convolution():
    _same_when_compiled(causal_convolve, convolution, list)


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
    as_users(_cache_use)
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


# --- compilation of the kernels ---------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_one_version_of_a_kernel_serves_all_sizes_and_strides(kernel, dtype):
    for layout in LAYOUTS.values():
        for length, channels, states in ((1, 1, 1), (40, 17, 5)):
            arguments = random_scan(length, channels, states, dtype=getattr(torch, dtype))
            run({name: layout(value) for name, value in arguments.items()})[0].sum().backward()
            inputs = [layout(value.to(getattr(torch, dtype))) for value in convolution(length, channels)]
            causal_convolve(*inputs)[0].sum().backward()
    assert len(kernel(dtype).signatures) == 1
    assert not kernel(dtype)._can_compile


def _cache_use():
    """How often kernels were found on disk, and how often not; earlier failures to compile are forgotten."""
    availability._failures.clear()
    choices._automatic.clear()
    for module in (fused_scan, fused_convolution):
        for dtype in ("float32", "float64"):
            module.prepare(dtype)
    stats = [kernel("float32").stats for kernel in KERNELS]
    return [sum(each.cache_hits.values()) for each in stats], [sum(each.cache_misses.values()) for each in stats]


def test_a_second_process_compiles_nothing(as_users):
    _cache_use()
    assert as_users(_cache_use) == ([1] * 4, [0] * 4)


@pytest.mark.slow
def test_a_kernel_is_compiled_anew_when_the_code_that_it_is_built_from_changes(tmp_path, environment):
    shutil.copytree(
        Path(slotssm.__file__).parent, tmp_path / "slotssm", ignore=shutil.ignore_patterns("__pycache__", "*.nb?")
    )
    code = "import torch; from slotssm.ops.fused_convolution import convolve; "
    code += "print(float(convolve(*(torch.ones(s) for s in ((1, 3, 2), (1, 4, 2), (2, 4), (2,)))).abs().sum()))"
    command = {"args": [sys.executable, "-c", code], "cwd": tmp_path, "env": environment, "text": True}
    assert float(subprocess.run(**command, check=True, capture_output=True).stdout) > 1
    with (tmp_path / "slotssm/ops/lanes.py").open("a") as lanes:
        lanes.write("\n\nLanes.sigmoid = lambda self, x: self.of(0.0)\n")
    assert float(subprocess.run(**command, check=True, capture_output=True).stdout) == 0


@pytest.mark.parametrize("num_threads", [1, 2, 3])
@pytest.mark.parametrize(("num_tasks", "work"), [(10, 10**9), (2, 10**9), (10, 1), (0, 0)])
def test_work_is_shared_by_as_many_threads_as_torch_has(monkeypatch, num_threads, num_tasks, work):
    monkeypatch.setattr(torch, "get_num_threads", lambda: num_threads)
    shares = []
    threads.run(lambda first, last: shares.append((first, last)), num_tasks, work)
    expected = min(num_threads, num_tasks) if work > threads.LEAST_WORK else 1
    assert len(shares) == max(1, expected)
    assert [task for first, last in sorted(shares) for task in range(first, last)] == list(range(num_tasks))


def test_an_error_in_a_thread_is_not_lost(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)

    def kernel(first, last):
        if first > 0:
            raise ValueError("second share")

    with pytest.raises(ValueError, match="second share"):
        threads.run(kernel, 2, 10**9)


# --- the choice of a backend ------------------------------------------------------------------------------


@pytest.fixture
def nothing_chosen(monkeypatch):
    monkeypatch.setattr(choices, "_automatic", {})
    monkeypatch.setattr(availability, "_failures", {})


@pytest.fixture
def broken_compiler(monkeypatch, nothing_chosen):
    def broken(*arguments):
        raise OSError("no room for machine code\nand more")

    monkeypatch.setattr(bridge, "compiled", broken)


def test_without_a_compiler_torch_takes_the_kernels_place_with_one_warning(broken_compiler):
    arguments, inputs = random_scan(40), convolution(40)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        found = [run(arguments, "auto") for _ in range(2)][1]
        y, _ = causal_convolve(*inputs)
        gradients = torch.autograd.grad(y.square().sum(), inputs)
    assert [warning.category for warning in warned] == [RuntimeWarning]
    assert "OSError: no room for machine code); slower torch operators" in str(warned[0].message)
    assert choices._automatic == {("cpu", "float64", True): "chunked"}
    for ours, theirs in zip(found, run(arguments, "reference"), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    with pytest.raises((InputError, OSError), match="no room"):
        run(arguments, "fused")
    history = torch.cat([inputs[1], inputs[0].transpose(1, 2)], -1)
    total = torch.nn.functional.conv1d(history, inputs[2][:, None], inputs[3], groups=17)[..., 1:]
    expected = torch.nn.functional.silu(total).transpose(1, 2)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(gradients, torch.autograd.grad(expected.square().sum(), inputs), strict=True):
        assert relative_error(ours, theirs) < 1e-12


def test_the_automatic_choice_is_logged_once(nothing_chosen, caplog):
    caplog.set_level(logging.DEBUG, "slotssm.ops")
    for _ in range(2):
        run(random_scan(3), "auto")
    messages = [record.getMessage() for record in caplog.records if "auto" in record.getMessage()]
    assert messages == ["backend 'auto' takes 'fused' for float64 on cpu"]
    assert {record.levelno for record in caplog.records} == {logging.DEBUG}


@pytest.mark.parametrize(
    ("case", "installed", "expected"),
    [
        (("cuda", "float32", False), True, "mamba_ssm"),
        (("cuda", "float32", True), True, "chunked"),
        (("cuda", "float64", False), True, "chunked"),
        (("cuda", "float32", False), False, "chunked"),
        (("mps", "float32", False), True, "chunked"),
        (("cpu", "float32", False), True, "fused"),
    ],
)
def test_auto_takes_the_fastest_that_can_serve(monkeypatch, nothing_chosen, case, installed, expected):
    monkeypatch.setattr(choices, "has_mamba_ssm", lambda: installed)
    assert choices._chosen("auto", *case) == expected


# --- mamba_ssm --------------------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch):
    """A package `mamba_ssm` that computes on the CPU, with the calls that it got."""
    found = []

    def selective_scan_fn(
        u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, return_last_state=False
    ):
        found.append({"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z, "delta_bias": delta_bias})
        x, dt, b, c, gate = (None if t is None else t.transpose(1, 2) for t in (u, delta, B, C, z))
        y, state = selective_scan(x, dt, A, b, c, D, gate, delta_bias, delta_softplus, None, True, "reference")
        y = y.transpose(1, 2)
        return (y, state) if return_last_state else y

    package, ops = ModuleType("mamba_ssm"), ModuleType("mamba_ssm.ops")
    interface = ModuleType("mamba_ssm.ops.selective_scan_interface")
    interface.selective_scan_fn = selective_scan_fn
    for module in (package, ops, interface):
        module.__spec__ = ModuleSpec(module.__name__, None)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return found


@pytest.fixture
def as_on_cuda(monkeypatch, nothing_chosen, calls):
    chosen = choices._chosen
    monkeypatch.setattr(
        choices,
        "_chosen",
        lambda backend, device, *rest: chosen(backend, "cuda" if backend == "mamba_ssm" else device, *rest),
    )


@pytest.mark.parametrize("left_out", [("initial_state",), NAMES[5:]])
@pytest.mark.parametrize("softplus", [True, False])
def test_mamba_ssm_equals_the_reference(as_on_cuda, calls, left_out, softplus):
    arguments = {k: v for k, v in random_scan(9, 5, 3, dtype=torch.float32).items() if k not in left_out}
    arguments["dt"] = arguments["dt"].detach().abs().requires_grad_()
    found = []
    for backend in ("mamba_ssm", "reference"):
        y, final = selective_scan(**arguments, delta_softplus=softplus, return_final_state=True, backend=backend)
        assert torch.equal(y, selective_scan(**arguments, delta_softplus=softplus, backend=backend))
        found.append((y, final, *torch.autograd.grad(y.square().sum(), list(arguments.values()))))
    for ours, theirs in zip(*found, strict=True):
        assert relative_error(ours, theirs) < 1e-6
    shapes = {name: None if value is None else tuple(value.shape) for name, value in calls[0].items()}
    optional = {"D": (5,), "z": (2, 5, 9), "delta_bias": (5,)}
    expected = {"u": (2, 5, 9), "delta": (2, 5, 9), "A": (5, 3), "B": (2, 3, 9), "C": (2, 3, 9)}
    assert shapes == expected | {name: None if name in left_out else shape for name, shape in optional.items()}
    assert all(calls[0][name].stride(-1) == 1 for name in expected)


def test_mamba_ssm_gets_parameters_in_float32_and_the_rest_in_the_dtype_of_x(as_on_cuda, calls):
    arguments = {name: value.detach() for name, value in random_scan(9).items() if name != "initial_state"}
    arguments["x"] = arguments["x"].to(torch.bfloat16)
    y, final = run(arguments, "mamba_ssm")
    assert (y.dtype, final.dtype) == (torch.bfloat16, torch.float32)
    dtypes = {name: value.dtype for name, value in calls[0].items()}
    assert {dtypes[name] for name in ("u", "delta", "B", "C", "z")} == {torch.bfloat16}
    assert {dtypes[name] for name in ("A", "D", "delta_bias")} == {torch.float32}


def test_the_gradient_of_mamba_ssms_final_state_is_refused(as_on_cuda):
    arguments = {name: value for name, value in random_scan(9).items() if name != "initial_state"}
    _, final = run(arguments, "mamba_ssm")
    with pytest.raises(SlotSSMError, match="no gradient through the final state; use backend='chunked'"):
        final.sum().backward()


def test_mamba_ssm_refuses_what_it_cannot_do(as_on_cuda):
    with pytest.raises(InputError, match="takes no initial_state; use backend='auto' or 'chunked'"):
        run(random_scan(3), "mamba_ssm")


def test_mamba_ssm_needs_cuda_and_the_package(monkeypatch, nothing_chosen, calls):
    assert availability.has_mamba_ssm()
    with pytest.raises(InputError, match="needs inputs on CUDA"):
        run(random_scan(3), "mamba_ssm")
    availability._failures.clear()
    for name in [name for name in sys.modules if name.startswith("mamba_ssm")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match="the package mamba-ssm"):
        choices._chosen("mamba_ssm", "cuda", "float32", False)


def test_mamba_ssms_output_does_not_depend_on_how_inputs_lie_in_memory(as_on_cuda):
    arguments = {name: value.detach() for name, value in random_scan(9).items() if name != "initial_state"}
    expected = mamba_ssm.scan(*(arguments[name] for name in NAMES[:8]), True)
    strange = {name: LAYOUTS["axes reversed"](value) for name, value in arguments.items()}
    assert all(map(torch.equal, mamba_ssm.scan(*(strange[name] for name in NAMES[:8]), True), expected))


# --- memory -----------------------------------------------------------------------------------------------


def test_forward_and_backward_need_less_than_three_times_the_memory_of_the_inputs():
    arguments = random_scan(640, 80, 16, 12, torch.float32)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        torch.autograd.grad(loss(run(arguments)), list(arguments.values()))
    steps = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    in_use = peak = 0
    for event in sorted(steps, key=lambda event: event.start_ns()):
        in_use += event.nbytes()
        peak = max(peak, in_use)
    size = sum(value.nbytes for value in arguments.values())
    assert size < peak < 3 * size
