"""The adapter to `mamba_ssm`, on a stand-in of that package with its documented interface."""

import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
import torch
from scan_cases import LAYOUTS, NAMES, random_scan, relative_error, run

from slotssm.errors import InputError, SlotSSMError
from slotssm.ops import backends, selective_scan
from slotssm.ops.external import mamba_ssm


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
    mamba_ssm.is_installed.cache_clear()
    choose, module = backends.choose, importlib.import_module("slotssm.ops.selective_scan")
    monkeypatch.setattr(
        module,
        "choose",
        lambda backend, device, *rest: choose(backend, "cuda" if backend == "mamba_ssm" else device, *rest),
    )
    yield
    mamba_ssm.is_installed.cache_clear()


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
    values = random_scan(9, dtype=torch.float32)
    arguments = {name: value for name, value in values.items() if name != "initial_state"}
    _, final = run(arguments, "mamba_ssm")
    with pytest.raises(SlotSSMError, match="no gradient through the final state; use backend='chunked'"):
        final.sum().backward()


def test_mamba_ssm_refuses_what_it_cannot_do(as_on_cuda):
    with pytest.raises(InputError, match="takes no initial_state; use backend='auto' or 'chunked'"):
        run(random_scan(3, dtype=torch.float32), "mamba_ssm")


def test_mamba_ssm_does_not_compute_in_float64(as_on_cuda):
    arguments = {name: value for name, value in random_scan(3).items() if name != "initial_state"}
    with pytest.raises(InputError, match="does not compute in float64; use backend='auto' or 'chunked'"):
        run(arguments, "mamba_ssm")


def test_mamba_ssm_needs_cuda_and_the_package(monkeypatch, as_on_cuda, calls):
    with pytest.raises(InputError, match="needs inputs on CUDA"):
        backends.choose("mamba_ssm", "cpu", "float32", False)
    mamba_ssm.is_installed.cache_clear()
    for name in [name for name in sys.modules if name.startswith("mamba_ssm")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match="the package mamba-ssm"):
        backends.choose("mamba_ssm", "cuda", "float32", False)


def test_mamba_ssms_output_does_not_depend_on_how_inputs_lie_in_memory(as_on_cuda):
    arguments = {name: value.detach() for name, value in random_scan(9).items() if name != "initial_state"}
    expected = mamba_ssm.selective_scan(*(arguments[name] for name in NAMES[:8]), True, None)
    strange = {name: LAYOUTS["axes reversed"](value) for name, value in arguments.items()}
    assert all(map(torch.equal, mamba_ssm.selective_scan(*(strange[name] for name in NAMES[:8]), True, None), expected))


@pytest.mark.parametrize(
    "error", [ModuleNotFoundError("No module named 'x'", name="x"), ImportError("undefined symbol")]
)
def test_a_broken_installation_is_warned_of_once(monkeypatch, caplog, error):
    def broken(name):
        raise error

    mamba_ssm.is_installed.cache_clear()
    monkeypatch.setattr(importlib, "import_module", broken)
    assert [mamba_ssm.is_installed() for _ in range(2)] == [False, False]
    mamba_ssm.is_installed.cache_clear()
    assert caplog.messages == [f"mamba_ssm is installed, but broken ({error})"]
