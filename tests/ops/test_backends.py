"""The table of backends: which of them serves a call, and what takes the place of one that cannot."""

import importlib
import logging

import pytest
import torch
from scan_cases import random_convolution, random_scan, relative_error, run

from slotssm.errors import InputError
from slotssm.ops import backends, causal_convolve, selective_scan
from slotssm.ops.backends import Backend
from slotssm.ops.cpu.codegen import compiler
from slotssm.ops.external import mamba_ssm


@pytest.fixture
def broken_compiler(monkeypatch, nothing_chosen):
    def broken(*arguments):
        raise OSError("no room for machine code\nand more")

    monkeypatch.setattr(compiler, "compile_kernel", broken)


def test_without_a_compiler_torch_takes_the_kernels_place_with_one_warning(broken_compiler, caplog):
    arguments, inputs = random_scan(40), random_convolution(40)
    found = [run(arguments, "auto") for _ in range(2)][1]
    y, _ = causal_convolve(*inputs)
    gradients = torch.autograd.grad(y.square().sum(), inputs)
    (warned,) = caplog.records
    assert (warned.name, warned.levelno) == ("slotssm", logging.WARNING)
    assert "(OSError: no room for machine code); slower torch operators" in warned.getMessage()
    assert backends._automatic == {("cpu", "float64", True): "chunked"}
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
    monkeypatch.setattr(mamba_ssm, "is_installed", lambda: installed)
    assert backends.choose("auto", *case) == expected


def test_a_further_entry_of_the_table_is_a_further_backend(monkeypatch, nothing_chosen):
    def refusal(case):
        return "is for float64" if case.dtype == "float32" else None

    table = {"new": Backend(backends.BACKENDS["reference"].scan, refusal), **backends.BACKENDS}
    monkeypatch.setattr(backends, "BACKENDS", table)
    monkeypatch.setattr(importlib.import_module("slotssm.ops.selective_scan"), "BACKENDS", table)
    arguments = random_scan(9)
    for ours, theirs in zip(run(arguments, "new"), run(arguments, "reference"), strict=True):
        assert torch.equal(ours, theirs)
    assert backends.choose("auto", "cpu", "float64", False) == "new"
    assert backends.choose("auto", "cpu", "float32", False) == "fused"
    with pytest.raises(InputError, match=r"^backend 'new' is for float64$"):
        run(random_scan(9, dtype=torch.float32), "new")
    with pytest.raises(InputError, match=r"is not one of auto, new, mamba_ssm, fused, chunked, reference$"):
        selective_scan(**arguments, backend="newer")
