"""The selective scan as a plain loop over time, on any device: slow, and the reference for all other backends."""

import torch
from jaxtyping import Float
from torch import Tensor


def scan(
    x: Float[Tensor, "B L E"],
    delta: Float[Tensor, "B L E"],
    A: Float[Tensor, "E N"],
    B: Float[Tensor, "B L N"],
    C: Float[Tensor, "B L N"],
    initial_state: Float[Tensor, "B E N"],
) -> tuple[Float[Tensor, "B L E"], Float[Tensor, "B E N"]]:
    """h_t = exp(delta_t A) h_{t-1} + delta_t B_t x_t and y_t = C_t h_t; returns all y and the last h."""
    state, outputs = initial_state, []
    for t in range(x.shape[1]):
        state, output = step(state, x[:, t], delta[:, t], A, B[:, t], C[:, t])
        outputs.append(output)
    return (torch.stack(outputs, dim=1) if outputs else torch.zeros_like(x)), state


def step(
    state: Float[Tensor, "B E N"],
    x: Float[Tensor, "B E"],
    delta: Float[Tensor, "B E"],
    A: Float[Tensor, "E N"],
    B: Float[Tensor, "B N"],
    C: Float[Tensor, "B N"],
) -> tuple[Float[Tensor, "B E N"], Float[Tensor, "B E"]]:
    """One step of the recurrence; returns the new state and the output."""
    state = torch.exp(delta[..., None] * A) * state + (delta * x)[..., None] * B[:, None]
    # autocast would round a matrix product
    return state, (state * C[:, None]).sum(-1)
