"""What every token reader offers, so that a layer does not know which one it holds."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Reader(Protocol):
    """Makes the slots of a step from its tokens, or updates slots by them; steps do not meet.

    Attributes:
        gives_attention: whether it tells which slot a token belongs to.
    """

    gives_attention: bool

    def __call__(
        self, slots: Float[Tensor, "B K D"] | None, tokens: Float[Tensor, "B M D"]
    ) -> tuple[Float[Tensor, "B K2 D"], Float[Tensor, "B K2 M"] | None]:
        """Read the tokens of each step.

        Args:
            slots: of the layer below; None if there is none.
            tokens: inputs of the step.

        Returns:
            The slots, and the shares of the slots in every token (they sum to 1 over the slots) or None.
        """
