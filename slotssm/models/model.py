"""What every model over slots offers, so that tasks, training and evaluation need not know which one they hold."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from slotssm.layers import TimeMixerState, count_unused_parameters


class ModelState(NamedTuple):
    """What a model remembers between two calls.

    Attributes:
        layers: tensors of every layer, each with the batch first.
        num_steps: steps seen so far.
    """

    layers: tuple[TimeMixerState, ...]
    num_steps: int


@dataclass(frozen=True)
class ModelOutput:
    """What a model returns.

    Attributes:
        slots: [B, T, K, D] of every step.
        attention: [B, T, K, M] shares of the slots in every token (they sum to 1 over K), or None.
        state: continue with it in the next `forward` or `step`.
    """

    slots: Float[Tensor, "B T K D"]
    attention: Float[Tensor, "B T K M"] | None
    state: ModelState


class SlotModel(nn.Module, ABC):
    """A causal map from the tokens of every step to K slots of every step, which can go on from a state.

    `forward` over a whole sequence, `forward` over its parts and `step` over single steps give the same numbers, each
    call going on from the state that the one before returned. A model that is no stack of layers derives from this
    class and defines the three abstract methods; `SlotSequenceModel` is the base of those that are.

    Args:
        num_slots: K slots of the output.
        slot_dim: width D of tokens and slots.

    Attributes:
        gives_attention: whether `ModelOutput.attention` says which slot a token belongs to.
        checkpoint_activations: in training, compute what happens inside of layers once more in the backward pass
            instead of storing it: less memory, more time, the same numbers. A model of which nothing can be computed
            again may ignore it.
    """

    gives_attention: bool = False
    checkpoint_activations: bool = False

    def __init__(self, num_slots: int, slot_dim: int) -> None:
        super().__init__()
        self.num_slots, self.slot_dim = num_slots, slot_dim

    def count_used_parameters(self) -> int:
        """How many parameters can change the output; see `slotssm.layers.count_unused_parameters`."""
        num_parameters = sum(parameter.numel() for parameter in self.parameters())
        return num_parameters - count_unused_parameters(self, self.num_slots)

    @abstractmethod
    def forward(self, tokens: Float[Tensor, "B T M D"], state: ModelState | None = None) -> ModelOutput:
        """Run over T steps.

        Args:
            tokens: inputs of every step.
            state: what an earlier call returned; None starts afresh.
        """

    @abstractmethod
    def step(self, tokens: Float[Tensor, "B M D"], state: ModelState | None = None) -> ModelOutput:
        """Run one step; the result has T = 1.

        Args:
            tokens: inputs of the step.
            state: what an earlier call returned; None starts afresh.
        """

    @abstractmethod
    def initial_state(self, batch_size: int) -> ModelState:
        """The state before the first step."""
