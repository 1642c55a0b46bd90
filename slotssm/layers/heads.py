"""Head from the slots of a step to the classes of a label."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from slotssm.layers.inputs import check_input
from slotssm.layers.slots import SlotMixer


class ClassHead(nn.Module):
    """Transformer over the slots and one CLS token, and a linear map of that token to the classes.

    Args:
        dim: width D of the slots.
        num_classes: number of classes.
        num_layers: Transformer layers.
        num_heads: heads of the attention.
        mlp_ratio: hidden width of the MLPs as a multiple of `dim`.
        dropout: in every block; 0 is off.
    """

    def __init__(
        self, dim: int, num_classes: int, num_layers: int, num_heads: int, mlp_ratio: float, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.cls = nn.Parameter(torch.randn(dim))
        self.layers = nn.ModuleList(SlotMixer(dim, num_heads, mlp_ratio, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(dim)
        self.to_classes = nn.Linear(dim, num_classes)

    def forward(self, slots: Float[Tensor, "B K D"]) -> Float[Tensor, "B C"]:
        """Logits of the classes; the order of the slots does not matter.

        Raises:
            InputError: slots with the wrong shape, width or dtype.
        """
        check_input(self, slots, "B, K", len(self.cls))
        x = torch.cat([self.cls.expand(len(slots), 1, -1), slots], dim=1)
        for layer in self.layers:
            x = layer(x)
        logits: Tensor = self.to_classes(self.norm(x[:, 0]))
        return logits
