"""Slot attention: slots compete for tokens, and a GRU takes what each has won (Locatello et al. 2020, 2006.15055)."""

from jaxtyping import Float
from torch import Tensor, nn

from slotssm.layers.attention import MLPBlock, compete


class SlotAttention(nn.Module):
    """Slots that are corrected by the tokens of one step, some times over with the same weights.

    Each iteration is slots = MLPBlock(GRU(what the slot has won of the values, slots)). Tokens are mapped to keys and
    values once for all iterations, which `read` does for all steps of a video together.

    Args:
        dim: width D of slots and tokens.
        num_iterations: corrections of one step.
        mlp_ratio: hidden width of the MLP as a multiple of `dim`.
        dropout: in the MLP; 0 is off.
        eps: added to the row sums, so that a slot without tokens gets zero instead of a quotient of zeros.
    """

    def __init__(
        self, dim: int, num_iterations: int, mlp_ratio: float, dropout: float = 0.0, eps: float = 1e-6
    ) -> None:
        super().__init__()
        self.num_iterations, self.eps = num_iterations, eps
        self.norm = nn.LayerNorm(dim)
        self.token_norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.gru = nn.GRUCell(dim, dim)
        self.mlp = MLPBlock(dim, mlp_ratio, dropout)

    def read(self, tokens: Float[Tensor, "*batch M D"]) -> Float[Tensor, "*batch M D2"]:
        """Keys and values of tokens, one after the other in the last axis (D2 = 2 D)."""
        return self.key_value(self.token_norm(tokens))

    def forward(
        self, slots: Float[Tensor, "B K D"], read: Float[Tensor, "B M D2"]
    ) -> tuple[Float[Tensor, "B K D"], Float[Tensor, "B K M"]]:
        """Correct the slots by tokens that were read.

        Returns:
            The slots, and the attention of the last iteration before renormalisation, which sums to 1 over the slots.
        """
        keys, values = read.chunk(2, dim=-1)
        attention = None
        for _ in range(self.num_iterations):
            won, attention = compete(self.query(self.norm(slots)), keys, values, self.eps)
            slots = self.mlp(self.gru(won.flatten(0, 1), slots.flatten(0, 1)).view_as(slots))
        assert attention is not None
        return slots, attention
