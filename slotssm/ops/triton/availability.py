"""Whether Triton's kernels work on this machine: they are tried once on each kind of device."""

import functools
import importlib.util
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from slotssm.ops.operators import trial

INTERPRETED = "TRITON_INTERPRET"
"""The variable that makes Triton interpret its kernels on the CPU, for tests."""

Scan = Callable[..., tuple[Tensor, Tensor]]
"""A scan from the arguments of `selective_scan` to outputs and the last state."""
Convolution = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""SiLU of the convolution of x [B, L, E] after the past [B, W, E], with weight [E, W] and bias [E]."""


def is_installed() -> bool:
    """Whether the package is there."""
    return importlib.util.find_spec("triton") is not None


def refusal(device: str, dtype: str, reference: Scan) -> str | None:
    """Why the scan cannot serve a device, with a remedy; None if it can.

    Args:
        device: type of the device.
        dtype: `float32` or `float64`, in which the state is kept.
        reference: the scan that the kernels are compared with.
    """
    return _refusal(device, lambda: _scan_failure(device, dtype, reference))


def convolution_refusal(device: str, dtype: str, reference: Convolution) -> str | None:
    """Why the convolution cannot serve a device, with a remedy; None if it can.

    Args:
        device: type of the device.
        dtype: `float32` or `float64`, in which it is computed.
        reference: the convolution that the kernels are compared with.
    """
    return _refusal(device, lambda: _convolution_failure(device, dtype, reference))


def launching_on(tensor: Tensor) -> AbstractContextManager[Any]:
    """Makes the device of a tensor the current one, on which Triton launches its kernels."""
    return torch.cuda.device(tensor.device) if tensor.device.type == "cuda" else nullcontext()


def indexable(tensor: Tensor) -> Tensor:
    """A tensor [B, L, E] in whose sequences offsets fit into the kernels' 32 bits: a copy if strides are long."""
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape[1:], tensor.stride()[1:], strict=True))
    return tensor if reach < 2**31 else tensor.contiguous()


def _refusal(device: str, failure: Callable[[], str]) -> str | None:
    is_interpreted = os.environ.get(INTERPRETED) == "1"
    if device != "cuda" and not (device == "cpu" and is_interpreted):
        return "needs inputs on CUDA; use backend='auto'"
    if not is_installed():
        return "needs the package triton, which torch's CUDA builds bring; use backend='auto'"
    if reason := failure():
        return f"does not work here ({reason}); use backend='auto'"
    return None


@functools.cache
def _scan_failure(device: str, dtype: str, reference: Scan) -> str:
    """Why a small scan with its gradients fails; empty if it equals the reference. A failure is warned of."""
    return trial.failure("Triton's scan", device, lambda: _scan_error(device, getattr(torch, dtype), reference))


@functools.cache
def _convolution_failure(device: str, dtype: str, reference: Convolution) -> str:
    """Why a small convolution with its gradients fails, as `_scan_failure`."""
    kind = getattr(torch, dtype)
    return trial.failure("Triton's convolution", device, lambda: _convolution_error(device, kind, reference))


def _scan_error(device: str, dtype: torch.dtype, reference: Scan) -> float:
    """Largest relative error of outputs and gradients of a small scan, with all that a Mamba block has.

    Step sizes are as small as in a new Mamba block, and channels and states fill a usual launch.
    """
    from slotssm.ops.triton import scan_operator

    numbers = _normal([(2, 19, 17), (2, 19, 17), (17, 16), (2, 19, 16), (2, 19, 16), (17,), (2, 19, 17), (17,)])
    numbers[1], numbers[2] = numbers[1] - 5, -numbers[2].abs()
    numbers += _normal([(2, 17, 16)])
    inputs = [number.to(device, dtype).requires_grad_() for number in numbers]
    scans: tuple[Scan, Scan] = (scan_operator.selective_scan, reference)
    outputs = [scan(*inputs[:8], True, inputs[8]) for scan in scans]
    gradients = [torch.autograd.grad(y.square().sum() + h.sum(), inputs) for y, h in outputs]
    return trial.largest_error((*outputs[0], *gradients[0]), (*outputs[1], *gradients[1]))


def _convolution_error(device: str, dtype: torch.dtype, reference: Convolution) -> float:
    """Largest relative error of outputs and gradients of a small convolution, over several programs."""
    from slotssm.ops.triton import convolution_operator

    numbers = _normal([(2, 37, 35), (2, 4, 35), (35, 4), (35,)])
    inputs = [number.to(device, dtype).requires_grad_() for number in numbers]
    outputs = [convolve(*inputs) for convolve in (convolution_operator.convolve, reference)]
    gradients = [torch.autograd.grad(y.square().sum(), inputs) for y in outputs]
    return trial.largest_error((outputs[0], *gradients[0]), (outputs[1], *gradients[1]))


def _normal(shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in shapes]
