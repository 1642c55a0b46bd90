"""Joint attention over time and slots: every slot attends to all slots of its own and of earlier steps."""

import math
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from slotssm.layers.inputs import check_input, check_state
from slotssm.ops import attend, block_causal

CHUNK_QUERIES = 192
"""Smallest number of queries per call of the fused attention: fewer make tiles small, more compute masked scores."""


class KeyValueState(NamedTuple):
    """Key-value cache of all N slots so far, in H heads of width D / H; it grows with every step.

    Attributes:
        keys: [B, H, N, D / H] in temporal order.
        values: [B, H, N, D / H].
    """

    keys: Tensor
    values: Tensor


class CausalSlotAttention(nn.Module):
    """Full attention to all slots of the same and earlier steps: the paper's SlotTransformer.

    Causal over time, not over slots: the slots of one step attend to each other. With one slot, it is the causal
    attention of an ordinary Transformer. Norm and residual connection are left to the caller.

    Args:
        dim: width D of slots.
        num_heads: heads, dividing `dim`.
        dropout: after the output map; 0 is off.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.out = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def initial_state(self, batch_size: int, num_slots: int) -> KeyValueState:
        """The initial state: an empty cache, for any number of slots."""
        nothing = self.query.weight.new_zeros(batch_size, self.num_heads, 0, self.query.out_features // self.num_heads)
        return KeyValueState(nothing, nothing)

    def forward(
        self, slots: Float[Tensor, "B T K D"], state: KeyValueState | None = None
    ) -> tuple[Float[Tensor, "B T K D"], KeyValueState]:
        """Process a sequence in parallel, continuing from `state`; returns the outputs and the new state.

        Raises:
            InputError: slots with the wrong shape, width or dtype.
        """
        check_input(self, slots, "B, T, K", self.query.in_features)
        check_state(self, state, len(slots))
        flat = slots.flatten(1, 2)
        q = rearrange(self.query(flat), "b n (h d) -> b h n d", h=self.num_heads)
        k, v = rearrange(self.key_value(flat), "b n (two h d) -> two b h n d", two=2, h=self.num_heads)
        if state is not None:
            k, v = torch.cat([state.keys.to(k.dtype), k], dim=2), torch.cat([state.values.to(v.dtype), v], dim=2)
        y = self.dropout(self.out(block_causal_attention(q, k, v, slots.shape[2])))
        return y.view(slots.shape), KeyValueState(k, v)

    def step(self, slots: Float[Tensor, "B K D"], state: KeyValueState) -> tuple[Float[Tensor, "B K D"], KeyValueState]:
        """Process one step; returns the output and the new state; errors as in `forward`."""
        check_input(self, slots, "B, K", self.query.in_features)
        check_state(self, state, len(slots))
        y, state = self(slots[:, None], state)
        return y[:, 0], state


def block_causal_attention(
    q: Float[Tensor, "B H Q W"], k: Float[Tensor, "B H N W"], v: Float[Tensor, "B H N W"], block: int
) -> Float[Tensor, "B Q H*W"]:
    """Softmax attention in which the queries of a block attend to all keys up to the block's end; heads are joined.

    The queries are processed in chunks, each with the keys up to its end and a mask for those only, so that neither
    the scores nor a mask of all pairs is ever in memory. On CUDA, sequences that need several chunks and have no keys
    before them are computed by flex attention where it works (`slotssm.ops.block_causal`).

    Args:
        q: queries, in whole blocks; they belong to the last Q keys.
        k: keys.
        v: values.
        block: number of queries in a block: the K slots of one step.
    """
    num_queries = q.shape[2]
    past = k.shape[2] - num_queries
    if num_queries <= block or (block == 1 and past == 0):
        return _joined(attend(q, k, v, is_causal=num_queries > block))
    # GPU kernels need slices of a mask to start at multiples of 16
    chunk = math.ceil(CHUNK_QUERIES / (16 * block)) * 16 * block
    if past == 0 and num_queries > chunk and block_causal.serves(q):
        return _joined(block_causal.attend(q, k, v, block))
    starts = range(0, num_queries, chunk)
    mask = _block_causal_mask(min(chunk, num_queries), past + starts[-1], block, q)
    outputs = []
    for start in starts:
        length, before = min(chunk, num_queries - start), past + start
        # the mask of each chunk is part of the mask of the last chunk, which has the most keys before it
        first, end = starts[-1] - start, before + length
        visible = mask[:length, first : first + end]
        queries = q[:, :, start : start + length]
        outputs.append(_joined(attend(queries, k[:, :, :end], v[:, :, :end], visible)))
    return torch.cat(outputs, dim=1)


def _block_causal_mask(num_queries: int, before: int, block: int, like: Tensor) -> Tensor:
    """Additive mask [Q, before + Q] of 0 and -inf: a query sees the `before` earlier keys and all blocks up to its own.

    Not a boolean mask, which torch would convert at each use and keep for the backward pass.
    """
    step = torch.arange(num_queries, device=like.device) // block
    mask = like.new_zeros(num_queries, before + num_queries)
    mask[:, before:].masked_fill_(step[None] > step[:, None], float("-inf"))
    return mask


def _joined(y: Tensor) -> Tensor:
    """[B, H, Q, W] to [B, Q, H * W]."""
    return y.transpose(1, 2).flatten(2)
