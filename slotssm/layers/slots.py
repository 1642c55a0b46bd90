"""Slot encoder (tokens to slots) and slot mixer (self-attention over slots)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from slotssm.layers.attention import Attention, MLPBlock, QueryBlock
from slotssm.layers.inputs import check_input


class SlotEncoder(nn.Module):
    """CLS Transformer: learnable CLS tokens query the tokens of one step (paper, section 4.1).

    Each layer is self-attention over the CLS tokens, cross-attention to the tokens and an MLP; a linear map
    to the slots follows. It is the reader of a first layer, so its input slots are ignored.

    Args:
        num_slots: K, one CLS token each.
        dim: width D of CLS tokens, tokens and slots.
        num_layers: Transformer layers.
        num_heads: heads of the attentions.
        mlp_ratio: hidden width of the MLPs as a multiple of `dim`.
        dropout: in every block; 0 is off.
    """

    scales_weights = True
    gives_attention = False

    def __init__(
        self, num_slots: int, dim: int, num_layers: int, num_heads: int, mlp_ratio: float, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.cls = nn.Parameter(torch.randn(num_slots, dim))
        self.layers = nn.ModuleList(QueryBlock(dim, num_heads, mlp_ratio, dropout) for _ in range(num_layers))
        self.to_slots = nn.Linear(dim, dim)

    def forward(
        self, slots: Float[Tensor, "B K2 D"] | None, tokens: Float[Tensor, "B M D"]
    ) -> tuple[Float[Tensor, "B K D"], None]:
        """Summarise the tokens of each step in K slots; `slots` is ignored, and no attention is returned.

        Raises:
            InputError: tokens with the wrong shape, width or dtype.
        """
        check_input(self, tokens, "B, M", self.cls.shape[1])
        queries = self.cls[None]
        for layer in self.layers:
            queries = layer(queries, tokens)
        return self.to_slots(queries), None

    def count_unused_parameters(self, num_slots: int) -> int:
        """Number of parameters that cannot affect the output; depends on the encoder's own K, not on `num_slots`."""
        blocks = [layer for layer in self.layers if isinstance(layer, QueryBlock)]
        return sum(block.self_attention.count_unused_parameters(len(self.cls)) for block in blocks)


class SlotMixer(nn.Module):
    """Self-attention across the slots of one step, then an MLP per slot (paper, section 4.2).

    Args:
        dim: width D.
        num_heads: heads of the attention.
        mlp_ratio: hidden width of the MLP as a multiple of `dim`.
        dropout: in both blocks; 0 is off.
    """

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention = Attention(dim, num_heads, dropout)
        self.mlp = MLPBlock(dim, mlp_ratio, dropout)

    def forward(self, slots: Float[Tensor, "B K D"]) -> Float[Tensor, "B K D"]:
        """Let the slots of each step exchange information.

        Raises:
            InputError: slots with the wrong shape, width or dtype.
        """
        check_input(self, slots, "B, K", self.attention.query.in_features)
        return self.mlp(self.attention(slots))


class JoiningEncoder(nn.Module):
    """Slot encoder whose K slots are joined into one vector: concatenated, then mapped to width D.

    Args:
        encoder: the encoder of the K slots.
        num_slots: K.
        dim: width D of the slots and of the joined vector.
    """

    scales_weights = True
    gives_attention = False

    def __init__(self, encoder: SlotEncoder, num_slots: int, dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.join = nn.Linear(num_slots * dim, dim)

    def forward(
        self, slots: Float[Tensor, "B K D"] | None, tokens: Float[Tensor, "B M D"]
    ) -> tuple[Float[Tensor, "B 1 D"], None]:
        """Summarise the tokens of each step in one vector; `slots` is ignored, and no attention is returned."""
        return self.join(self.encoder(slots, tokens)[0].flatten(1))[:, None], None


class SlotSplitter(nn.Module):
    """Counterpart of `JoiningEncoder`: maps one vector to K·D channels, which are split into K slots.

    Args:
        num_slots: K.
        dim: width D of the joined vector and of the slots.
    """

    def __init__(self, num_slots: int, dim: int) -> None:
        super().__init__()
        self.num_slots = num_slots
        self.split = nn.Linear(dim, num_slots * dim)

    def forward(self, joined: Float[Tensor, "B 1 D"]) -> Float[Tensor, "B K D"]:
        """Split each vector into slots."""
        return self.split(joined[:, 0]).unflatten(-1, (self.num_slots, -1))
