"""The selective scan in plain torch on blocks sized for the device, with bounded memory and its own gradient.

Time is divided into chunks of `CHUNK_STEPS` steps. A block is so many sequences (and if these are few, so many
consecutive chunks of them) that the states of one step are about `step_numel` numbers. It is laid out
[steps of a chunk, chunks, sequences, N, E], so that one torch call advances all of its chunks by one step. A first
pass from zero gives the state at the start of each chunk, a second one from there gives all states. Only the states at
the starts of chunks are kept; the backward pass recomputes the others, block by block, and runs the same recurrence
from the end.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from slotssm.ops.operators.registration import Computation, DifferentiableOperator

CHUNK_STEPS = 32
"""Steps of a chunk; the state at the start of each chunk is stored for the backward pass."""
STEP_NUMEL = 2**14
"""Numbers that one torch call processes: enough to hide its overhead, few enough for a chunk to fit in the cache."""
GPU_STEP_NUMEL = 2**22
"""The same elsewhere than on a CPU: enough to keep a GPU busy; three buffers of a chunk take 1.5 GiB in float32."""


def step_numel(device: str) -> int:
    """Numbers that one torch call processes on a device."""
    return STEP_NUMEL if device == "cpu" else GPU_STEP_NUMEL


class _Block(NamedTuple):
    """Some sequences at some consecutive chunks, all of the same length."""

    sequences: slice
    first_step: int
    num_chunks: int
    chunk_steps: int

    def cut(self, tensor: Float[Tensor, "B L F"]) -> Float[Tensor, "steps chunks sequences F"]:
        """The block's view of a tensor."""
        steps = slice(self.first_step, self.first_step + self.num_chunks * self.chunk_steps)
        chunks = tensor[self.sequences, steps].unflatten(1, (self.num_chunks, self.chunk_steps))
        return chunks.permute(2, 1, 0, 3)

    def by_channel(self, tensor: Float[Tensor, "B L E"]) -> Float[Tensor, "steps chunks sequences 1 E"]:
        """The block of a tensor without a state axis, which is broadcast over N."""
        return self.cut(tensor).contiguous().unsqueeze(-2)

    def by_state(self, tensor: Float[Tensor, "B L N"]) -> Float[Tensor, "steps chunks sequences N 1"]:
        """The block of a tensor without a channel axis, which is broadcast over E."""
        return self.cut(tensor).contiguous().unsqueeze(-1)

    def starts(self, stored: Float[Tensor, "edges B N E"]) -> Float[Tensor, "chunks sequences N E"]:
        """The block's view of the states at the starts of chunks."""
        chunk = self.first_step // CHUNK_STEPS
        return stored[chunk : chunk + self.num_chunks, self.sequences]

    def shaped(
        self, memory: Float[Tensor, "count size"], A: Float[Tensor, "N E"]
    ) -> Float[Tensor, "count steps chunks sequences N E"]:
        """The beginning of each flat buffer, viewed in the shape of the block's states."""
        shape = (self.chunk_steps, self.num_chunks, self.sequences.stop - self.sequences.start, *A.shape)
        return memory[:, : math.prod(shape)].unflatten(1, shape)


def _groups(batch: int, state_size: int, numel: int) -> Iterator[slice]:
    """Divide the batch into groups of sequences that are advanced together, `numel` numbers at a time."""
    size = max(1, numel // max(1, state_size))
    for first in range(0, batch, size):
        yield slice(first, min(first + size, batch))


def _blocks(sequences: slice, num_steps: int, state_size: int, numel: int) -> Iterator[_Block]:
    """Divide the time axis of a group of sequences into blocks."""
    most_chunks = max(1, numel // max(1, (sequences.stop - sequences.start) * state_size))
    first = 0
    while first < num_steps:
        # the last steps, if too few for a chunk, are a block of their own: padding would spread infinities in A
        chunk_steps = min(CHUNK_STEPS, num_steps - first)
        num_chunks = min(most_chunks, (num_steps - first) // chunk_steps)
        yield _Block(sequences, first, num_chunks, chunk_steps)
        first += num_chunks * chunk_steps


def _scratch(x: Float[Tensor, "B L E"], state_size: int, count: int) -> Float[Tensor, "count size"]:
    """Buffers for the largest block, allocated once: fresh memory for each block would take longer than its work."""
    batch, num_steps, _ = x.shape
    most = CHUNK_STEPS * max(step_numel(x.device.type), state_size)
    return x.new_empty(count, min(batch * num_steps * state_size, most))


def _scaled(A: Float[Tensor, "E N"]) -> Float[Tensor, "N E"]:
    """A times log2(e), for exp2: on a CPU, torch's exp is slow where it underflows."""
    return (A.T * math.log2(math.e)).contiguous()


def _run(decays: Sequence[Tensor], drives: Sequence[Tensor], state: Tensor) -> None:
    """Run h_t = decay_t h_{t-1} + drive_t; each state replaces its drive."""
    for decay, drive in zip(decays, drives, strict=True):
        state = drive.addcmul_(decay, state)


def _run_from_zero(decays: Sequence[Tensor], drives: Sequence[Tensor]) -> Tensor:
    """The last state of `_run` from zero, which leaves the drives alone; the first decay is left out."""
    state = drives[0].clone()
    for decay, drive in zip(decays, drives[1:], strict=True):
        torch.addcmul(drive, decay, state, out=state)
    return state


def _pass_states(starts: Sequence[Tensor], decays: Sequence[Tensor], ends: Sequence[Tensor]) -> None:
    """Compute the start of each chunk but the first, from the chunks' decays and from their ends after a zero start."""
    for chunk in range(len(starts) - 1):
        torch.addcmul(ends[chunk], decays[chunk], starts[chunk], out=starts[chunk + 1])


def _chunk_decays(
    delta: Float[Tensor, "steps chunks sequences 1 E"], scaled: Float[Tensor, "N E"]
) -> tuple[Float[Tensor, "sequences N E"], ...]:
    """The decay over each chunk."""
    return (delta.sum(0) * scaled).exp2_().unbind()


def _forward(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The scan of `reference.scan`.

    Also returns the states at the starts of chunks, with the last one, [chunks + 1, B, N, E]. All tensors have one
    dtype.
    """
    batch, num_steps, _ = x.shape
    y, _, stored = _outputs(x, A)
    scaled, scratch = _scaled(A), _scratch(x, A.numel(), 2)
    numel = step_numel(x.device.type)
    for sequences in _groups(batch, A.numel(), numel):
        state = initial_state[sequences].transpose(1, 2)
        for block in _blocks(sequences, num_steps, A.numel(), numel):
            starts = block.starts(stored)
            starts[0] = state
            step_sizes = block.by_channel(delta)
            decays, states = block.shaped(scratch, scaled)
            torch.mul(step_sizes, scaled, out=decays).exp2_()
            torch.mul(step_sizes * block.by_channel(x), block.by_state(B), out=states)
            each_decay, each_state = decays.unbind(), states.unbind()
            if block.num_chunks > 1:
                ends = _run_from_zero(each_decay[1:], each_state)
                _pass_states(starts.unbind(), _chunk_decays(step_sizes, scaled), ends.unbind())
            _run(each_decay, each_state, starts)
            torch.sum(torch.mul(states, block.by_state(C), out=decays), -2, out=block.cut(y))
            state = states[-1, -1]
        stored[-1, sequences] = state
    return y, stored[-1].transpose(1, 2).clone(memory_format=torch.contiguous_format), stored


def _outputs(x: Tensor, A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    batch, num_steps, num_channels = x.shape
    num_states = A.shape[1]
    num_edges = -(-num_steps // CHUNK_STEPS) + 1
    return (
        x.new_empty(batch, num_steps, num_channels),
        x.new_empty(batch, num_channels, num_states),
        x.new_empty(num_edges, batch, num_states, num_channels),
    )


def _allocate(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, initial_state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return _outputs(x, A)


class _Gradients(NamedTuple):
    x: Float[Tensor, "B L E"]
    delta: Float[Tensor, "B L E"]
    A: Float[Tensor, "E N"]
    B: Float[Tensor, "B L N"]
    C: Float[Tensor, "B L N"]
    initial_state: Float[Tensor, "B E N"]


def _backward(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, stored: Tensor, grad_y: Tensor, grad_final: Tensor
) -> tuple[Tensor, ...]:
    """Gradients of `chunked_scan` with respect to x, delta, A, B, C and the initial state."""
    batch, num_steps, _ = x.shape
    gradients = _Gradients(*(tensor.new_empty(tensor.shape) for tensor in (x, delta, A, B, C, grad_final)))
    gradients.A.zero_()
    scratch = _scratch(x, A.numel(), 3)
    numel = step_numel(x.device.type)
    for sequences in _groups(batch, A.numel(), numel):
        grad_state = grad_final[sequences].transpose(1, 2)
        for block in reversed(list(_blocks(sequences, num_steps, A.numel(), numel))):
            grad_state = _block_backward(block, x, delta, A, B, C, stored, grad_y, grad_state, scratch, gradients)
        gradients.initial_state[sequences] = grad_state.transpose(1, 2)
    return tuple(gradients)


def _block_backward(
    block: _Block,
    x: Float[Tensor, "B L E"],
    delta: Float[Tensor, "B L E"],
    A: Float[Tensor, "E N"],
    B: Float[Tensor, "B L N"],
    C: Float[Tensor, "B L N"],
    stored: Float[Tensor, "edges B N E"],
    grad_y: Float[Tensor, "B L E"],
    grad_state: Float[Tensor, "sequences N E"],
    scratch: Float[Tensor, "count size"],
    gradients: _Gradients,
) -> Float[Tensor, "sequences N E"]:
    """Write the gradients of a block.

    `grad_state` is the gradient of its last state; the result is that of the state before the block.
    """
    scaled, starts = _scaled(A), block.starts(stored)
    decays, states, grads = block.shaped(scratch, scaled)
    x, step_sizes, grad_y = block.by_channel(x), block.by_channel(delta), block.by_channel(grad_y)
    B, C, weighted = block.by_state(B), block.by_state(C), step_sizes * x
    torch.mul(step_sizes, scaled, out=decays).exp2_()
    torch.mul(weighted, B, out=states)
    each_decay = decays.unbind()
    _run(each_decay, states.unbind(), starts)

    # a state's gradient comes from its own output, and from the next state through the next decay
    torch.mul(grad_y, C, out=grads)
    back_decays, back_grads = each_decay[:0:-1], grads.unbind()[::-1]
    arriving = torch.empty_like(starts)
    arriving[-1] = grad_state
    if block.num_chunks > 1:
        leaving = _run_from_zero(back_decays, back_grads).mul_(decays[0])
        _pass_states(arriving.unbind()[::-1], _chunk_decays(step_sizes, scaled)[::-1], leaving.unbind()[::-1])
    _run(back_decays, back_grads[1:], back_grads[0].add_(arriving))
    grad_state = decays[0, 0] * grads[0, 0]

    # products overwrite factors that are no longer needed
    decays[0].mul_(starts)
    decays[1:].mul_(states[:-1])
    torch.sum(states.mul_(grad_y), -1, out=block.cut(gradients.C))
    grad_exponents = decays.mul_(grads)
    grad_weighted = torch.mul(grads, B, out=states).sum(-2)
    torch.sum(grads.mul_(weighted), -1, out=block.cut(gradients.B))
    gradients.A.add_(torch.mul(grad_exponents, step_sizes, out=states).sum((0, 1, 2)).T)
    grad_delta = torch.sum(grad_exponents.mul_(A.T), -2, out=block.cut(gradients.delta))
    grad_delta.addcmul_(grad_weighted, x.squeeze(-2))
    torch.mul(grad_weighted, step_sizes.squeeze(-2), out=block.cut(gradients.x))
    return grad_state


def _allocate_gradients(
    x: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, stored: Tensor, grad_y: Tensor, grad_final: Tensor
) -> tuple[Tensor, ...]:
    return tuple(tensor.new_empty(tensor.shape) for tensor in (x, delta, A, B, C, grad_final))


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
    x, delta, A, B, C, _ = inputs
    ctx.save_for_backward(x, delta, A, B, C, output[2])
    # materialised, the zero gradient of the stored states would be a large tensor
    ctx.set_materialize_grads(False)


def _differentiate(
    ctx: Any, backward: Any, grad_y: Tensor | None, grad_final: Tensor | None, _: Tensor | None
) -> tuple[Tensor, ...]:
    # read once: with checkpointing, each access would recompute the saved tensors
    saved = ctx.saved_tensors
    x, A = saved[0], saved[2]
    grad_y = torch.zeros_like(x) if grad_y is None else grad_y
    grad_final = x.new_zeros(x.shape[0], *A.shape) if grad_final is None else grad_final
    return backward(*saved, grad_y, grad_final)


_INPUTS = "Tensor x, Tensor delta, Tensor A, Tensor B, Tensor C"
chunked_scan = DifferentiableOperator(
    "chunked_scan",
    forward=Computation(f"({_INPUTS}, Tensor initial_state) -> (Tensor, Tensor, Tensor)", _forward, _allocate),
    backward=Computation(
        f"({_INPUTS}, Tensor stored, Tensor grad_y, Tensor grad_final)"
        " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
        _backward,
        _allocate_gradients,
    ),
    save=_save,
    differentiate=_differentiate,
    dispatch_key="CompositeExplicitAutograd",
    twice_differentiable="selective_scan(backend='reference')",
)


def scan(
    x: Float[Tensor, "B L E"],
    delta: Float[Tensor, "B L E"],
    A: Float[Tensor, "E N"],
    B: Float[Tensor, "B L N"],
    C: Float[Tensor, "B L N"],
    initial_state: Float[Tensor, "B E N"],
) -> tuple[Float[Tensor, "B L E"], Float[Tensor, "B E N"]]:
    """Drop-in replacement of `reference.scan` on any device, with first derivatives only."""
    y, final, _ = chunked_scan(x, delta, A, B, C, initial_state)
    return y, final
