"""The state of a linear recurrence, carried from chunk to chunk."""

import torch
from jaxtyping import Inexact
from torch import Tensor


def carry(
    gains: Inexact[Tensor, "chunks ..."],
    decays: Inexact[Tensor, "chunks ..."],
    initial_state: Inexact[Tensor, "..."],
) -> tuple[Inexact[Tensor, "chunks ..."], Inexact[Tensor, "..."]]:
    """Run h_c = decay_c h_{c-1} + gain_c over chunks; returns the state before every chunk, and the last one.

    A loop, since there are few chunks: the work within them is done all at once by the caller.
    """
    states = [initial_state]
    for gain, decay in zip(gains.unbind(), decays.unbind(), strict=True):
        states.append(torch.addcmul(gain, decay, states[-1]))
    return torch.stack(states[:-1]), states[-1]
