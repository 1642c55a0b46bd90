"""The causal convolution with SiLU of Triton as a torch operator: `convolution_kernels`.

The operator is registered when this module is imported; Triton is loaded when it first runs.
"""

from typing import Any

import torch
from torch import Tensor

from slotssm.ops.operators import scan_interface
from slotssm.ops.triton.availability import indexable, launching_on

STEPS, CHANNELS = 32, 32
"""Steps and channels of a program."""


def _launch(
    kernel: Any, tensors: tuple[Tensor, ...], sizes: tuple[int, ...], shape: tuple[int, ...], width: int
) -> None:
    """Run a kernel on tensors of a shape [B, L, E]."""
    import triton.language as tl

    batch, num_steps, num_channels = shape
    grid = (batch, -(-num_steps // STEPS), -(-num_channels // CHANNELS))
    if not all(grid):
        return
    dtype = tl.float64 if tensors[0].dtype == torch.float64 else tl.float32
    with launching_on(tensors[0]):
        kernel[grid](*tensors, *sizes, WIDTH=width, STEPS=STEPS, CHANNELS=CHANNELS, DTYPE=dtype)


def _forward(x: Tensor, past: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """SiLU of the convolution of x, [B, L, E], after the past, [B, W, E]."""
    from slotssm.ops.triton import convolution_kernels

    y = x.new_empty(x.shape)
    tensors = (x, past.contiguous(), weight.contiguous(), bias.contiguous(), y)
    _launch(convolution_kernels.forward, tensors, (*x.stride(), *x.shape[1:]), x.shape, weight.shape[1])
    return y


def _allocate(x: Tensor, past: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def _backward(
    x: Tensor, past: Tensor, weight: Tensor, bias: Tensor, grad_y: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients with respect to x, the past, weight and bias."""
    from slotssm.ops.triton import convolution_kernels

    batch, num_steps, num_channels = x.shape
    width, blocks = weight.shape[1], -(-num_steps // STEPS)
    grad_sum = weight.new_empty(x.shape)
    grad_weight, grad_bias = (weight.new_empty(batch, blocks, num_channels, *size) for size in ((width,), ()))
    weight = weight.contiguous()
    tensors = (x, past.contiguous(), weight, bias.contiguous(), grad_y.contiguous(), grad_sum, grad_weight, grad_bias)
    _launch(convolution_kernels.backward, tensors, (*x.stride(), num_steps, num_channels), x.shape, width)
    grad_history = x.new_empty(batch, width - 1 + num_steps, num_channels)
    sizes = (num_steps, num_channels)
    _launch(convolution_kernels.spread, (grad_sum, weight, grad_history), sizes, grad_history.shape, width)
    grad_past = torch.zeros_like(past, memory_format=torch.contiguous_format)
    grad_past[:, 1:] = grad_history[:, : width - 1]
    return grad_history[:, width - 1 :], grad_past, grad_weight.sum((0, 1)), grad_bias.sum((0, 1))


# not only for CUDA: Triton's interpreter runs kernels on the CPU
triton_convolution = scan_interface.convolution_operator(
    "triton_convolution", (_forward, _allocate), _backward, "CompositeExplicitAutograd"
)


def convolve(x: Tensor, past: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """SiLU of the causal convolution of x, [B, L, E], after the past, [B, W, E]; x and the past have one dtype."""
    return triton_convolution(indexable(x), past, weight, bias)
