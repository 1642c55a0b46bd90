"""The fused convolution and SiLU as a torch operator: `convolution_kernels` run in threads, with their own gradient."""

from typing import Any

import torch
from torch import Tensor

from slotssm.ops import threads
from slotssm.ops.derivatives import once
from slotssm.ops.sizes import as_array, name_of, tasks_of

torch.library.define("slotssm::fused_convolution", "(Tensor x, Tensor past, Tensor weight, Tensor bias) -> Tensor")
torch.library.define(
    "slotssm::fused_convolution_backward",
    "(Tensor x, Tensor past, Tensor weight, Tensor bias, Tensor grad_y) -> (Tensor, Tensor, Tensor, Tensor)",
)


def _forward_kernel(dtype: str) -> Any:
    from slotssm.ops import convolution_kernels
    from slotssm.ops.bridge import compiled

    return compiled(convolution_kernels.forward, 3, 0, (3, 3, 2, 2, 3), dtype)


def _backward_kernel(dtype: str) -> Any:
    from slotssm.ops import convolution_kernels
    from slotssm.ops.bridge import compiled

    return compiled(convolution_kernels.backward, 3, 0, (3, 3, 2, 2, 3, 3, 3, 3), dtype)


def prepare(dtype: str) -> None:
    """Compile the kernels for float32 or float64, or load them from the cache on disk."""
    _forward_kernel(dtype)
    _backward_kernel(dtype)


def _inputs(x: Tensor, past: Tensor, weight: Tensor, bias: Tensor) -> list[Any]:
    """The kernels' inputs: the past without its oldest step, which no output reads, and taps before channels."""
    return [as_array(tensor) for tensor in (x, past[:, 1:], weight.T.contiguous(), bias[None])]


@torch.library.impl("slotssm::fused_convolution", "cpu")
def _fused_convolution(x: Tensor, past: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """SiLU of the causal convolution; the past is [B, W, E], all tensors have one dtype."""
    y = x.new_empty(x.shape)
    num_tasks, block_channels = tasks_of(x)
    kernel = _forward_kernel(name_of(x.dtype))
    threads.run(kernel, num_tasks, 8 * x.numel(), block_channels, *_inputs(x, past, weight, bias), y.numpy())
    return y


@torch.library.register_fake("slotssm::fused_convolution")
def _(x: Tensor, past: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.impl("slotssm::fused_convolution_backward", "cpu")
def _fused_convolution_backward(
    x: Tensor, past: Tensor, weight: Tensor, bias: Tensor, grad_y: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, the past, weight and bias."""
    batch, num_steps, num_channels = x.shape
    width = weight.shape[1]
    grad_history = x.new_empty(batch, width - 1 + num_steps, num_channels)
    grad_weight, grad_bias = x.new_empty(batch, width, num_channels), x.new_empty(batch, 1, num_channels)
    num_tasks, block_channels = tasks_of(x)
    arrays = [*_inputs(x, past, weight, bias), as_array(grad_y)]
    arrays += [tensor.numpy() for tensor in (grad_history, grad_weight, grad_bias)]
    threads.run(_backward_kernel(name_of(x.dtype)), num_tasks, 16 * x.numel(), block_channels, *arrays)
    grad_past = torch.zeros_like(past, memory_format=torch.contiguous_format)
    grad_past[:, 1:] = grad_history[:, : width - 1]
    # a copy that does not keep the past's gradient in memory is not worth its time
    return grad_history[:, width - 1 :], grad_past, grad_weight.sum(0).T.contiguous(), grad_bias.sum((0, 1))


@torch.library.register_fake("slotssm::fused_convolution_backward")
def _(x: Tensor, past: Tensor, weight: Tensor, bias: Tensor, grad_y: Tensor) -> tuple[Tensor, ...]:
    batch, num_steps, num_channels = x.shape
    width = weight.shape[1]
    history = x.new_empty(batch, width - 1 + num_steps, num_channels)
    return history[:, width - 1 :], *(tensor.new_empty(tensor.shape) for tensor in (past, weight, bias))


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate(ctx: Any, grad_y: Tensor) -> tuple[Tensor, ...]:
    return once(fused_convolution_backward, *ctx.saved_tensors, grad_y)


torch.library.register_autograd("slotssm::fused_convolution", _differentiate, setup_context=_keep)
fused_convolution = torch.ops.slotssm.fused_convolution.default
fused_convolution_backward = torch.ops.slotssm.fused_convolution_backward.default


class _Convolution(torch.autograd.Function):
    """The operator for torch.func, as in `fused_scan`."""

    @staticmethod
    def forward(x: Tensor, past: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return fused_convolution(x, past, weight, bias)

    setup_context = staticmethod(_keep)
    backward = staticmethod(_differentiate)


def convolve(x: Tensor, past: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """SiLU of the causal convolution of x, [B, L, E], after the past, [B, W, E]; float32 or float64."""
    return _Convolution.apply(x, past, weight, bias)
