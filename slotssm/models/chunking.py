"""Inference over long sequences in chunks."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from slotssm.models.model import ModelOutput, ModelState

CHUNK_BYTES = 2 << 20
"""Size of one layer's slots in a chunk: about the cache of a processor core."""


def run_in_chunks(
    run: Callable[[Tensor, ModelState | None], ModelOutput],
    tokens: Float[Tensor, "B T M D"],
    state: ModelState | None,
    num_slots: int,
) -> ModelOutput:
    """`run(tokens, state)`; on a CPU without gradients in chunks, which is faster and takes less memory.

    Args:
        run: computes the output of a sequence.
        tokens: inputs of every step.
        state: state that the sequence continues from.
        num_slots: slots of one layer, which determine the length of a chunk.
    """
    length = max(1, CHUNK_BYTES // max(1, tokens.shape[0] * num_slots * tokens.shape[3] * tokens.element_size()))
    if torch.is_grad_enabled() or tokens.device.type != "cpu" or tokens.shape[1] <= length:
        return run(tokens, state)
    outputs = []
    for chunk in tokens.split(length, dim=1):
        outputs.append(run(chunk, state))
        state = outputs[-1].state
    attention = [output.attention for output in outputs if output.attention is not None]
    return ModelOutput(
        slots=torch.cat([output.slots for output in outputs], dim=1),
        attention=torch.cat(attention, dim=1) if attention else None,
        state=outputs[-1].state,
    )
