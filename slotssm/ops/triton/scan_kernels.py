"""The selective scan in Triton: a program runs over all steps of some channels of a sequence, with states in registers.

The forward pass stores the states at the starts of chunks of `STEPS` steps. The backward pass goes through the chunks
from the last to the first: it computes the states of a chunk again, into memory that only this program uses, and then
runs the recurrence of the gradients from the chunk's end. Everything is computed in the dtype of the states, float32 or
float64, whatever the dtypes of the inputs. `size_class` is for autotuning and not read.
"""

import triton
import triton.language as tl


@triton.jit
def _step_size(raw, SOFTPLUS: tl.constexpr):
    """Softplus as torch computes it: the identity above 20."""
    if SOFTPLUS:
        # the smaller of both, so that the branch that is not taken does not overflow
        power = tl.exp(tl.minimum(raw, 20.0))
        # log(1 + power), where the rounding of the sum, which is all of a small power, is divided out
        total = 1.0 + power
        soft = tl.where(total == 1.0, power, tl.log(total) * (power / tl.where(total == 1.0, 1.0, total - 1.0)))
        raw = tl.where(raw > 20.0, raw, soft)
    return raw


@triton.jit
def _sigmoid(value):
    # of a negative number, so that nothing overflows
    decay = tl.exp(-tl.abs(value))
    return tl.where(value >= 0, 1.0, decay) / (1.0 + decay)


@triton.jit(do_not_specialize=["size_class"])
def forward(
    x, dt, A, B, C, D, z, delta_bias, initial_state, y, final, stored,
    x_batch, x_step, x_channel, dt_batch, dt_step, dt_channel, B_batch, B_step, B_state, C_batch, C_step, C_state,
    z_batch, z_step, z_channel,
    num_steps, num_channels, num_states, size_class,
    SOFTPLUS: tl.constexpr, GATED: tl.constexpr, STEPS: tl.constexpr,
    CHANNELS: tl.constexpr, STATES: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Y [B, L, E], the final state [B, E, N], and the states at the starts of chunks [B, chunks, E, N].

    A, D, delta_bias, initial_state, y, final and stored are contiguous.
    """
    sequence = tl.program_id(0).to(tl.int64)
    e = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    n = tl.arange(0, STATES)
    in_e, in_n = e < num_channels, n < num_states
    inside = in_e[:, None] & in_n[None, :]
    tile = e[:, None] * num_states + n[None, :]
    state_size = num_channels * num_states
    rates = tl.load(A + tile, inside, 0.0).to(DTYPE)
    skip = tl.load(D + e, in_e, 0.0).to(DTYPE)
    bias = tl.load(delta_bias + e, in_e, 0.0).to(DTYPE)
    state = tl.load(initial_state + sequence * state_size + tile, inside, 0.0).to(DTYPE)
    num_chunks = tl.cdiv(num_steps, STEPS)
    for chunk in range(0, num_chunks):
        tl.store(stored + (sequence * num_chunks + chunk) * state_size + tile, state, inside)
        for t in range(chunk * STEPS, tl.minimum(chunk * STEPS + STEPS, num_steps)):
            u = tl.load(x + sequence * x_batch + t * x_step + e * x_channel, in_e, 0.0).to(DTYPE)
            raw = tl.load(dt + sequence * dt_batch + t * dt_step + e * dt_channel, in_e, 0.0).to(DTYPE)
            delta = _step_size(raw + bias, SOFTPLUS)
            b = tl.load(B + sequence * B_batch + t * B_step + n * B_state, in_n, 0.0).to(DTYPE)
            c = tl.load(C + sequence * C_batch + t * C_step + n * C_state, in_n, 0.0).to(DTYPE)
            state = tl.exp(delta[:, None] * rates) * state + (delta * u)[:, None] * b[None, :]
            out = tl.sum(state * c[None, :], 1) + skip * u
            if GATED:
                gate = tl.load(z + sequence * z_batch + t * z_step + e * z_channel, in_e, 0.0).to(DTYPE)
                out = out * gate * _sigmoid(gate)
            tl.store(y + (sequence * num_steps + t) * num_channels + e, out, in_e)
    tl.store(final + sequence * state_size + tile, state, inside)


@triton.jit(do_not_specialize=["size_class"])
def backward(
    x, dt, A, B, C, D, z, delta_bias, stored, grad_y, grad_final, states,
    grad_x, grad_dt, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias, grad_state,
    x_batch, x_step, x_channel, dt_batch, dt_step, dt_channel, B_batch, B_step, B_state, C_batch, C_step, C_state,
    z_batch, z_step, z_channel,
    num_sequences, num_steps, num_channels, num_states, size_class,
    SOFTPLUS: tl.constexpr, GATED: tl.constexpr, STEPS: tl.constexpr,
    CHANNELS: tl.constexpr, STATES: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Gradients; those of A, D and the bias for each sequence, those of B and C for each block of channels.

    grad_A [B, E, N], grad_B and grad_C [blocks, B, L, N], grad_D and grad_bias [B, E]; `states` is memory of
    [B, blocks, STEPS, CHANNELS, STATES]. All gradients are contiguous.
    """
    sequence, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    e = block * CHANNELS + tl.arange(0, CHANNELS)
    n = tl.arange(0, STATES)
    in_e, in_n = e < num_channels, n < num_states
    inside = in_e[:, None] & in_n[None, :]
    tile = e[:, None] * num_states + n[None, :]
    state_size = num_channels * num_states
    own = tl.arange(0, CHANNELS)[:, None] * STATES + n[None, :]
    states += (sequence * tl.num_programs(1) + block) * STEPS * CHANNELS * STATES
    rates = tl.load(A + tile, inside, 0.0).to(DTYPE)
    skip = tl.load(D + e, in_e, 0.0).to(DTYPE)
    bias = tl.load(delta_bias + e, in_e, 0.0).to(DTYPE)
    carried = tl.load(grad_final + sequence * state_size + tile, inside, 0.0).to(DTYPE)
    sum_A = tl.zeros((CHANNELS, STATES), DTYPE)
    sum_D, sum_bias = tl.zeros((CHANNELS,), DTYPE), tl.zeros((CHANNELS,), DTYPE)
    by_block = (block.to(tl.int64) * num_sequences + sequence) * num_steps
    num_chunks = tl.cdiv(num_steps, STEPS)
    for back in range(0, num_chunks):
        chunk = num_chunks - 1 - back
        first = chunk * STEPS
        length = tl.minimum(STEPS, num_steps - first)
        state = tl.load(stored + (sequence * num_chunks + chunk) * state_size + tile, inside, 0.0).to(DTYPE)
        for i in range(0, length):
            # the state before each step
            tl.store(states + i * CHANNELS * STATES + own, state)
            t = first + i
            u = tl.load(x + sequence * x_batch + t * x_step + e * x_channel, in_e, 0.0).to(DTYPE)
            raw = tl.load(dt + sequence * dt_batch + t * dt_step + e * dt_channel, in_e, 0.0).to(DTYPE)
            delta = _step_size(raw + bias, SOFTPLUS)
            b = tl.load(B + sequence * B_batch + t * B_step + n * B_state, in_n, 0.0).to(DTYPE)
            state = tl.exp(delta[:, None] * rates) * state + (delta * u)[:, None] * b[None, :]
        # other threads of the program may have stored what one loads
        tl.debug_barrier()
        for j in range(0, length):
            i = length - 1 - j
            t = first + i
            row = (sequence * num_steps + t) * num_channels + e
            u = tl.load(x + sequence * x_batch + t * x_step + e * x_channel, in_e, 0.0).to(DTYPE)
            raw = tl.load(dt + sequence * dt_batch + t * dt_step + e * dt_channel, in_e, 0.0).to(DTYPE) + bias
            delta = _step_size(raw, SOFTPLUS)
            b = tl.load(B + sequence * B_batch + t * B_step + n * B_state, in_n, 0.0).to(DTYPE)
            c = tl.load(C + sequence * C_batch + t * C_step + n * C_state, in_n, 0.0).to(DTYPE)
            grad = tl.load(grad_y + row, in_e, 0.0).to(DTYPE)
            before = tl.load(states + i * CHANNELS * STATES + own)
            decay = tl.exp(delta[:, None] * rates)
            state = decay * before + (delta * u)[:, None] * b[None, :]
            if GATED:
                gate = tl.load(z + sequence * z_batch + t * z_step + e * z_channel, in_e, 0.0).to(DTYPE)
                open_gate = _sigmoid(gate)
                out = tl.sum(state * c[None, :], 1) + skip * u
                tl.store(grad_z + row, grad * out * open_gate * (1.0 + gate * (1.0 - open_gate)), in_e)
                grad = grad * gate * open_gate
            sum_D += grad * u
            tl.store(grad_C + (by_block + t) * num_states + n, tl.sum(grad[:, None] * state, 0), in_n)
            carried += grad[:, None] * c[None, :]
            tl.store(grad_B + (by_block + t) * num_states + n, tl.sum(carried * (delta * u)[:, None], 0), in_n)
            through_b = tl.sum(carried * b[None, :], 1)
            tl.store(grad_x + row, grad * skip + through_b * delta, in_e)
            exponent = carried * decay * before
            grad_delta = tl.sum(exponent * rates, 1) + through_b * u
            if SOFTPLUS:
                grad_delta = grad_delta * tl.where(raw > 20.0, 1.0, _sigmoid(raw))
            tl.store(grad_dt + row, grad_delta, in_e)
            sum_bias += grad_delta
            sum_A += exponent * delta[:, None]
            carried = carried * decay
        tl.debug_barrier()
    tl.store(grad_A + sequence * state_size + tile, sum_A, inside)
    tl.store(grad_state + sequence * state_size + tile, carried, inside)
    tl.store(grad_D + sequence * num_channels + e, sum_D, in_e)
    tl.store(grad_bias + sequence * num_channels + e, sum_bias, in_e)
