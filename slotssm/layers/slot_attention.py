"""Slot attention: slots compete for tokens, and a GRU updates them (Locatello et al. 2020, arXiv 2006.15055)."""

from jaxtyping import Float
from torch import Tensor, nn

from slotssm.errors import InputError
from slotssm.layers.attention import MLPBlock, count_unused_by_competition, slot_competition
from slotssm.layers.inputs import check_input


class SlotAttention(nn.Module):
    """Updates slots with the tokens of one step, in `num_iterations` iterations with shared weights.

    Each iteration is slots = MLPBlock(GRU(the slot's weighted mean of the values, slots)), or without the MLP.

    Args:
        dim: width D of slots and tokens.
        num_iterations: iterations per step.
        mlp_ratio: hidden width of the MLP as a multiple of `dim`; None omits the MLP.
        dropout: in the MLP; 0 is off.
        eps: added to the sums over the tokens, so that a slot without tokens gets zero instead of 0 / 0.
        null_slot: whether a further logit, 0 for every token, takes part in the softmax over the slots; see
            `slot_competition`.

    Raises:
        InputError: `num_iterations` is less than 1.
    """

    scales_weights = True

    def __init__(
        self,
        dim: int,
        num_iterations: int,
        mlp_ratio: float | None,
        dropout: float = 0.0,
        eps: float = 1e-6,
        null_slot: bool = False,
    ) -> None:
        super().__init__()
        if num_iterations < 1:
            raise InputError(f"slot attention needs at least one iteration, not {num_iterations}")
        self.num_iterations, self.eps, self.null_slot = num_iterations, eps, null_slot
        self.norm = nn.LayerNorm(dim)
        self.token_norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.gru = nn.GRUCell(dim, dim)
        self.mlp: nn.Module = nn.Identity() if mlp_ratio is None else MLPBlock(dim, mlp_ratio, dropout)

    def forward(
        self, slots: Float[Tensor, "B K D"], tokens: Float[Tensor, "B M D"]
    ) -> tuple[Float[Tensor, "B K D"], Float[Tensor, "B K M"]]:
        """Update the slots with the tokens of one step.

        Args:
            slots: initial slots of the step.
            tokens: normalised tokens of the step: `token_norm` of the tokens, for all steps of a video at once.

        Returns:
            The slots, and the attention of the last iteration before renormalisation, which sums to 1 over the slots,
            or to less with a null slot.

        Raises:
            InputError: slots with the wrong shape, width or dtype.
        """
        check_input(self, slots, "B, K", self.query.in_features)
        attention = None
        for _ in range(self.num_iterations):
            queries = self.query(self.norm(slots))
            updates, attention = slot_competition(queries, tokens, self.key_value.weight, self.eps, self.null_slot)
            slots = self.mlp(self.gru(updates.flatten(0, 1), slots.flatten(0, 1)).view_as(slots))
        assert attention is not None
        return slots, attention

    def count_unused_parameters(self, num_slots: int) -> int:
        """Number of parameters without effect, see `count_unused_by_competition`."""
        return count_unused_by_competition(self.query.in_features, num_slots, self.null_slot)
