"""Attention of the K slots of a step to all slots of that and of earlier steps, by torch's flex attention on CUDA.

Its kernel skips blocks of logits that no query sees, and makes the mask inside of the others from the indices: neither
logits nor a mask of all pairs are ever in memory (Dong et al. 2024, 2412.05496). It is compiled, so it is for long
sequences; `slotssm.layers.CausalSlotAttention` computes everything else by masked attention in chunks.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from slotssm.ops.operators import trial

BLOCK_SIZE = 128
"""Queries and keys of a block of logits."""
LEAST_WIDTH = 16
"""Narrowest head that the kernel's products of matrices take."""
MOST_ROWS = 65_535
"""Rows of a batch times heads that a launch takes."""
TOLERANCE = 5e-2
"""Largest relative error of a trial, in which numbers may have half precision; a wrong mask is wrong by more."""


def serves(q: Float[Tensor, "B H Q W"]) -> bool:
    """Whether flex attention serves these queries: on CUDA, where a trial agrees with masked attention.

    Not in float64, not for heads that are narrower than 16, and not inside of `torch.compile`, whose graphs contain
    masked attention.
    """
    rows, heads, _, width = q.shape
    return (
        q.device.type == "cuda"
        and not torch.compiler.is_compiling()
        and q.dtype != torch.float64
        and width >= LEAST_WIDTH
        and rows * heads <= MOST_ROWS
        and not _trial_failure(q.device.type, q.dtype, width)
    )


def attend(
    q: Float[Tensor, "B H N W"], k: Float[Tensor, "B H N W"], v: Float[Tensor, "B H N W"], block: int
) -> Float[Tensor, "B H N W"]:
    """Softmax attention in which each query sees the keys up to the end of its own block of `block` queries.

    Args:
        q: queries, in whole blocks.
        k: keys of the same steps.
        v: values.
        block: number of queries in a block: the K slots of one step.
    """
    mask = block_mask(q.shape[2], block, q.device)
    y: Tensor = _kernel(q.device.type)(q, k, v, block_mask=mask)
    return y


# a mask that was made in an evaluation may serve a training
@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)
def block_mask(length: int, block: int, device: torch.device) -> BlockMask:
    """Which blocks of logits are computed: all of those that some query sees, with a mask where not all of them do.

    Made from the ends of what the first and the last query of a block see; torch's `create_block_mask` would make the
    mask of all pairs first.

    Args:
        length: number of queries and of keys.
        block: number of slots of a step.
        device: where the attention is computed.
    """
    size = -(-length // BLOCK_SIZE)
    first = torch.arange(size) * BLOCK_SIZE
    last = torch.clamp(first + BLOCK_SIZE, max=length) - 1
    seen_by_all, seen_by_some = ((query // block + 1) * block for query in (first, last))
    num_full = seen_by_all // BLOCK_SIZE
    num_partial = -(-seen_by_some // BLOCK_SIZE) - num_full
    columns = torch.arange(size).expand(size, size)
    # the first entries of each row count; those after them are a permutation of the rest
    partial = (columns + num_full[:, None]) % size

    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return key // block <= query // block

    parts = (num_partial, partial, num_full, columns)
    counts, indices, full_counts, full_indices = (
        part[None, None].to(device, torch.int32).contiguous() for part in parts
    )
    return BlockMask.from_kv_blocks(
        counts,
        indices,
        full_counts,
        full_indices,
        BLOCK_SIZE=BLOCK_SIZE,
        mask_mod=visible,
        seq_lengths=(length, length),
    )


@functools.cache
def _kernel(device: str) -> Callable[..., Any]:
    """Flex attention, compiled where there is a kernel with gradients."""
    attention: Callable[..., Any] = flex_attention
    return torch.compile(attention) if device == "cuda" else attention


@functools.cache
def _trial_failure(device: str, dtype: torch.dtype, width: int) -> str:
    """Why a small attention with its gradients fails; empty if it equals masked attention. A failure is warned of."""
    return trial.failure("flex attention", device, lambda: _trial_error(device, dtype, width), TOLERANCE)


def _trial_error(device: str, dtype: torch.dtype, width: int) -> float:
    """Largest relative error of outputs and gradients, over several blocks of which the last is not full."""
    length, block = 3 * BLOCK_SIZE - 9, 5
    generator = torch.Generator().manual_seed(0)
    numbers = torch.randn(3, 2, 2, length, width, generator=generator).to(device, dtype)
    q, k, v = inputs = [tensor.clone().requires_grad_() for tensor in numbers]
    exact_q, exact_k, exact_v = exact = [tensor.float().requires_grad_() for tensor in numbers]
    step = torch.arange(length, device=device) // block
    found = attend(q, k, v, block)
    expected = F.scaled_dot_product_attention(exact_q, exact_k, exact_v, attn_mask=step[:, None] >= step)
    gradients = [torch.autograd.grad(y.float().square().sum(), x) for y, x in ((found, inputs), (expected, exact))]
    ours = tuple(tensor.float() for tensor in (found, *gradients[0]))
    return trial.largest_error(ours, (expected, *gradients[1]))
