"""State passing: the recurrence between the chunks of a linear scan."""

import torch
from jaxtyping import Inexact
from torch import Tensor


def pass_states(
    gains: Inexact[Tensor, "chunks ..."],
    decays: Inexact[Tensor, "chunks ..."],
    initial_state: Inexact[Tensor, "..."],
) -> tuple[Inexact[Tensor, "chunks ..."], Inexact[Tensor, "..."]]:
    """Run h_c = decay_c h_{c-1} + gain_c over chunks; returns the state before each chunk, and the last one.

    A loop over chunks, which are few: callers compute what happens within chunks for all of them at once.
    """
    states = [initial_state]
    for gain, decay in zip(gains.unbind(), decays.unbind(), strict=True):
        states.append(torch.addcmul(gain, decay, states[-1]))
    return torch.stack(states[:-1]), states[-1]
