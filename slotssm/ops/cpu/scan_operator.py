"""The selective scan as a torch operator: `scan_kernels`, run in threads.

The operator is registered when this module is imported; numba is loaded when it first runs.
"""

import math
from typing import Any

import torch
from torch import Tensor

from slotssm.ops.cpu import threads
from slotssm.ops.cpu.tiling import SCAN_CHUNK_STEPS, as_array, divide
from slotssm.ops.operators import scan_interface
from slotssm.ops.operators.dtypes import dtype_name, state_dtype


def _kernel_inputs(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor | None, delta_bias: Tensor
) -> list[Any]:
    """The kernels' inputs: A becomes [N, E], times log2(e)."""
    scaled = (A * math.log2(math.e)).T.contiguous()
    return [as_array(tensor) for tensor in (x, dt, scaled, B, C, D, x if z is None else z, delta_bias)]


def _forward_kernel(dtype: str) -> Any:
    from slotssm.ops.cpu import scan_kernels
    from slotssm.ops.cpu.codegen import compiler

    return compiler.compile_kernel(scan_kernels.forward, (3, 3, 2, 3, 3, 1, 3, 1, 3, 3, 4, 3), dtype)


def _backward_kernel(dtype: str) -> Any:
    from slotssm.ops.cpu import scan_kernels
    from slotssm.ops.cpu.codegen import compiler

    ranks = (3, 3, 2, 3, 3, 1, 3, 1, 4, 3, 3, 3, 3, 3, 4, 4, 2, 3, 2)
    return compiler.compile_kernel(scan_kernels.backward, ranks, dtype)


def prepare(dtype: str) -> None:
    """Compile the kernels for float32 or float64, or load them from the cache on disk."""
    _forward_kernel(dtype)
    _backward_kernel(dtype)


def _forward(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor | None,
    delta_bias: Tensor,
    softplus: bool,
    initial_state: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last state as [B, N, E], and the states at the starts of chunks, [B, chunks + 1, N, E].

    All tensors have one dtype, float32 or float64.
    """
    kernel = _forward_kernel(dtype_name(x.dtype))
    outputs = _outputs(x, A)
    outputs[1][:, -1].zero_()
    num_tasks, block_channels = divide(x)
    arrays = _kernel_inputs(x, dt, A, B, C, D, z, delta_bias)
    arrays += [as_array(initial_state.transpose(1, 2).contiguous()), *(tensor.numpy() for tensor in outputs)]
    threads.run(kernel, num_tasks, x.numel() * A.shape[1], block_channels, softplus, z is not None, *arrays)
    y, stored, final = outputs
    return y, final, stored


def _outputs(x: Tensor, A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    batch, num_steps, num_channels = x.shape
    num_states = A.shape[1]
    # one more than is needed: torch.export treats a size of 1 as fixed, and would not leave the length open
    chunks = -(-num_steps // SCAN_CHUNK_STEPS) + 1
    return (
        x.new_empty(batch, num_steps, num_channels),
        x.new_empty(batch, chunks, num_states, num_channels),
        x.new_empty(batch, num_states, num_channels),
    )


def _allocate(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor | None,
    delta_bias: Tensor,
    softplus: bool,
    initial_state: Tensor,
) -> tuple[Tensor, ...]:
    y, stored, final = _outputs(x, A)
    return y, final, stored


def _backward(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor | None,
    delta_bias: Tensor,
    softplus: bool,
    stored: Tensor,
    grad_y: Tensor,
    grad_final: Tensor,
) -> tuple[Tensor, ...]:
    """Gradients with respect to x, dt, A, B, C, D, z, delta_bias and the initial state.

    Without z, its gradient is an empty tensor.
    """
    kernel = _backward_kernel(dtype_name(x.dtype))
    batch, num_steps, num_channels = x.shape
    num_states = A.shape[1]
    num_tasks, block_channels = divide(x)
    blocks = max(1, -(-num_channels // block_channels))
    grad_x, grad_dt = x.new_empty(x.shape), x.new_empty(x.shape)
    grad_A, grad_state = (
        x.new_empty(batch, num_states, num_channels),
        grad_final.clone(memory_format=torch.contiguous_format),
    )
    grad_B, grad_C = (x.new_empty(blocks, batch, num_steps, num_states) for _ in range(2))
    grad_D, grad_bias = x.new_empty(batch, num_channels), x.new_empty(batch, num_channels)
    grad_z = x.new_empty((0, 0, 0) if z is None else x.shape)
    arrays = [*_kernel_inputs(x, dt, A, B, C, D, z, delta_bias), as_array(stored), as_array(grad_y)]
    gradients = (grad_state, grad_x, grad_dt, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias)
    arrays += [tensor.numpy() for tensor in gradients]
    threads.run(kernel, num_tasks, 3 * x.numel() * num_states, block_channels, softplus, z is not None, *arrays)
    return (
        grad_x,
        grad_dt,
        grad_A.sum(0).T.contiguous(),
        *((grad[0] if blocks == 1 else grad.sum(0)) for grad in (grad_B, grad_C)),
        grad_D.sum(0),
        grad_z,
        grad_bias.sum(0),
        grad_state.transpose(1, 2).contiguous(),
    )


def _allocate_gradients(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor | None,
    delta_bias: Tensor,
    softplus: bool,
    stored: Tensor,
    grad_y: Tensor,
    grad_final: Tensor,
) -> tuple[Tensor, ...]:
    grad_z = x.new_empty((0, 0, 0) if z is None else x.shape)
    state = x.new_empty(x.shape[0], *A.shape)
    return (
        *(tensor.new_empty(tensor.shape) for tensor in (x, dt, A, B, C, D)),
        grad_z,
        torch.empty_like(delta_bias),
        state,
    )


fused_scan = scan_interface.scan_operator("fused_scan", (_forward, _allocate), (_backward, _allocate_gradients), "cpu")


def selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """`slotssm.ops.selective_scan` on the CPU; y is in the dtype of the state."""
    dtype = state_dtype(x)
    skip, bias = (x.new_zeros(x.shape[2]) if t is None else t for t in (D, delta_bias))
    start = x.new_zeros(x.shape[0], *A.shape) if initial_state is None else initial_state
    x, dt, A, B, C, skip, bias, start = (t.to(dtype) for t in (x, dt, A, B, C, skip, bias, start))
    gate = None if z is None else z.to(dtype)
    y, final, _ = fused_scan(x, dt, A, B, C, skip, gate, bias, delta_softplus, start)
    return y, final.transpose(1, 2)
