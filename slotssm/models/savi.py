"""SAVi, the object-centric baseline: a recurrence over slots that attends to the tokens of every step."""

from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from slotssm.layers import SlotAttention, SlotMixer
from slotssm.layers.checkpointing import checkpointed
from slotssm.layers.compiled_steps import step_of
from slotssm.layers.inputs import check_input
from slotssm.models.chunking import run_in_chunks
from slotssm.models.model import ModelOutput, ModelState, SlotModel, check_state
from slotssm.models.stacks import CompetingModelConfig
from slotssm.registry import register_model


class CorrectingModelConfig(CompetingModelConfig):
    """Configuration fields of models whose slots are corrected with every frame and predicted for the next."""

    num_layers: int = Field(1, ge=1)
    """Transformer blocks of the predictor."""
    num_iterations: int = Field(1, ge=1)
    """Iterations of slot attention per frame, with shared weights."""
    not_shared: ClassVar[frozenset[str]] = frozenset({"num_layers"})


class SAViConfig(CorrectingModelConfig):
    """SAVi: slot attention corrects the slots with each frame, a Transformer predicts them (Kipf et al. 2022)."""

    kind: Literal["savi"] = "savi"

    @property
    def num_layer_mlps(self) -> int:
        """The predictor's MLPs and the corrector's."""
        return self.num_layers + 1


class SAViPlusPlusConfig(CorrectingModelConfig):
    """SAVi++ (Elsayed et al. 2022): SAVi without MLP in the corrector, for the task's `encoder = "residual"`."""

    kind: Literal["savi++"] = "savi++"


class SAViState(NamedTuple):
    """Recurrent state of SAVi between two calls.

    Attributes:
        predicted: [B, K, D] the predictor's slots for the next step.
    """

    predicted: Tensor


@register_model("savi", SAViConfig)
class SAVi(SlotModel):
    """Slot Attention for Video without conditioning (Kipf et al. 2022, 2111.12594; used in the paper, section 7.3).

    In every step, the corrector (slot attention) updates the slots with the tokens, which gives the output, and the
    predictor (Transformer blocks over the slots) maps them to the initial slots of the next step. The initial slots of
    the first step are learned. As in the implementation of STEVE (2205.14065), the predictor's blocks are pre-norm,
    and the corrector has an MLP, which SAVi's own small model does not have.

    Unlike in a state space model, the slots of one step depend on the mixed slots of the step before, so that steps
    are computed one after the other and the model is not a stack of layers.

    Attributes:
        compile_steps: whether the step of a sequence is compiled; see `slotssm.layers.compiled_steps`.
    """

    gives_attention = True
    corrector_has_mlp: ClassVar[bool] = True
    compile_steps: bool = False

    def __init__(self, config: CorrectingModelConfig) -> None:
        super().__init__(config.num_slots, config.slot_dim)
        self.null_slot = config.null_slot
        self.queries = nn.Parameter(torch.randn(config.num_slots, config.slot_dim))
        ratio = config.layer_mlp_width
        self.corrector = SlotAttention(
            config.slot_dim,
            config.num_iterations,
            ratio if self.corrector_has_mlp else None,
            config.dropout,
            null_slot=config.null_slot,
        )
        self.predictor = nn.Sequential(
            *(SlotMixer(config.slot_dim, config.num_heads, ratio, config.dropout) for _ in range(config.num_layers))
        )

    def forward(self, tokens: Float[Tensor, "B T M D"], state: ModelState | None = None) -> ModelOutput:
        """Run over T steps, one after the other.

        Args:
            tokens: inputs of every step.
            state: the state returned by an earlier call; None starts from the initial state.

        Raises:
            InputError: tokens with the wrong shape, width or dtype.
        """
        check_input(self, tokens, "B, T, M", self.slot_dim)
        check_state(self, state, 1)
        return run_in_chunks(self._run, tokens, state, self.num_slots)

    def _run(self, tokens: Float[Tensor, "B T M D"], state: ModelState | None) -> ModelOutput:
        if state is None:
            state = self.initial_state(tokens.shape[0])
        predicted, slots, attention = state.layers[0][0], [], []
        advance = step_of(self, self._advance)
        for normed in self.corrector.token_norm(tokens).unbind(1):
            corrected, shares, predicted = checkpointed(self, advance, predicted, normed)
            slots.append(corrected)
            attention.append(shares)
        return ModelOutput(
            slots=torch.stack(slots, dim=1),
            attention=torch.stack(attention, dim=1),
            state=ModelState((SAViState(predicted),), state.num_steps + tokens.shape[1]),
        )

    def step(self, tokens: Float[Tensor, "B M D"], state: ModelState | None = None) -> ModelOutput:
        """Run one step; the result has T = 1; errors as in `forward`."""
        check_input(self, tokens, "B, M", self.slot_dim)
        return self(tokens[:, None], state)

    def initial_state(self, batch_size: int) -> ModelState:
        """The initial state: the learned initial slots."""
        return ModelState((SAViState(self.queries.expand(batch_size, -1, -1)),), 0)

    def _advance(self, predicted: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The corrected slots, their attention to the tokens, and the slots predicted for the next step."""
        corrected, shares = self.corrector(predicted, tokens)
        return corrected, shares, self.predictor(corrected)


@register_model("savi++", SAViPlusPlusConfig)
class SAViPlusPlus(SAVi):
    """The slots of SAVi++ (Elsayed et al., NeurIPS 2022, 2206.07764), which the paper compares with on depth.

    SAVi++ is SAVi with a stronger frame encoder, a residual CNN with a Transformer over its features, and with depth
    as target. The encoder belongs to the task, so that every model can use it: `task.encoder = "residual"`, without
    which this is hardly more than SAVi. As published, the corrector has one iteration and no MLP.

    What differs from the publication: the initial slots are learned instead of made from the boxes of the first frame,
    since nothing here is conditioned; the predictor is pre-norm, as that of `SAVi`; depth is the only target, without
    optical flow; frames are not cropped at random; the encoder has fewer blocks and layers, and the slots are
    narrower, so that the model has the size of the OC-SlotSSM that it is compared with.
    """

    corrector_has_mlp = False
