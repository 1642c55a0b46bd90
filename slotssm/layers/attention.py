"""Attention over tokens and over slots, each pre-norm with a residual connection."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from slotssm.errors import InputError
from slotssm.layers.inputs import check_input
from slotssm.ops import multi_head_attention


class Attention(nn.Module):
    """Multi-head attention block: x + Attn(LN(x), context).

    Args:
        dim: width D.
        num_heads: heads, dividing `dim`.
        dropout: after the output projection; 0 is off.
        cross: whether keys and values come from a second input (also normalised) instead of from x.
    """

    def __init__(self, dim: int, num_heads: int, dropout: float = 0.0, cross: bool = False) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm = nn.LayerNorm(dim)
        self.context_norm = nn.LayerNorm(dim) if cross else None
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.out = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "B Q D"], context: Float[Tensor, "B M D"] | None = None
    ) -> Float[Tensor, "B Q D"]:
        """Attend from x to `context` (cross) or to x itself."""
        normed = self.norm(x)
        if self.context_norm is not None:
            assert context is not None, "cross-attention needs a context"
            source = self.context_norm(context)
        else:
            source = normed
        if source.shape[1] == 1:
            # the softmax over a single key is 1, so all queries get the same value
            value = F.linear(source, self.key_value.weight[source.shape[-1] :])
            return x + self.dropout(self.out(value).expand_as(x))
        key_value = self.key_value(source)
        # one set of queries may serve all contexts
        query = self.query(normed).expand(len(key_value), -1, -1)
        return x + self.dropout(self.out(multi_head_attention(query, key_value, self.num_heads)))

    def weights(
        self, x: Float[Tensor, "B2 Q D"], context: Float[Tensor, "B M D"] | None = None
    ) -> Float[Tensor, "B H Q M"]:
        """The weights with which every query of each head takes the values, which sum to 1 over M.

        `forward` does not make them: its kernels never hold them in memory at once.
        """
        normed = self.norm(x)
        source = normed if self.context_norm is None or context is None else self.context_norm(context)
        query = rearrange(self.query(normed), "b q (h d) -> b h q d", h=self.num_heads)
        keys = F.linear(source, self.key_value.weight[: source.shape[-1]])
        keys = rearrange(keys, "b m (h d) -> b h d m", h=self.num_heads)
        return torch.softmax(query @ keys * query.shape[-1] ** -0.5, dim=-1)

    def count_unused_parameters(self, num_keys: int) -> int:
        """Number of parameters that cannot affect the output: with one key, those of queries, keys and their own norm.

        Args:
            num_keys: Q for self-attention, M for cross-attention.
        """
        if num_keys > 1:
            return 0
        dim = self.query.in_features
        return 2 * dim * dim + (2 * dim if self.context_norm is not None else 0)


class MLPBlock(nn.Module):
    """Position-wise MLP block: x + MLP(LN(x)).

    Args:
        dim: width D.
        ratio: hidden width as a multiple of `dim`.
        dropout: after the last linear map; 0 is off.
    """

    def __init__(self, dim: int, ratio: float = 4.0, dropout: float = 0.0) -> None:
        super().__init__()
        # rounding may make a ratio such as 120 / 44 slightly too small
        hidden = int(dim * ratio + 1e-6)
        self.net = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, dim), nn.Dropout(dropout)
        )

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """Apply the block."""
        return x + self.net(x)


class QueryBlock(nn.Module):
    """One Transformer decoder layer: self-attention of the queries, cross-attention to a context, MLP.

    Args:
        dim: width D of queries and context.
        num_heads: heads of the attentions.
        mlp_ratio: hidden width of the MLP as a multiple of `dim`.
        dropout: in every block; 0 is off.
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.self_attention = Attention(dim, num_heads, dropout)
        self.cross_attention = Attention(dim, num_heads, dropout, cross=True)
        self.mlp = MLPBlock(dim, mlp_ratio, dropout)

    def forward(self, queries: Float[Tensor, "B2 Q D"], context: Float[Tensor, "B M D"]) -> Float[Tensor, "B Q D"]:
        """Update the queries of each context; one set of queries (B2 = 1) may serve all contexts."""
        if self.training and self.dropout > 0:
            queries = queries.expand(context.shape[0], -1, -1)  # a separate dropout mask for each context
        mixed = self.self_attention(queries).expand(context.shape[0], -1, -1)
        return self.mlp(self.cross_attention(mixed, context))

    def context_weights(
        self, queries: Float[Tensor, "B2 Q D"], context: Float[Tensor, "B M D"]
    ) -> Float[Tensor, "B H Q M"]:
        """Weights of the cross-attention; see `Attention.weights`."""
        return self.cross_attention.weights(self.self_attention(queries), context)

    def count_unused_parameters(self, num_queries: int, num_context: int) -> int:
        """Number of parameters that cannot affect the output for Q queries and M elements of the context."""
        own = self.self_attention.count_unused_parameters(num_queries)
        return own + self.cross_attention.count_unused_parameters(num_context)


class InvertedAttention(nn.Module):
    """Inverted attention: softmax over the slots, then a weighted mean over the tokens (paper, section 5.1).

    One head. A[k, m] = softmax over k of q_k·k_m / sqrt(D); each slot's weights are divided by their sum over the
    tokens; the output is A V. The residual connection and the norms are our choice, as in the released code.

    Args:
        dim: width D of slots and tokens.
        eps: added to the sums over the tokens, so that a slot without tokens gets zero instead of 0 / 0.
        null_slot: whether a further logit, 0 for every token, takes part in the softmax over the slots; see
            `slot_competition`.
    """

    scales_weights = True
    gives_attention = True

    def __init__(self, dim: int, eps: float = 1e-6, null_slot: bool = False) -> None:
        super().__init__()
        self.eps, self.null_slot = eps, null_slot
        self.norm = nn.LayerNorm(dim)
        self.token_norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.out = nn.Linear(dim, dim)

    def forward(
        self, slots: Float[Tensor, "B K D"] | None, tokens: Float[Tensor, "B M D"]
    ) -> tuple[Float[Tensor, "B K D"], Float[Tensor, "B K M"]]:
        """Update the slots of each step with its tokens.

        Args:
            slots: slots of the previous layer, or learned queries.
            tokens: inputs of the step.

        Returns:
            The slots, and the attention before renormalisation, which sums to 1 over the slots, or to less with a null
            slot.

        Raises:
            InputError: no slots, or slots or tokens with the wrong shape, width or dtype.
        """
        if slots is None:
            raise InputError("inverted attention updates slots: in a first layer, it needs learned queries")
        check_input(self, slots, "B, K", self.query.in_features)
        check_input(self, tokens, "B, M", self.query.in_features)
        queries, normed = self.query(self.norm(slots)), self.token_norm(tokens)
        updates, attention = slot_competition(queries, normed, self.key_value.weight, self.eps, self.null_slot)
        return slots + self.out(updates), attention

    def count_unused_parameters(self, num_slots: int) -> int:
        """Number of parameters without effect, see `count_unused_by_competition`."""
        return count_unused_by_competition(self.query.in_features, num_slots, self.null_slot)


def slot_competition(
    queries: Float[Tensor, "B K D"],
    tokens: Float[Tensor, "B M D"],
    key_value: Float[Tensor, "D2 D"],
    eps: float,
    null_slot: bool = False,
) -> tuple[Float[Tensor, "B K D"], Float[Tensor, "B K M"]]:
    """Attention with a softmax over the slots, and for each slot the mean of the values weighted by its attention.

    Keys and values are linear in the tokens, of which there are many more than slots: the map of keys is applied to the
    queries, and that of values to the slots' means of the tokens.

    Args:
        queries: one for each slot.
        tokens: what the slots compete for.
        key_value: weights of the maps from a token to its key and to its value, one above the other (D2 = 2 D).
        eps: added to the sums over the tokens.
        null_slot: whether a further logit, 0 for every token, takes part in the softmax, so that tokens such as those
            of the background need not belong to any slot and do not dilute the slots' means.

    Returns:
        The weighted means, and the attention, which sums to 1 over the slots, or to less with a null slot.
    """
    key, value = key_value.chunk(2)
    logits = queries @ key @ tokens.transpose(1, 2) * queries.shape[-1] ** -0.5
    if null_slot:
        logits = torch.cat([logits, torch.zeros_like(logits[:, :1])], dim=1)
    attention = torch.softmax(logits, dim=1)[:, : queries.shape[1]]
    means = attention / (attention.sum(dim=-1, keepdim=True) + eps) @ tokens
    return F.linear(means, value), attention


def count_unused_by_competition(dim: int, num_slots: int, null_slot: bool) -> int:
    """Number of parameters of a slot competition with its norms that cannot affect its output.

    A softmax over the slots does not change if the same number is added to the logits of a token: the bias of the
    queries' norm has no effect, and with a single slot neither have the maps of queries and keys. With a null slot, all
    have.
    """
    if null_slot:
        return 0
    return dim if num_slots > 1 else 2 * dim * dim + 2 * dim
