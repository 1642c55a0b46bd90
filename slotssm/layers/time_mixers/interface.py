"""The interfaces of time mixers, through which models use all of them."""

from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

TimeMixerState = tuple[Tensor, ...]
"""Recurrent state of a time mixer between two calls: a NamedTuple of tensors, each with the batch first."""


@runtime_checkable
class TimeMixer(Protocol):
    """A causal map of sequences that can be continued from a state, with the same results for any chunking."""

    def initial_state(self, batch_size: int) -> TimeMixerState:
        """The initial state."""

    def __call__(self, u: Float[Tensor, "B L D"], state: Any = None) -> tuple[Float[Tensor, "B L D"], TimeMixerState]:
        """Process a sequence in parallel, continuing from `state`; returns the outputs and the new state."""

    def step(self, u: Float[Tensor, "B D"], state: Any) -> tuple[Float[Tensor, "B D"], TimeMixerState]:
        """Process one step; returns the output and the new state."""


@runtime_checkable
class JointTimeMixer(Protocol):
    """A causal map of sequences of K slots that mixes steps and slots jointly; otherwise like `TimeMixer`."""

    def initial_state(self, batch_size: int, num_slots: int) -> TimeMixerState:
        """The initial state."""

    def __call__(
        self, slots: Float[Tensor, "B T K D"], state: Any = None
    ) -> tuple[Float[Tensor, "B T K D"], TimeMixerState]:
        """Process a sequence, continuing from `state`; returns the outputs and the new state."""

    def step(self, slots: Float[Tensor, "B K D"], state: Any) -> tuple[Float[Tensor, "B K D"], TimeMixerState]:
        """Process one step; returns the output and the new state."""
