"""When Triton's kernels are used: on CUDA, and only where a trial agrees with the reference."""

import logging

import pytest
import torch

from slotssm.ops import backends, convolution
from slotssm.ops.external import mamba_ssm
from slotssm.ops.triton import availability


@pytest.fixture
def installed(monkeypatch):
    """Triton is installed and does not interpret; nothing has been tried."""
    monkeypatch.setattr(backends, "_automatic", {})
    monkeypatch.setattr(availability, "is_installed", lambda: True)
    monkeypatch.delenv(availability.INTERPRETED, raising=False)
    availability._scan_failure.cache_clear()
    yield monkeypatch
    availability._scan_failure.cache_clear()


def test_the_kernels_are_for_cuda_unless_they_are_interpreted(installed):
    installed.setattr(availability, "_scan_error", lambda *case: 1e-7)
    assert "needs inputs on CUDA" in availability.refusal("cpu", "float32", backends._reference)
    assert availability.refusal("cuda", "float32", backends._reference) is None
    installed.setenv(availability.INTERPRETED, "1")
    assert availability.refusal("cpu", "float32", backends._reference) is None
    assert "needs inputs on CUDA" in availability.refusal("mps", "float32", backends._reference)


def test_without_the_package_the_next_backend_serves(installed):
    installed.setattr(availability, "is_installed", lambda: False)
    installed.setattr(mamba_ssm, "is_installed", lambda: True)
    assert "needs the package triton" in availability.refusal("cuda", "float32", backends._reference)
    assert backends.choose("auto", "cuda", "float32", False) == "mamba_ssm"


@pytest.mark.parametrize("resumed", [True, False])
def test_auto_takes_it_on_cuda_before_the_others(installed, resumed):
    installed.setattr(availability, "_scan_error", lambda *case: 1e-7)
    installed.setattr(mamba_ssm, "is_installed", lambda: True)
    assert backends.choose("auto", "cuda", "float32", resumed) == "triton"


@pytest.mark.parametrize("fault", ["wrong", "broken", "not a number"])
def test_kernels_that_fail_a_trial_are_told_of_once_and_not_used(installed, caplog, fault):
    def trial(*case):
        if fault == "broken":
            raise RuntimeError("cannot compile\nfor this device")
        return 0.5 if fault == "wrong" else float("nan")

    installed.setattr(availability, "_scan_error", trial)
    installed.setattr(mamba_ssm, "is_installed", lambda: False)
    with caplog.at_level(logging.WARNING, "slotssm"):
        assert [backends.choose("auto", "cuda", "float32", True) for _ in range(2)] == ["chunked"] * 2
        assert "does not work here" in availability.refusal("cuda", "float32", backends._reference)
    (record,) = caplog.records
    assert "is not used" in record.getMessage()
    assert ("cannot compile" in record.getMessage()) == (fault == "broken")


@pytest.mark.parametrize("error", [1e-7, 0.5])
def test_the_convolution_has_a_trial_of_its_own(installed, caplog, error):
    installed.setattr(availability, "_scan_error", lambda *case: 1e-7)
    installed.setattr(availability, "_convolution_error", lambda *case: error)
    availability._convolution_failure.cache_clear()
    with caplog.at_level(logging.WARNING, "slotssm"):
        served = [convolution._triton_serves(device, "float32") for device in ("cuda", "cuda", "cpu", "mps")]
    assert served == [error < 1e-3, error < 1e-3, False, False]
    assert len(caplog.records) == (error > 1e-3)
    assert backends.choose("auto", "cuda", "float32", False) == "triton"
    availability._convolution_failure.cache_clear()


def test_long_strides_are_copied_and_others_are_not():
    near = torch.empty(1).expand(2, 5, 7)
    assert availability.indexable(near) is near
    far = torch.empty(1).as_strided((1, 1, 1), (1, 2**31, 1))
    # one step reaches nowhere, however long its stride is
    assert availability.indexable(far) is far
    with torch.device("meta"):
        time_first = torch.empty(2**20, 3, 5).transpose(0, 1)[:, :, :1].expand(3, 2**20, 1)
        apart = torch.empty(2**12, 2**20).T.as_strided((1, 3, 2**12), (1, 1, 2**20))
    assert availability.indexable(time_first) is time_first
    assert availability.indexable(apart).stride()[1:] == (2**12, 1)
