"""Whether Triton's kernels work on this machine: they are tried once on each kind of device."""

import functools
import importlib.util
import os
from collections.abc import Callable

import torch
from torch import Tensor

from slotssm.ops.operators import trial

INTERPRETED = "TRITON_INTERPRET"
"""The variable that makes Triton interpret its kernels on the CPU, for tests."""

Recurrence = Callable[..., tuple[Tensor, Tensor]]
"""A scan from x, delta, A, B, C and an initial state to outputs and the last state."""


def is_installed() -> bool:
    """Whether the package is there."""
    return importlib.util.find_spec("triton") is not None


def refusal(device: str, dtype: str, reference: Recurrence) -> str | None:
    """Why the kernels cannot serve a device, with a remedy; None if they can.

    Args:
        device: type of the device.
        dtype: `float32` or `float64`, in which the state is kept.
        reference: the scan that the kernels are compared with.
    """
    is_interpreted = os.environ.get(INTERPRETED) == "1"
    if device != "cuda" and not (device == "cpu" and is_interpreted):
        return "needs inputs on CUDA; use backend='auto'"
    if not is_installed():
        return "needs the package triton, which torch's CUDA builds bring; use backend='auto'"
    if reason := _trial_failure(device, dtype, reference):
        return f"does not work here ({reason}); use backend='auto'"
    return None


@functools.cache
def _trial_failure(device: str, dtype: str, reference: Recurrence) -> str:
    """Why a small scan with its gradients fails; empty if it equals the reference. A failure is warned of."""
    return trial.failure("Triton's scan", device, lambda: _trial_error(device, getattr(torch, dtype), reference))


def _trial_error(device: str, dtype: torch.dtype, reference: Recurrence) -> float:
    """Largest relative error of outputs and gradients of a small scan."""
    from slotssm.ops.triton import scan_operator

    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 19, 5), (2, 19, 5), (5, 3), (2, 19, 3), (2, 19, 3), (2, 5, 3)]
    numbers = [torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes]
    x, delta, A, B, C, state = (
        t.requires_grad_() for t in (numbers[0], numbers[1].abs(), -numbers[2].abs(), *numbers[3:])
    )
    found = scan_operator.selective_scan(x, delta, A, B, C, None, None, None, False, state)
    expected = reference(x, delta, A, B, C, state)
    inputs = (x, delta, A, B, C, state)
    gradients = [torch.autograd.grad(y.square().sum() + h.sum(), inputs) for y, h in (found, expected)]
    return trial.largest_error((*found, *gradients[0]), (*expected, *gradients[1]))
