"""The interface of token readers, through which layers use all of them."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Reader(Protocol):
    """Computes the slots of a step from its tokens, or updates slots with them; steps are independent.

    Attributes:
        gives_attention: whether it returns attention.
    """

    gives_attention: bool

    def __call__(
        self, slots: Float[Tensor, "B K D"] | None, tokens: Float[Tensor, "B M D"]
    ) -> tuple[Float[Tensor, "B K2 D"], Float[Tensor, "B K2 M"] | None]:
        """Read the tokens of each step.

        Args:
            slots: slots of the previous layer; None in the first layer.
            tokens: inputs of the step.

        Returns:
            The slots, and the attention of the slots to every token (which sums to 1 over the slots) or None.
        """
