"""The causal convolution with SiLU in Triton: a program computes some steps of some channels of a sequence."""

import triton
import triton.language as tl


@triton.jit
def _load_history(x, past, sequence, t, e, inside, x_batch, x_step, x_channel, num_channels, WIDTH: tl.constexpr):
    """The inputs of the steps t, before the first step those of the past [B, W, E], which is contiguous."""
    recent = tl.load(x + sequence * x_batch + t * x_step + e * x_channel, inside & (t >= 0), 0.0)
    earlier = tl.load(past + (sequence * WIDTH + WIDTH + t) * num_channels + e, inside & (t < 0), 0.0)
    return tl.where(t >= 0, recent, earlier)


@triton.jit
def forward(
    x, past, weight, bias, y,
    x_batch, x_step, x_channel, num_steps, num_channels,
    WIDTH: tl.constexpr, STEPS: tl.constexpr, CHANNELS: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """SiLU of the convolution, y [B, L, E]; past [B, W, E], weight [E, W] and bias are contiguous."""
    sequence = tl.program_id(0).to(tl.int64)
    t = tl.program_id(1) * STEPS + tl.arange(0, STEPS)[:, None]
    e = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    inside = (t < num_steps) & (e < num_channels)
    total = tl.zeros((STEPS, CHANNELS), DTYPE) + tl.load(bias + e, e < num_channels, 0.0).to(DTYPE)
    for w in tl.static_range(WIDTH):
        value = _load_history(
            x, past, sequence, t + w - WIDTH + 1, e, inside, x_batch, x_step, x_channel, num_channels, WIDTH
        )
        total += value.to(DTYPE) * tl.load(weight + e * WIDTH + w, e < num_channels, 0.0).to(DTYPE)
    decay = tl.exp(-tl.abs(total))
    out = total * tl.where(total >= 0, 1.0, decay) / (1.0 + decay)
    tl.store(y + (sequence * num_steps + t) * num_channels + e, out, inside)


@triton.jit
def backward(
    x, past, weight, bias, grad_y, grad_sum, grad_weight, grad_bias,
    x_batch, x_step, x_channel, num_steps, num_channels,
    WIDTH: tl.constexpr, STEPS: tl.constexpr, CHANNELS: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Gradients before SiLU, grad_sum [B, L, E]; of weight [B, blocks, E, W] and bias [B, blocks, E]."""
    sequence, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    t = block * STEPS + tl.arange(0, STEPS)[:, None]
    e = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    inside = (t < num_steps) & (e < num_channels)
    total = tl.zeros((STEPS, CHANNELS), DTYPE) + tl.load(bias + e, e < num_channels, 0.0).to(DTYPE)
    for w in tl.static_range(WIDTH):
        value = _load_history(
            x, past, sequence, t + w - WIDTH + 1, e, inside, x_batch, x_step, x_channel, num_channels, WIDTH
        )
        total += value.to(DTYPE) * tl.load(weight + e * WIDTH + w, e < num_channels, 0.0).to(DTYPE)
    decay = tl.exp(-tl.abs(total))
    sigmoid = tl.where(total >= 0, 1.0, decay) / (1.0 + decay)
    row = (sequence * num_steps + t) * num_channels + e
    grad = tl.load(grad_y + row, inside, 0.0).to(DTYPE) * sigmoid * (1.0 + total * (1.0 - sigmoid))
    tl.store(grad_sum + row, grad, inside)
    by_block = (sequence * tl.num_programs(1) + block) * num_channels
    channel = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    for w in tl.static_range(WIDTH):
        value = _load_history(
            x, past, sequence, t + w - WIDTH + 1, e, inside, x_batch, x_step, x_channel, num_channels, WIDTH
        )
        part = tl.sum(grad * value.to(DTYPE), 0)
        tl.store(grad_weight + (by_block + channel) * WIDTH + w, part, channel < num_channels)
    tl.store(grad_bias + by_block + channel, tl.sum(grad, 0), channel < num_channels)


@triton.jit
def spread(
    grad_sum, weight, grad_history, num_steps, num_channels,
    WIDTH: tl.constexpr, STEPS: tl.constexpr, CHANNELS: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """Gradients of the inputs, [B, W - 1 + L, E] with the past but its oldest step, from those before SiLU."""
    sequence = tl.program_id(0).to(tl.int64)
    p = tl.program_id(1) * STEPS + tl.arange(0, STEPS)[:, None]
    e = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    length = num_steps + WIDTH - 1
    total = tl.zeros((STEPS, CHANNELS), DTYPE)
    for w in tl.static_range(WIDTH):
        # an input is read by the output of its own step with the last weight, by later ones with earlier weights
        t = p - w
        inside = (t >= 0) & (t < num_steps) & (e < num_channels)
        value = tl.load(grad_sum + (sequence * num_steps + t) * num_channels + e, inside, 0.0).to(DTYPE)
        total += value * tl.load(weight + e * WIDTH + w, e < num_channels, 0.0).to(DTYPE)
    tl.store(grad_history + (sequence * length + p) * num_channels + e, total, (p < length) & (e < num_channels))
