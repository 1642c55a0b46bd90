"""The scan of Mamba-2: a selective scan with one decay for each head, computed in matrix products.

"SSD" is the state space duality of Dao & Gu 2024 (arXiv 2405.21060). Within a chunk of steps the scan is a
masked attention without softmax, between chunks a recurrence of states; both are exact.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from slotssm.errors import InputError
from slotssm.ops.operators.dtypes import state_dtype
from slotssm.ops.shapes import require_shapes
from slotssm.ops.state_passing import pass_states


def ssd(
    x: Float[Tensor, "B L H P"],
    dt: Float[Tensor, "B L H"],
    A: Float[Tensor, " H"],
    B: Float[Tensor, "B L G N"],
    C: Float[Tensor, "B L G N"],
    D: Float[Tensor, " H"] | None = None,
    initial_state: Float[Tensor, "B H P N"] | None = None,
    return_final_state: bool = False,
    chunk_size: int = 32,
) -> Float[Tensor, "B L H P"] | tuple[Float[Tensor, "B L H P"], Float[Tensor, "B H P N"]]:
    """Run h_t = exp(Δ_t A) h_{t-1} + Δ_t x_t B_t^T, y_t = h_t C_t + D x_t for each of H heads (section 6, listing 1).

    Head h reads B and C of group h // (H / G). Time is linear in L, and memory holds B·L·H·chunk_size and
    B·L/chunk_size·H·P·N numbers but never a state for every step. It is computed in float32 (float64 for
    float64 inputs), also under autocast.

    Args:
        x: input, P channels a head.
        dt: step sizes Δ, not negative.
        A: continuous-time decay of each head, negative.
        B: input map of each step and group.
        C: output map of each step and group.
        D: skip connection; None leaves it out.
        initial_state: h before the first step; zeros by default. Gradients flow into it.
        return_final_state: also return h after the last step; gradients flow through it.
        chunk_size: steps of a chunk. It decides speed and memory, not the result.

    Returns:
        y in the dtype of x, and the final state if asked for.

    Raises:
        InputError: shapes that do not match, or a chunk size below 1.
    """
    _check(x, dt, A, B, C, D, initial_state, chunk_size)
    dtype = state_dtype(x)
    batch, _, num_heads, width = x.shape
    if initial_state is None:
        initial_state = x.new_zeros(batch, num_heads, width, B.shape[-1])
    # autocast would round the matrix products to half precision
    with torch.autocast(x.device.type, enabled=False):
        inputs, delta = x.to(dtype), dt.to(dtype)
        y, final = _scan(inputs, delta, A.to(dtype), B.to(dtype), C.to(dtype), initial_state.to(dtype), chunk_size)
        if D is not None:
            y = y + D.to(dtype)[:, None] * inputs
    return (y.to(x.dtype), final) if return_final_state else y.to(x.dtype)


def ssd_step(
    state: Float[Tensor, "B H P N"],
    x: Float[Tensor, "B H P"],
    dt: Float[Tensor, "B H"],
    A: Float[Tensor, " H"],
    B: Float[Tensor, "B G N"],
    C: Float[Tensor, "B G N"],
    D: Float[Tensor, " H"] | None = None,
) -> tuple[Float[Tensor, "B H P"], Float[Tensor, "B H P N"]]:
    """One step of `ssd`; returns the output and the new state."""
    dtype, per_group = state.dtype, x.shape[1] // B.shape[1]
    inputs, delta = x.to(dtype), dt.to(dtype)
    of_head = B.to(dtype).repeat_interleave(per_group, dim=1)
    decayed = torch.exp(delta * A.to(dtype))[..., None, None] * state
    state = decayed + (delta[..., None] * inputs)[..., None] * of_head[:, :, None]
    y = (state * C.to(dtype).repeat_interleave(per_group, dim=1)[:, :, None]).sum(-1)
    if D is not None:
        y = y + D.to(dtype)[:, None] * inputs
    return y.to(x.dtype), state


def _scan(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor, chunk_size: int
) -> tuple[Tensor, Tensor]:
    """The scan in chunks; its letters: b batch, c chunk, q step of the chunk, g group, r head of the group."""
    length, groups = x.shape[1], B.shape[2]
    # chunks of one length, as short as possible; a padded step has Δ = 0, which leaves the state alone
    chunks = max(1, -(-length // chunk_size))
    padding = max(1, -(-length // chunks)) * chunks - length
    u = F.pad(x * delta[..., None], (0, 0, 0, 0, 0, padding))
    u = rearrange(u, "b (c q) (g r) p -> b c g q r p", c=chunks, g=groups)
    B = rearrange(F.pad(B, (0, 0, 0, 0, 0, padding)), "b (c q) g n -> b c g q n", c=chunks)
    C = rearrange(F.pad(C, (0, 0, 0, 0, 0, padding)), "b (c q) g n -> b c g q n", c=chunks)
    log_decay = rearrange(F.pad(delta * A, (0, 0, 0, padding)), "b (c q) (g r) -> b c g r q", c=chunks, g=groups)

    # what the inputs of a chunk do to its own outputs, and to the state after it
    decay = _decay_between(log_decay)
    scores = (B @ C.transpose(-1, -2)).triu()[:, :, :, None] * decay
    within = (scores.transpose(-1, -2) @ u.transpose(3, 4)).transpose(3, 4)
    to_end = rearrange(decay[..., -1], "b c g r q -> b c g q r 1")
    gains = B.transpose(-1, -2) @ (u * to_end).flatten(-2)

    # what the state before a chunk does to its outputs
    # a matrix product, since torch's running sum is not deterministic on CUDA
    since_start = torch.exp(log_decay @ _ones_up_to(log_decay))
    over_chunk = rearrange(since_start[..., -1], "b c g r -> c b g 1 r 1")
    start = rearrange(initial_state, "b (g r) p n -> b g n r p", g=groups)
    gains = rearrange(gains, "b c g n (r p) -> c b g n r p", p=x.shape[3])
    before, final = pass_states(gains, over_chunk, start)
    carried = (C @ rearrange(before, "c b g n r p -> b c g n (r p)")).unflatten(-1, u.shape[-2:])
    y = within + carried * rearrange(since_start, "b c g r q -> b c g q r 1")
    y = rearrange(y, "b c g q r p -> b (c q) (g r) p")[:, :length]
    return y, rearrange(final, "b g n r p -> b (g r) p n")


def _decay_between(log_decay: Tensor) -> Tensor:
    """exp(a_{s+1} + ... + a_t) for every s <= t of a chunk, [..., s, t]; 1 where s > t.

    Sums of each segment by itself, in one matrix product: differences of running sums would lose the small
    ones after a large one. All are sums of a <= 0, so that nothing overflows.
    """
    upper = _ones_up_to(log_decay)
    return torch.exp((log_decay[..., None, :] * upper.triu(1)) @ upper)


def _ones_up_to(log_decay: Tensor) -> Tensor:
    """The matrix [s, t] that sums up to each t: 1 for s <= t."""
    return log_decay.new_ones(log_decay.shape[-1], log_decay.shape[-1]).triu()


def _check(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    initial_state: Tensor | None,
    chunk_size: int,
) -> None:
    """Refuse shapes that do not match, some of which would otherwise be broadcast silently."""
    batch, steps, heads, width = x.shape
    groups, states = B.shape[2:]
    expected = {
        "dt": (dt, (batch, steps, heads)),
        "A": (A, (heads,)),
        "B": (B, (batch, steps, groups, states)),
        "C": (C, (batch, steps, groups, states)),
        "D": (D, (heads,)),
        "initial_state": (initial_state, (batch, heads, width, states)),
    }
    require_shapes(x, expected)
    if heads % groups:
        raise InputError(f"B has {groups} groups, which do not divide the {heads} heads of x")
    if chunk_size < 1:
        raise InputError(f"chunk_size {chunk_size} is below 1")
