"""Attention without a mask, with few queries and keys, such as between slots."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from slotssm.errors import InputError
from slotssm.ops.cpu import attention_operator
from slotssm.ops.cpu.availability import compile_failure
from slotssm.ops.operators.dtypes import dtype_name

LEAST_ROWS = 16
"""Rows that fill the vectors of the kernel."""
MOST_LOGITS = 1024
"""Queries times keys up to which the kernel is faster than torch's fused attention."""


def attention(
    query: Float[Tensor, "B Q D"], key_value: Float[Tensor, "B M 2*D"], num_heads: int
) -> Float[Tensor, "B Q D"]:
    """Multi-head attention: softmax of q·k / sqrt(D / heads) over the keys, times the values.

    On the CPU, many rows of few queries and keys are computed by one numba kernel, everything else by torch's
    `scaled_dot_product_attention`, which is made for long sequences.

    Args:
        query: queries of all heads, one after the other.
        key_value: keys of all heads, then values of all heads.
        num_heads: number of heads.

    Returns:
        The outputs of all heads, one after the other.

    Raises:
        InputError: shapes that do not match, or heads that do not divide D.
    """
    rows, num_queries, dim = query.shape
    if key_value.ndim != 3 or key_value.shape[0] != rows or key_value.shape[2] != 2 * dim:
        raise InputError(
            f"attention of queries {list(query.shape)} needs keys and values of shape [{rows}, M, {2 * dim}], "
            f"not {list(key_value.shape)}"
        )
    if dim % num_heads:
        raise InputError(f"{num_heads} heads do not divide the width {dim}")
    is_small = rows >= LEAST_ROWS and num_queries * key_value.shape[1] <= MOST_LOGITS
    if is_small and query.device.type == "cpu":
        dtype = torch.promote_types(query.dtype, key_value.dtype)
        working = torch.float64 if dtype == torch.float64 else torch.float32
        if not compile_failure(dtype_name(working)):
            return attention_operator.attend(query.to(working), key_value.to(working), num_heads).to(dtype)
    keys, values = rearrange(key_value, "b m (two h d) -> two b h m d", two=2, h=num_heads)
    mixed = F.scaled_dot_product_attention(rearrange(query, "b q (h d) -> b h q d", h=num_heads), keys, values)
    return rearrange(mixed, "b h q d -> b q (h d)")
