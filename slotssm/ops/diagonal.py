"""A linear recurrence that does not depend on its input: diagonal, complex, with any number of states a channel."""

import torch
from einops import rearrange
from jaxtyping import Complex, Inexact
from torch import Tensor

from slotssm.errors import InputError
from slotssm.ops.state_passing import pass_states


def diagonal_scan(
    u: Inexact[Tensor, "B L D"],
    log_decay: Complex[Tensor, "D N"],
    B: Complex[Tensor, "D N"],
    C: Complex[Tensor, "D N"],
    initial_state: Complex[Tensor, "B D N"],
    chunk_size: int = 64,
) -> tuple[Inexact[Tensor, "B L D"], Complex[Tensor, "B D N"]]:
    """Run h_t = exp(log_decay) h_{t-1} + B u_t, y_t = Σ_n C h_t over a sequence, for every channel by itself.

    Within a chunk it is a convolution, written as a Toeplitz matrix, between chunks a recurrence of states, so
    that time is linear in L and no state is kept for the steps in between. It is computed in complex64
    (complex128 for inputs of double precision), also under autocast.

    Args:
        u: input, real or complex.
        log_decay: logarithm of the decay over one step; its real part is not positive.
        B: input map.
        C: output map.
        initial_state: h before the first step.
        chunk_size: steps of a chunk. It decides speed and memory, not the result; 64 was fastest on a CPU.

    Returns:
        y in the dtype of u, of which only the real part is kept for a real u; and h after the last step.

    Raises:
        InputError: a chunk size below 1.
    """
    if chunk_size < 1:
        raise InputError(f"chunk_size {chunk_size} is below 1")
    dtype, length = _complex_dtype(u), u.shape[1]
    log_decay, B, C, state = log_decay.to(dtype), B.to(dtype), C.to(dtype), initial_state.to(dtype)
    # whole chunks, and the steps that are left as a shorter one
    whole = length - length % chunk_size
    outputs = [u.new_zeros(u.shape[0], 0, u.shape[2])]
    # autocast would round the matrix products to half precision
    with torch.autocast(u.device.type, enabled=False):
        for part, size in ((u[:, :whole], chunk_size), (u[:, whole:], length - whole)):
            if part.shape[1]:
                y, state = _scan(part, log_decay, B, C, state, size)
                outputs.append(y.to(u.dtype))
    return torch.cat(outputs, dim=1), state


def diagonal_step(
    state: Complex[Tensor, "B D N"],
    u: Inexact[Tensor, "B D"],
    log_decay: Complex[Tensor, "D N"],
    B: Complex[Tensor, "D N"],
    C: Complex[Tensor, "D N"],
) -> tuple[Inexact[Tensor, "B D"], Complex[Tensor, "B D N"]]:
    """One step of `diagonal_scan`; returns the output and the new state."""
    state = torch.exp(log_decay.to(state.dtype)) * state + B.to(state.dtype) * u[..., None]
    y = (C.to(state.dtype) * state).sum(-1)
    return (y if u.is_complex() else y.real).to(u.dtype), state


def _scan(
    u: Tensor, log_decay: Tensor, B: Tensor, C: Tensor, initial_state: Tensor, size: int
) -> tuple[Tensor, Tensor]:
    """The scan over chunks of one size; its letters: b batch, c chunk, q step of the chunk, d channel, n state."""
    chunks = u.shape[1] // size
    # exp(k log_decay) for k = 0 ... size
    powers = torch.exp(log_decay[..., None] * torch.arange(size + 1, device=u.device))
    kernel = torch.einsum("dn,dnq->dq", B * C, powers[..., :-1])
    inputs = rearrange(u, "b (c q) d -> d q (c b)", c=chunks).to(u.dtype if u.is_complex() else kernel.real.dtype)
    within = _toeplitz(kernel if u.is_complex() else kernel.real) @ inputs

    gains = (B[..., None] * powers[..., :-1].flip(-1)) @ inputs.to(kernel.dtype)
    over_chunk = powers[..., -1].expand(chunks, 1, -1, -1)
    before, final = pass_states(rearrange(gains, "d n (c b) -> c b d n", c=chunks), over_chunk, initial_state)
    read = rearrange(C[..., None] * powers[..., 1:], "d n q -> d q n")
    carried = read @ rearrange(before, "c b d n -> d n (c b)")
    y = within + (carried if u.is_complex() else carried.real)
    return rearrange(y, "d q (c b) -> b (c q) d", c=chunks), final


def _toeplitz(kernel: Tensor) -> Tensor:
    """[D, Q] to lower triangular [D, Q, Q], whose entry t, s is the kernel at the lag t - s."""
    steps = torch.arange(kernel.shape[-1], device=kernel.device)
    lag = steps[:, None] - steps
    return kernel[:, lag.clamp(min=0)] * (lag >= 0)


def _complex_dtype(u: Tensor) -> torch.dtype:
    return torch.complex128 if u.dtype in (torch.float64, torch.complex128) else torch.complex64
