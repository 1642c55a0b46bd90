"""The causal convolution with SiLU as a torch operator: `convolution_kernels`, run in threads."""

from typing import Any

import torch
from torch import Tensor

from slotssm.ops.cpu import threads
from slotssm.ops.cpu.tiling import as_array, divide
from slotssm.ops.operators import scan_interface
from slotssm.ops.operators.dtypes import dtype_name


def _forward_kernel(dtype: str) -> Any:
    from slotssm.ops.cpu import convolution_kernels
    from slotssm.ops.cpu.codegen import compiler

    return compiler.compile_kernel(convolution_kernels.forward, (3, 3, 2, 2, 3), dtype)


def _backward_kernel(dtype: str) -> Any:
    from slotssm.ops.cpu import convolution_kernels
    from slotssm.ops.cpu.codegen import compiler

    return compiler.compile_kernel(convolution_kernels.backward, (3, 3, 2, 2, 3, 3, 3, 3), dtype)


def prepare(dtype: str) -> None:
    """Compile the kernels for float32 or float64, or load them from the cache on disk."""
    _forward_kernel(dtype)
    _backward_kernel(dtype)


def _kernel_inputs(x: Tensor, past: Tensor, weight: Tensor, bias: Tensor) -> list[Any]:
    """The kernels' inputs: the past without its oldest step, which no output reads, and taps before channels."""
    return [as_array(tensor) for tensor in (x, past[:, 1:], weight.T.contiguous(), bias[None])]


def _forward(x: Tensor, past: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """SiLU of the convolution of x, [B, L, E], after the past, [B, W, E]; all tensors have one dtype."""
    y = x.new_empty(x.shape)
    num_tasks, block_channels = divide(x)
    kernel = _forward_kernel(dtype_name(x.dtype))
    arrays = [*_kernel_inputs(x, past, weight, bias), y.numpy()]
    threads.run(kernel, num_tasks, 8 * x.numel(), block_channels, *arrays)
    return y


def _allocate(x: Tensor, past: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(x.shape)


def _backward(
    x: Tensor, past: Tensor, weight: Tensor, bias: Tensor, grad_y: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients with respect to x, the past, weight and bias."""
    batch, num_steps, num_channels = x.shape
    width = weight.shape[1]
    grad_history = x.new_empty(batch, width - 1 + num_steps, num_channels)
    grad_weight, grad_bias = x.new_empty(batch, width, num_channels), x.new_empty(batch, 1, num_channels)
    num_tasks, block_channels = divide(x)
    arrays = [*_kernel_inputs(x, past, weight, bias), as_array(grad_y)]
    arrays += [tensor.numpy() for tensor in (grad_history, grad_weight, grad_bias)]
    threads.run(_backward_kernel(dtype_name(x.dtype)), num_tasks, 16 * x.numel(), block_channels, *arrays)
    grad_past = torch.zeros_like(past, memory_format=torch.contiguous_format)
    grad_past[:, 1:] = grad_history[:, : width - 1]
    # a view: copying it, to free the past's gradient, takes more time than it is worth
    return grad_history[:, width - 1 :], grad_past, grad_weight.sum(0).T.contiguous(), grad_bias.sum((0, 1))


fused_convolution = scan_interface.convolution_operator("fused_convolution", (_forward, _allocate), _backward, "cpu")


def convolve(x: Tensor, past: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """SiLU of the causal convolution of x, [B, L, E], after the past, [B, W, E]; all float32 or all float64."""
    return fused_convolution(x, past, weight, bias)
