"""What every time mixer offers, so that models do not know which one they hold."""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

TimeMixerState = tuple[Tensor, ...]
"""What a time mixer remembers between two calls: a NamedTuple of tensors, each with the batch first."""


@runtime_checkable
class TimeMixer(Protocol):
    """A causal map of sequences to sequences that can go on from a state, with the same results in any chunking."""

    def initial_state(self, batch_size: int) -> TimeMixerState:
        """The state before anything was seen."""

    def __call__(self, u: Float[Tensor, "B L D"], state: Any = None) -> tuple[Float[Tensor, "B L D"], TimeMixerState]:
        """A whole sequence in parallel, continuing from `state`; returns the outputs and the new state."""

    def step(self, u: Float[Tensor, "B D"], state: Any) -> tuple[Float[Tensor, "B D"], TimeMixerState]:
        """One step; returns the output and the new state."""


@runtime_checkable
class JointTimeMixer(Protocol):
    """A causal map of sequences of K slots that mixes steps and slots at once; otherwise as `TimeMixer`."""

    def initial_state(self, batch_size: int, num_slots: int) -> TimeMixerState:
        """The state before anything was seen."""

    def __call__(
        self, slots: Float[Tensor, "B T K D"], state: Any = None
    ) -> tuple[Float[Tensor, "B T K D"], TimeMixerState]:
        """A whole sequence, continuing from `state`; returns the outputs and the new state."""

    def step(self, slots: Float[Tensor, "B K D"], state: Any) -> tuple[Float[Tensor, "B K D"], TimeMixerState]:
        """One step; returns the output and the new state."""
