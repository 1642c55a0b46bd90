"""The selective scan of Triton as a torch operator: `scan_kernels`, one program for some channels of a sequence.

The operator is registered when this module is imported; Triton is loaded when it first runs.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from slotssm.ops.operators import scan_interface
from slotssm.ops.operators.dtypes import state_dtype
from slotssm.ops.triton import tuning
from slotssm.ops.triton.availability import indexable, launching_on
from slotssm.ops.triton.tuning import Launch

CHUNK_STEPS = 16
"""Steps of a chunk; the states at the starts of chunks are stored for the backward pass."""
TILE_NUMEL = 256
"""States that a program holds: 2 in each of 128 threads' registers, so that many programs run at a time."""


def _tile(num_channels: int, num_states: int, numel: int = TILE_NUMEL) -> tuple[int, int]:
    """Channels and states of a program that holds `numel` states, powers of two."""
    states = 1 << max(0, num_states - 1).bit_length()
    channels = max(1, numel // states)
    return min(channels, 1 << max(0, num_channels - 1).bit_length()), states


def _forward_launches(num_channels: int, num_states: int) -> tuple[Launch, ...]:
    """Launches of the forward pass that are measured, the usual one first: tiles of three sizes, and fewer threads."""
    tiles = [_tile(num_channels, num_states, numel) for numel in (TILE_NUMEL, TILE_NUMEL // 2, 2 * TILE_NUMEL)]
    found = [Launch(channels, _num_warps(channels * states)) for channels, states in tiles]
    usual = found[0]
    return tuple(dict.fromkeys([*found, Launch(usual.channels, max(1, usual.num_warps // 2))]))


def _backward_launches(num_channels: int, num_states: int) -> tuple[Launch, ...]:
    """Launches of the backward pass that are measured, the usual one first; its memory is made for one tile."""
    channels, states = _tile(num_channels, num_states)
    return tuple(dict.fromkeys(Launch(channels, num) for num in (_num_warps(channels * states), 1, 2, 4)))


def _num_warps(numel: int) -> int:
    return max(1, min(4, numel // 64))


def _launch(
    kernel: Any,
    x: Tensor,
    A: Tensor,
    tensors: tuple[Tensor, ...],
    sizes: tuple[int, ...],
    launches: tuple[Launch, ...],
    **flags: bool,
) -> None:
    """Run a kernel on all sequences and blocks of channels; `sizes` are its strides and dimensions."""
    import triton.language as tl

    batch, num_channels = x.shape[0], x.shape[2]
    if not (batch and num_channels):
        return

    def grid(constants: dict[str, Any]) -> tuple[int, int]:
        return batch, -(-num_channels // constants["CHANNELS"])

    dtype = tl.float64 if state_dtype(x) == torch.float64 else tl.float32
    arguments = (*tensors, *sizes, tuning.size_class(batch))
    options = {"STEPS": CHUNK_STEPS, "STATES": _tile(*A.shape)[1], "DTYPE": dtype, **flags}
    with launching_on(x):
        if tuning.is_worthwhile(x):
            tuning.tuned(kernel, launches)[grid](*arguments, **options)
        else:
            usual = launches[0]
            kernel[grid](*arguments, **options, CHANNELS=usual.channels, num_warps=usual.num_warps)


def _strides(x: Tensor, dt: Tensor, B: Tensor, C: Tensor, z: Tensor | None) -> tuple[int, ...]:
    return tuple(stride for tensor in (x, dt, B, C, x if z is None else z) for stride in tensor.stride())


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
    """Outputs in the dtype of x; the last state, [B, E, N], and those at the starts of chunks, in that of the state."""
    from slotssm.ops.triton import scan_kernels

    outputs = _allocate(x, dt, A, B, C, D, z, delta_bias, softplus, initial_state)
    y, final, stored = outputs
    tensors = (x, dt, A, B, C, D, x if z is None else z, delta_bias, initial_state, y, final, stored)
    sizes = (*_strides(x, dt, B, C, z), x.shape[1], *A.shape)
    launches = _forward_launches(*A.shape)
    _launch(scan_kernels.forward, x, A, tensors, sizes, launches, SOFTPLUS=softplus, GATED=z is not None)
    return outputs


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
) -> tuple[Tensor, Tensor, Tensor]:
    batch, num_steps, _ = x.shape
    chunks = -(-num_steps // CHUNK_STEPS)
    final = initial_state.new_empty(batch, *A.shape)
    return x.new_empty(x.shape), final, initial_state.new_empty(batch, chunks, *A.shape)


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
    from slotssm.ops.triton import scan_kernels

    batch, num_steps, num_channels = x.shape
    channels, states = _tile(*A.shape)
    blocks = max(1, -(-num_channels // channels))
    scratch = stored.new_empty(batch, blocks, CHUNK_STEPS, channels, states)
    grad_x, grad_dt = x.new_empty(x.shape), dt.new_empty(dt.shape)
    grad_z = x.new_empty((0, 0, 0) if z is None else x.shape, dtype=x.dtype if z is None else z.dtype)
    grad_A, grad_state = (stored.new_empty(batch, *A.shape) for _ in range(2))
    grad_B, grad_C = (stored.new_empty(blocks, batch, num_steps, A.shape[1]) for _ in range(2))
    grad_D, grad_bias = (stored.new_empty(batch, num_channels) for _ in range(2))
    tensors: tuple[Tensor, ...] = (x, dt, A, B, C, D, x if z is None else z, delta_bias, stored, grad_y.contiguous())
    tensors += (grad_final.contiguous(), scratch, grad_x, grad_dt, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias)
    sizes = (*_strides(x, dt, B, C, z), batch, num_steps, *A.shape)
    tensors += (grad_state,)
    launches = _backward_launches(*A.shape)
    _launch(scan_kernels.backward, x, A, tensors, sizes, launches, SOFTPLUS=softplus, GATED=z is not None)
    return (
        grad_x,
        grad_dt,
        grad_A.sum(0),
        *(grad.sum(0).to(of.dtype) for grad, of in ((grad_B, B), (grad_C, C))),
        grad_D.sum(0),
        grad_z,
        grad_bias.sum(0),
        grad_state,
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
    grad_z = x.new_empty((0, 0, 0)) if z is None else z.new_empty(z.shape)
    return (
        *(tensor.new_empty(tensor.shape) for tensor in (x, dt, A, B, C, D)),
        grad_z,
        delta_bias.new_empty(delta_bias.shape),
        stored.new_empty(x.shape[0], *A.shape),
    )


# not only for CUDA: Triton's interpreter runs kernels on the CPU
triton_scan = scan_interface.scan_operator(
    "triton_scan", (_forward, _allocate), (_backward, _allocate_gradients), "CompositeExplicitAutograd"
)


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
    """`slotssm.ops.selective_scan` in Triton; inputs may have half precision, parameters and states are wider."""
    dtype = state_dtype(x)
    zeros = partial(torch.zeros, dtype=dtype, device=x.device)
    skip, bias = (zeros(x.shape[2]) if t is None else t.to(dtype).contiguous() for t in (D, delta_bias))
    start = zeros((x.shape[0], *A.shape)) if initial_state is None else initial_state.to(dtype).contiguous()
    x, dt, B, C = (indexable(tensor) for tensor in (x, dt, B, C))
    z = None if z is None else indexable(z)
    y, final, _ = triton_scan(x, dt, A.to(dtype).contiguous(), B, C, skip, z, bias, delta_softplus, start)
    return y, final
