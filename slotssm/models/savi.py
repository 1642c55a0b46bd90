"""SAVi, the baseline of object-centric learning: a recurrence over slots that reads the tokens of every step."""

from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from slotssm.layers import SlotAttention, SlotMixer
from slotssm.models.composition import ModelOutput, ModelState, SlotSequenceModel
from slotssm.models.stacks import SequenceModelConfig
from slotssm.registry import register_model


class SAViConfig(SequenceModelConfig):
    """SAVi: slot attention corrects the slots by every frame, a Transformer block predicts them (Kipf et al. 2022)."""

    kind: Literal["savi"] = "savi"
    num_layers: int = Field(1, ge=1)
    """Transformer blocks of the predictor."""
    num_iterations: int = Field(1, ge=1)
    """Corrections by one frame, with the same weights."""
    not_shared: ClassVar[frozenset[str]] = frozenset({"num_layers"})

    @property
    def num_layer_mlps(self) -> int:
        """The corrector has one too."""
        return self.num_layers + 1


class SAViState(NamedTuple):
    """What SAVi remembers between two calls.

    Attributes:
        predicted: [B, K, D] the slots that the predictor expects in the next step.
    """

    predicted: Tensor


@register_model("savi", SAViConfig)
class SAVi(SlotSequenceModel):
    """Slot Attention for Video without conditioning (Kipf et al. 2022, 2111.12594; used in the paper, section 7.3).

    In every step the corrector (slot attention) reads the tokens into the slots, which are the output, and the
    predictor (Transformer blocks over the slots) makes of them the start of the next step. The start of the first
    step is learned. As in the implementation of STEVE (2205.14065), norms stand before the predictor's blocks, and the
    corrector has an MLP, which SAVi's own small model has not.
    """

    def __init__(self, config: SAViConfig) -> None:
        super().__init__([], config.num_slots, config.slot_dim, learned_queries=True)
        ratio = config.layer_mlp_width
        self.corrector = SlotAttention(config.slot_dim, config.num_iterations, ratio, config.dropout)
        self.predictor = nn.Sequential(
            *(SlotMixer(config.slot_dim, config.num_heads, ratio, config.dropout) for _ in range(config.num_layers))
        )

    def initial_state(self, batch_size: int) -> ModelState:
        """The learned slots before the first step."""
        start = self._start(batch_size)
        assert start is not None
        return ModelState((SAViState(start),), 0)

    def step(self, tokens: Float[Tensor, "B M D"], state: ModelState | None = None) -> ModelOutput:
        """Run one step; the result has T = 1."""
        return self._run(tokens[:, None], state)

    def _run(self, tokens: Float[Tensor, "B T M D"], state: ModelState | None) -> ModelOutput:
        """Step after step: unlike a state space model's, the slots of one step depend on the mixed ones before."""
        if state is None:
            state = self.initial_state(tokens.shape[0])
        predicted, slots, attention = state.layers[0][0], [], []
        for read in self.corrector.read(tokens).unbind(1):
            corrected, shares = self.corrector(predicted, read)
            predicted = self.predictor(corrected)
            slots.append(corrected)
            attention.append(shares)
        return ModelOutput(
            slots=torch.stack(slots, dim=1),
            attention=torch.stack(attention, dim=1),
            state=ModelState((SAViState(predicted),), state.num_steps + tokens.shape[1]),
        )
