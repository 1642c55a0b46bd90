"""When Triton's kernels are used: on CUDA, and only where a trial agrees with the reference."""

import logging

import pytest

from slotssm.ops import backends, reference
from slotssm.ops.external import mamba_ssm
from slotssm.ops.triton import availability


@pytest.fixture
def installed(monkeypatch):
    """Triton is installed and does not interpret; nothing has been tried."""
    monkeypatch.setattr(backends, "_automatic", {})
    monkeypatch.setattr(availability, "is_installed", lambda: True)
    monkeypatch.delenv(availability.INTERPRETED, raising=False)
    availability._trial_failure.cache_clear()
    yield monkeypatch
    availability._trial_failure.cache_clear()


def test_the_kernels_are_for_cuda_unless_they_are_interpreted(installed):
    installed.setattr(availability, "_trial_error", lambda *case: 1e-7)
    assert "needs inputs on CUDA" in availability.refusal("cpu", "float32", reference.scan)
    assert availability.refusal("cuda", "float32", reference.scan) is None
    installed.setenv(availability.INTERPRETED, "1")
    assert availability.refusal("cpu", "float32", reference.scan) is None
    assert "needs inputs on CUDA" in availability.refusal("mps", "float32", reference.scan)


def test_without_the_package_the_next_backend_serves(installed):
    installed.setattr(availability, "is_installed", lambda: False)
    installed.setattr(mamba_ssm, "is_installed", lambda: True)
    assert "needs the package triton" in availability.refusal("cuda", "float32", reference.scan)
    assert backends.choose("auto", "cuda", "float32", False) == "mamba_ssm"


@pytest.mark.parametrize("resumed", [True, False])
def test_auto_takes_it_on_cuda_before_the_others(installed, resumed):
    installed.setattr(availability, "_trial_error", lambda *case: 1e-7)
    installed.setattr(mamba_ssm, "is_installed", lambda: True)
    assert backends.choose("auto", "cuda", "float32", resumed) == "triton"


@pytest.mark.parametrize("fault", ["wrong", "broken", "not a number"])
def test_kernels_that_fail_a_trial_are_told_of_once_and_not_used(installed, caplog, fault):
    def trial(*case):
        if fault == "broken":
            raise RuntimeError("cannot compile\nfor this device")
        return 0.5 if fault == "wrong" else float("nan")

    installed.setattr(availability, "_trial_error", trial)
    installed.setattr(mamba_ssm, "is_installed", lambda: False)
    with caplog.at_level(logging.WARNING, "slotssm"):
        assert [backends.choose("auto", "cuda", "float32", True) for _ in range(2)] == ["chunked"] * 2
        assert "does not work here" in availability.refusal("cuda", "float32", reference.scan)
    (record,) = caplog.records
    assert "is not used" in record.getMessage()
    assert ("cannot compile" in record.getMessage()) == (fault == "broken")
