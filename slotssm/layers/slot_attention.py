"""Slot attention: slots compete for tokens, and a GRU updates them (Locatello et al. 2020, arXiv 2006.15055)."""

from jaxtyping import Float
from torch import Tensor, nn

from slotssm.errors import InputError
from slotssm.layers.attention import MLPBlock, slot_competition
from slotssm.layers.inputs import check_input


class SlotAttention(nn.Module):
    """Updates slots with the tokens of one step, in `num_iterations` iterations with shared weights.

    Each iteration is slots = MLPBlock(GRU(the slot's weighted mean of the values, slots)). Tokens are mapped to keys
    and values once for all iterations; `map_tokens` does this for all steps of a video at once.

    Args:
        dim: width D of slots and tokens.
        num_iterations: iterations per step.
        mlp_ratio: hidden width of the MLP as a multiple of `dim`.
        dropout: in the MLP; 0 is off.
        eps: added to the sums over the tokens, so that a slot without tokens gets zero instead of 0 / 0.

    Raises:
        InputError: `num_iterations` is less than 1.
    """

    def __init__(
        self, dim: int, num_iterations: int, mlp_ratio: float, dropout: float = 0.0, eps: float = 1e-6
    ) -> None:
        super().__init__()
        if num_iterations < 1:
            raise InputError(f"slot attention needs at least one iteration, not {num_iterations}")
        self.num_iterations, self.eps = num_iterations, eps
        self.norm = nn.LayerNorm(dim)
        self.token_norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.gru = nn.GRUCell(dim, dim)
        self.mlp = MLPBlock(dim, mlp_ratio, dropout)

    def map_tokens(self, tokens: Float[Tensor, "*batch M D"]) -> Float[Tensor, "*batch M D2"]:
        """Keys and values of tokens, concatenated along the last axis (D2 = 2 D)."""
        return self.key_value(self.token_norm(tokens))

    def forward(
        self, slots: Float[Tensor, "B K D"], keys_values: Float[Tensor, "B M D2"]
    ) -> tuple[Float[Tensor, "B K D"], Float[Tensor, "B K M"]]:
        """Update the slots with the tokens of one step.

        Args:
            slots: initial slots of the step.
            keys_values: keys and values of the tokens, from `map_tokens`.

        Returns:
            The slots, and the attention of the last iteration before renormalisation, which sums to 1 over the slots.

        Raises:
            InputError: slots with the wrong shape, width or dtype.
        """
        check_input(self, slots, "B, K", self.query.in_features)
        keys, values = keys_values.chunk(2, dim=-1)
        attention = None
        for _ in range(self.num_iterations):
            updates, attention = slot_competition(self.query(self.norm(slots)), keys, values, self.eps)
            slots = self.mlp(self.gru(updates.flatten(0, 1), slots.flatten(0, 1)).view_as(slots))
        assert attention is not None
        return slots, attention

    def count_unused_parameters(self, num_slots: int) -> int:
        """Number of parameters without effect: the query norm's bias, and all query and key maps if K = 1."""
        dim = self.query.in_features
        return dim if num_slots > 1 else 2 * dim * dim + 2 * dim
