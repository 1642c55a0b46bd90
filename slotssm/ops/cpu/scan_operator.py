"""The fused CPU scan as a torch operator: `scan_kernels` run in threads, with their own gradient.

The operator exists as soon as the package is imported; numba is loaded when it first runs.
"""

import math
from typing import Any

import torch
from torch import Tensor

from slotssm.ops import threads
from slotssm.ops.derivatives import once
from slotssm.ops.sizes import SCAN_CHUNK_STEPS, as_array, name_of, tasks_of

_INPUTS = "Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor D, Tensor? z, Tensor delta_bias, bool softplus"
# defined by schema: torch's decorator for operators loads its compiler at the first call, which takes seconds
torch.library.define("slotssm::fused_scan", f"({_INPUTS}, Tensor initial_state) -> (Tensor, Tensor, Tensor)")
torch.library.define(
    "slotssm::fused_scan_backward",
    f"({_INPUTS}, Tensor stored, Tensor grad_y, Tensor grad_final)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
)


def _arrays(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor | None, delta_bias: Tensor
) -> list[Any]:
    """The kernels' inputs: A becomes [N, E], in units of log 2."""
    scaled = (A * math.log2(math.e)).T.contiguous()
    return [as_array(tensor) for tensor in (x, dt, scaled, B, C, D, x if z is None else z, delta_bias)]


def _forward_kernel(dtype: str) -> Any:
    from slotssm.ops import scan_kernels
    from slotssm.ops.bridge import compiled

    return compiled(scan_kernels.forward, 3, 2, (3, 3, 2, 3, 3, 1, 3, 1, 3, 3, 4, 3), dtype)


def _backward_kernel(dtype: str) -> Any:
    from slotssm.ops import scan_kernels
    from slotssm.ops.bridge import compiled

    return compiled(scan_kernels.backward, 3, 2, (3, 3, 2, 3, 3, 1, 3, 1, 4, 3, 3, 3, 3, 3, 4, 4, 2, 3, 2), dtype)


def prepare(dtype: str) -> None:
    """Compile the kernels for float32 or float64, or load them from the cache on disk."""
    _forward_kernel(dtype)
    _backward_kernel(dtype)


@torch.library.impl("slotssm::fused_scan", "cpu")
def _fused_scan(
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
    """The scan of `selective_scan`; also returns the states stored for the gradient, [B, chunks + 1, N, E].

    All tensors have one dtype, float32 or float64. The returned state is laid out [B, N, E].
    """
    kernel = _forward_kernel(name_of(x.dtype))
    outputs = _outputs(x, A)
    outputs[1][:, -1].zero_()
    num_tasks, block_channels = tasks_of(x)
    arrays = _arrays(x, dt, A, B, C, D, z, delta_bias)
    arrays += [as_array(initial_state.transpose(1, 2).contiguous()), *(tensor.numpy() for tensor in outputs)]
    threads.run(kernel, num_tasks, x.numel() * A.shape[1], block_channels, softplus, z is not None, *arrays)
    y, stored, final = outputs
    return y, final, stored


def _outputs(x: Tensor, A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    batch, num_steps, num_channels = x.shape
    num_states = A.shape[1]
    # one more than is needed: a size that may be 1 for some lengths would keep torch.export from leaving L open
    chunks = -(-num_steps // SCAN_CHUNK_STEPS) + 1
    return (
        x.new_empty(batch, num_steps, num_channels),
        x.new_empty(batch, chunks, num_states, num_channels),
        x.new_empty(batch, num_states, num_channels),
    )


@torch.library.register_fake("slotssm::fused_scan")
def _(
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


@torch.library.impl("slotssm::fused_scan_backward", "cpu")
def _fused_scan_backward(
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
    """Gradients of `fused_scan` with respect to x, dt, A, B, C, D, z, delta_bias and the initial state.

    That of z is empty where there is no z.
    """
    kernel = _backward_kernel(name_of(x.dtype))
    batch, num_steps, num_channels = x.shape
    num_states = A.shape[1]
    num_tasks, block_channels = tasks_of(x)
    blocks = max(1, -(-num_channels // block_channels))
    grad_x, grad_dt = x.new_empty(x.shape), x.new_empty(x.shape)
    grad_A, grad_state = (
        x.new_empty(batch, num_states, num_channels),
        grad_final.clone(memory_format=torch.contiguous_format),
    )
    grad_B, grad_C = (x.new_empty(blocks, batch, num_steps, num_states) for _ in range(2))
    grad_D, grad_bias = x.new_empty(batch, num_channels), x.new_empty(batch, num_channels)
    grad_z = x.new_empty((0, 0, 0) if z is None else x.shape)
    arrays = [*_arrays(x, dt, A, B, C, D, z, delta_bias), as_array(stored), as_array(grad_y)]
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


@torch.library.register_fake("slotssm::fused_scan_backward")
def _(
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


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, softplus, _ = inputs
    ctx.softplus, ctx.gated = softplus, tensors[6] is not None
    ctx.save_for_backward(*(tensor for tensor in tensors if tensor is not None), output[2])
    # a zero for the stored states would be large
    ctx.set_materialize_grads(False)


def _differentiate(
    ctx: Any, grad_y: Tensor | None, grad_final: Tensor | None, _: Tensor | None
) -> tuple[Tensor | None, ...]:
    *tensors, stored = ctx.saved_tensors
    x, A = tensors[0], tensors[2]
    grad_y = torch.zeros_like(x) if grad_y is None else grad_y
    grad_final = x.new_zeros(x.shape[0], *A.T.shape) if grad_final is None else grad_final
    if not ctx.gated:
        tensors.insert(6, None)
    *grads, grad_z, grad_bias, grad_state = once(
        fused_scan_backward, *tensors, ctx.softplus, stored, grad_y, grad_final
    )
    return *grads, grad_z if ctx.gated else None, grad_bias, None, grad_state


torch.library.register_autograd("slotssm::fused_scan", _differentiate, setup_context=_keep)
fused_scan = torch.ops.slotssm.fused_scan.default
fused_scan_backward = torch.ops.slotssm.fused_scan_backward.default


class _Scan(torch.autograd.Function):
    """The operator for torch.func, which refuses gradients that are registered in torch.library (pytorch#170834)."""

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        return fused_scan(*inputs)

    setup_context = staticmethod(_keep)
    backward = staticmethod(_differentiate)


def scan(
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
) -> tuple[Tensor, Tensor]:
    """All of `selective_scan` on the CPU; tensors of one dtype, float32 or float64."""
    y, final, _ = _Scan.apply(x, dt, A, B, C, D, z, delta_bias, softplus, initial_state)
    return y, final.transpose(1, 2)
