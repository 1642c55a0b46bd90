"""The fused CPU scan as a torch operator: `kernels` run in threads, with their own gradient."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slotssm.ops import kernels

# defined by schema: torch's decorator for operators loads its compiler at the first call, which takes seconds
torch.library.define(
    "slotssm::fused_scan",
    "(Tensor x, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor initial_state) -> (Tensor, Tensor, Tensor)",
)
torch.library.define(
    "slotssm::fused_scan_backward",
    "(Tensor x, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor stored, Tensor grad_y, Tensor grad_final)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)

_pools: dict[int, ThreadPoolExecutor] = {}

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)


def _run(kernel: Callable[..., None], num_tasks: int, *arguments: Any) -> None:
    """Split the tasks over as many threads as torch uses; the caller's thread takes the first share."""
    num_threads = min(torch.get_num_threads(), num_tasks)
    if num_threads <= 1:
        kernel(0, num_tasks, *arguments)
        return
    if num_threads not in _pools:
        _pools[num_threads] = ThreadPoolExecutor(num_threads - 1, thread_name_prefix="slotssm-scan")
    edges = [num_tasks * i // num_threads for i in range(num_threads + 1)]
    others = [_pools[num_threads].submit(kernel, first, last, *arguments) for first, last in pairwise(edges[1:])]
    kernel(edges[0], edges[1], *arguments)
    for other in others:
        other.result()


def _num_blocks(num_channels: int) -> int:
    return max(1, -(-num_channels // kernels.BLOCK_CHANNELS))


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def _scaled(A: Tensor) -> np.ndarray:
    """[E, N] to the kernels' [N, E], in units of log 2."""
    return _array((A * kernels.LOG2_E).T)


@torch.library.impl("slotssm::fused_scan", "cpu")
def _fused_scan(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The scan of `reference.scan`; also returns the states stored for the gradient, [B, chunks, N, E].

    All tensors have one dtype, float32 or float64. The returned state is laid out [B, N, E].
    """
    batch, _, num_channels = x.shape
    y, stored, final = _outputs(x, A)
    blocks = _num_blocks(num_channels)
    arrays = (_array(x), _array(delta), _scaled(A), _array(B), _array(C))
    start = _array(initial_state.transpose(1, 2))
    _run(kernels.forward, batch * blocks, blocks, *arrays, start, y.numpy(), stored.numpy(), final.numpy())
    return y, final, stored


def _outputs(x: Tensor, A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    batch, num_steps, num_channels = x.shape
    num_states = A.shape[1]
    chunks = -(-num_steps // kernels.CHUNK_STEPS)
    return (
        x.new_empty(batch, num_steps, num_channels),
        x.new_empty(batch, chunks, num_states, num_channels),
        x.new_empty(batch, num_states, num_channels),
    )


@torch.library.register_fake("slotssm::fused_scan")
def _(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor) -> tuple[Tensor, ...]:
    y, stored, final = _outputs(x, A)
    return y, final, stored


@torch.library.impl("slotssm::fused_scan_backward", "cpu")
def _fused_scan_backward(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, stored: Tensor, grad_y: Tensor, grad_final: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `fused_scan` with respect to x, delta, A, B, C and the initial state."""
    batch, num_steps, num_channels = x.shape
    num_states = A.shape[1]
    blocks = _num_blocks(num_channels)
    grad_x, grad_delta = x.new_empty(x.shape), x.new_empty(x.shape)
    grad_state = grad_final.contiguous().clone()
    grad_A = x.new_empty(batch, num_states, num_channels)
    grad_B = x.new_empty(blocks, batch, num_steps, num_states)
    grad_C = torch.empty_like(grad_B)
    arrays = (_array(x), _array(delta), _scaled(A), _array(B), _array(C), _array(stored), _array(grad_y))
    outputs = (grad_state, grad_x, grad_delta, grad_A, grad_B, grad_C)
    _run(kernels.backward, batch * blocks, blocks, *arrays, *(tensor.numpy() for tensor in outputs))
    return (
        grad_x,
        grad_delta,
        grad_A.sum(0).T.contiguous(),
        grad_B.sum(0),
        grad_C.sum(0),
        grad_state.transpose(1, 2).contiguous(),
    )


@torch.library.register_fake("slotssm::fused_scan_backward")
def _(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, stored: Tensor, grad_y: Tensor, grad_final: Tensor
) -> tuple[Tensor, ...]:
    state = grad_final.new_empty(x.shape[0], A.shape[0], A.shape[1])
    return (*map(torch.empty_like, (x, delta, A, B, C)), state)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    x, delta, A, B, C, _ = inputs
    ctx.save_for_backward(x, delta, A, B, C, output[2])


def _differentiate(ctx: Any, grad_y: Tensor, grad_final: Tensor, grad_stored: Tensor) -> tuple[Tensor, ...]:
    return fused_scan_backward(*ctx.saved_tensors, grad_y, grad_final)


torch.library.register_autograd("slotssm::fused_scan", _differentiate, setup_context=_keep)
fused_scan = torch.ops.slotssm.fused_scan.default
fused_scan_backward = torch.ops.slotssm.fused_scan_backward.default


def scan(x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor) -> tuple[Tensor, Tensor]:
    """Drop-in replacement of `reference.scan` on the CPU."""
    # the kernels' fast exponential turns a NaN in A into a decay of zero, which would hide a broken model
    initial_state = initial_state + A.detach().masked_fill(~A.detach().isnan(), 0.0)
    y, final, _ = fused_scan(x, delta, A, B, C, initial_state)
    return y, final.transpose(1, 2)
