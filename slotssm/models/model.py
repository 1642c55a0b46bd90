"""The interface of models over slots, through which tasks, training and evaluation use all of them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from slotssm.errors import InputError
from slotssm.layers import TimeMixerState, count_unused_parameters


class ModelState(NamedTuple):
    """Recurrent state of a model between two calls.

    Attributes:
        layers: state tensors of every layer, each with the batch first.
        num_steps: number of steps processed so far.
    """

    layers: tuple[TimeMixerState, ...]
    num_steps: int


@dataclass(frozen=True)
class ModelOutput:
    """Output of a model.

    Attributes:
        slots: [B, T, K, D] slots of every step.
        attention: [B, T, K, M] attention of the slots to every token, which sums to 1 over K, or to less with a null
            slot; None if the model has none.
        state: state to pass to the next `forward` or `step`.
    """

    slots: Float[Tensor, "B T K D"]
    attention: Float[Tensor, "B T K M"] | None
    state: ModelState


class SlotModel(nn.Module, ABC):
    """A causal map from the tokens of every step to K slots of every step, which can be continued from a state.

    `forward` over a whole sequence, `forward` over its parts and `step` over single steps give the same results if
    each call is passed the state that the previous one returned. A model that is not a stack of layers derives from
    this class and implements the three abstract methods; `SlotSequenceModel` is the base class of stacks.

    Args:
        num_slots: K, the number of output slots.
        slot_dim: width D of tokens and slots.

    Attributes:
        gives_attention: whether the output has `ModelOutput.attention`.
        null_slot: whether tokens may belong to no slot, so that the attention sums to less than 1.
        checkpoint_activations: in training, recompute activations inside layers in the backward pass instead of
            storing them: less memory, more time, the same results. A model may ignore it.
    """

    gives_attention: bool = False
    null_slot: bool = False
    checkpoint_activations: bool = False

    def __init__(self, num_slots: int, slot_dim: int) -> None:
        super().__init__()
        self.num_slots, self.slot_dim = num_slots, slot_dim

    def count_used_parameters(self) -> int:
        """Number of parameters that can affect the output; see `slotssm.layers.count_unused_parameters`."""
        num_parameters = sum(parameter.numel() for parameter in self.parameters())
        return num_parameters - count_unused_parameters(self, self.num_slots)

    @abstractmethod
    def forward(self, tokens: Float[Tensor, "B T M D"], state: ModelState | None = None) -> ModelOutput:
        """Run over T steps.

        Args:
            tokens: inputs of every step.
            state: the state returned by an earlier call; None starts from the initial state.
        """

    @abstractmethod
    def step(self, tokens: Float[Tensor, "B M D"], state: ModelState | None = None) -> ModelOutput:
        """Run one step; the result has T = 1.

        Args:
            tokens: inputs of the step.
            state: the state returned by an earlier call; None starts from the initial state.
        """

    @abstractmethod
    def initial_state(self, batch_size: int) -> ModelState:
        """The initial state."""


def check_state(model: SlotModel, state: ModelState | None, num_layers: int) -> None:
    """Refuse something other than a state of this model; None is accepted.

    Args:
        model: the model, for its name in the message.
        state: the state that a call was given.
        num_layers: number of layers that have a state.

    Raises:
        InputError: it is not a state, or is one of a model with another number of layers.
    """
    if state is None or (isinstance(state, ModelState) and len(state.layers) == num_layers):
        return
    found = f"one of {len(state.layers)}" if isinstance(state, ModelState) else type(state).__name__
    raise InputError(
        f"{type(model).__name__} takes the state of {num_layers} layer{'s' * (num_layers > 1)} that an earlier call "
        f"returned, not {found}"
    )
