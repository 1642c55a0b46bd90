"""Autotuning of Triton's kernels, with invented times, in the interpreter: `make test-triton`."""

import importlib.util
import os

import pytest
import torch
from scan_cases import random_scan, relative_error
from test_triton_kernels import values_and_gradients

from slotssm.ops import backends
from slotssm.ops.triton import availability, scan_operator, tuning

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None or os.environ.get(availability.INTERPRETED) != "1",
    reason="the package triton is not installed, or does not interpret (TRITON_INTERPRET=1)",
)


@pytest.fixture
def times(monkeypatch):
    """Every input is worth measuring, and the n-th launch that is measured takes the n-th of these times, then 1."""
    # the trial of the kernels comes first, as for users
    assert backends.choose("triton", "cpu", "float64", False) == "triton"
    times, measured = [], []

    def milliseconds(run) -> float:
        run()
        measured.append(times[len(measured)] if len(measured) < len(times) else 1.0)
        return measured[-1]

    monkeypatch.setattr(tuning, "is_worthwhile", lambda x: True)
    monkeypatch.setattr(tuning, "milliseconds", milliseconds)
    tuning.tuned.cache_clear()
    yield times, measured
    tuning.tuned.cache_clear()


def forward_alone(batch: int, length: int = 1, channels: int = 20) -> None:
    with torch.no_grad():
        arguments = random_scan(length, channels, 16, batch)
        values = {name: value.detach() for name, value in arguments.items()}
        scan_operator.selective_scan(
            *(values[name] for name in ("x", "dt", "A", "B", "C", "D", "z", "delta_bias")),
            True,
            values["initial_state"],
        )


# each of the four launches forward and the three backward is the fastest once
@pytest.mark.parametrize("fastest", range(4))
def test_every_launch_gives_the_values_and_gradients_of_the_reference(times, fastest):
    times[0].extend(0.5 if index in (fastest, 4 + fastest) else 1.0 for index in range(7))
    arguments = random_scan(5, 20, 16, 1)
    expected = values_and_gradients(arguments, "reference", True)
    # measured first, then taken
    for _ in range(2):
        for name, found in values_and_gradients(arguments, "triton", True).items():
            assert relative_error(found, expected[name]) < 1e-10, name
    assert len(times[1]) == 7


def test_a_class_of_sizes_is_measured_once(times):
    _, measured = times
    few = len(scan_operator._forward_launches(20, 16))
    forward_alone(batch=3)
    assert len(measured) == few
    forward_alone(batch=4, length=2)
    assert len(measured) == few
    forward_alone(batch=5)
    assert len(measured) == 2 * few
    forward_alone(batch=5, channels=21)
    assert len(measured) == 3 * few


def test_the_fastest_is_taken(times):
    times[0].extend([4.0, 3.0, 1.0, 2.0])
    forward_alone(batch=2)
    launches = scan_operator._forward_launches(20, 16)
    # loads Triton
    from slotssm.ops.triton import scan_kernels

    best = tuning.tuned(scan_kernels.forward, launches).best_config
    assert (best.kwargs["CHANNELS"], best.num_warps) == launches[2]
