"""The composition that every model is a row of: (token reader → time mixer → slot mixer) × layers.

Tokens are [B, T, M, D], slots [B, T, K, D]. Readers and slot mixers work on every step alone, so time is folded
into the batch for them. A time mixer works on every slot alone (`SlotLayer`: slots are folded into the batch) or
on all slots together (`JointSlotLayer`).
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from slotssm.layers import (
    InvertedAttention,
    JoiningEncoder,
    JointTimeMixer,
    MLPBlock,
    SlotEncoder,
    SlotMixer,
    TimeMixer,
    TimeMixerState,
)

Reader = SlotEncoder | JoiningEncoder | InvertedAttention


PIECE_BYTES = 2 << 20
"""Slots of one layer in a piece of a long sequence: about what a core's cache holds."""


class ModelState(NamedTuple):
    """What a model remembers between two calls.

    Attributes:
        layers: state of every layer's time mixer.
        num_steps: steps seen so far.
    """

    layers: tuple[TimeMixerState, ...]
    num_steps: int


@dataclass(frozen=True)
class ModelOutput:
    """What a model returns.

    Attributes:
        slots: [B, T, K, D] after the last layer.
        attention: [B, T, K, M] of the last reader that inverts attention (sums to 1 over K), or None.
        state: continue with it in the next `forward` or `step`.
    """

    slots: Float[Tensor, "B T K D"]
    attention: Float[Tensor, "B T K M"] | None
    state: ModelState


class SlotLayer(nn.Module):
    """One layer: an optional reader, the time mixer with its pre-norm and residual, the slot mixer.

    Args:
        dim: width D.
        reader: `SlotEncoder` (or `JoiningEncoder`) makes slots from tokens, `InvertedAttention` updates the slots
            below from tokens, None passes them on.
        time_mixer: runs over the steps of each slot; all slots share its weights.
        slot_mixer: runs over the slots of each step; None leaves it out.
    """

    def __init__(
        self,
        dim: int,
        reader: Reader | None,
        time_mixer: TimeMixer | JointTimeMixer,
        slot_mixer: SlotMixer | MLPBlock | None,
    ) -> None:
        super().__init__()
        self.reader = reader
        self.time_norm = nn.LayerNorm(dim)
        self.time_mixer = time_mixer
        self.slot_mixer = slot_mixer

    def read(
        self, slots: Float[Tensor, "BT K D"] | None, tokens: Float[Tensor, "BT M D"]
    ) -> tuple[Float[Tensor, "BT K2 D"], Float[Tensor, "BT K2 M"] | None]:
        """Slots of each step from the slots below and the tokens."""
        if isinstance(self.reader, SlotEncoder | JoiningEncoder):
            return self.reader(tokens), None
        assert slots is not None, "a layer without a slot encoder needs slots from below"
        return self.reader(slots, tokens) if self.reader is not None else (slots, None)

    def mix_time(
        self, slots: Float[Tensor, "B T K D"], state: TimeMixerState | None
    ) -> tuple[Float[Tensor, "B T K D"], TimeMixerState]:
        """Run the time mixer over every slot, all steps in parallel."""
        folded = rearrange(self.time_norm(slots), "b t k d -> (b k) t d")
        mixed, state = self.time_mixer(folded, state)
        return slots + rearrange(mixed, "(b k) t d -> b t k d", b=slots.shape[0]), state

    def mix_time_step(
        self, slots: Float[Tensor, "B K D"], state: TimeMixerState
    ) -> tuple[Float[Tensor, "B K D"], TimeMixerState]:
        """Advance the time mixer by one step."""
        mixed, state = self.time_mixer.step(rearrange(self.time_norm(slots), "b k d -> (b k) d"), state)
        return slots + rearrange(mixed, "(b k) d -> b k d", b=slots.shape[0]), state

    def mix_slots(self, slots: Float[Tensor, "BT K D"]) -> Float[Tensor, "BT K D"]:
        """Run the slot mixer over every step."""
        return slots if self.slot_mixer is None else self.slot_mixer(slots)

    def initial_state(self, batch_size: int, num_slots: int) -> TimeMixerState:
        """State of the time mixer before the first step."""
        assert isinstance(self.time_mixer, TimeMixer)
        return self.time_mixer.initial_state(batch_size * num_slots)


class JointSlotLayer(SlotLayer):
    """A layer whose time mixer sees all slots together, as attention over slots and steps or a recurrence does.

    Args:
        dim: width D.
        reader: as in `SlotLayer`.
        time_mixer: runs over the steps of all slots.
        slot_mixer: as in `SlotLayer`.
        residual: add the slots below to what the time mixer gives; without it the layer's slots are its states.
    """

    def __init__(
        self,
        dim: int,
        reader: Reader | None,
        time_mixer: JointTimeMixer,
        slot_mixer: SlotMixer | MLPBlock | None,
        residual: bool = True,
    ) -> None:
        super().__init__(dim, reader, time_mixer, slot_mixer)
        self.residual = residual

    def mix_time(
        self, slots: Float[Tensor, "B T K D"], state: TimeMixerState | None
    ) -> tuple[Float[Tensor, "B T K D"], TimeMixerState]:
        """Run the time mixer over all slots, all steps in one call."""
        mixed, state = self.time_mixer(self.time_norm(slots), state)
        return slots + mixed if self.residual else mixed, state

    def mix_time_step(
        self, slots: Float[Tensor, "B K D"], state: TimeMixerState
    ) -> tuple[Float[Tensor, "B K D"], TimeMixerState]:
        """Advance the time mixer by one step."""
        mixed, state = self.time_mixer.step(self.time_norm(slots), state)
        return slots + mixed if self.residual else mixed, state

    def initial_state(self, batch_size: int, num_slots: int) -> TimeMixerState:
        """State of the time mixer before the first step."""
        assert isinstance(self.time_mixer, JointTimeMixer)
        return self.time_mixer.initial_state(batch_size, num_slots)


class SlotSequenceModel(nn.Module):
    """A stack of `SlotLayer`.

    Args:
        layers: the stack; without a slot encoder in the first layer, `queries` are its slots.
        num_slots: K of the layers.
        dim: width D.
        learned_queries: whether to learn K queries as the slots below the first layer.
        splitter: turns the last layer's slots into others, as the monolithic vector of Split SSM into K slots.
    """

    def __init__(
        self,
        layers: list[SlotLayer],
        num_slots: int,
        dim: int,
        learned_queries: bool = False,
        splitter: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.num_slots = num_slots
        self.layers = nn.ModuleList(layers)
        self.queries = nn.Parameter(torch.randn(num_slots, dim)) if learned_queries else None
        self.splitter = splitter

    def forward(self, tokens: Float[Tensor, "B T M D"], state: ModelState | None = None) -> ModelOutput:
        """Run over T steps in parallel; on a CPU without gradients piece by piece, which is faster and takes less room.

        Args:
            tokens: inputs of every step.
            state: what an earlier call returned; None starts afresh.
        """
        batch, steps, width = tokens.shape[0], tokens.shape[1], tokens.shape[3]
        piece = max(1, PIECE_BYTES // max(1, batch * self.num_slots * width * tokens.element_size()))
        if torch.is_grad_enabled() or tokens.device.type != "cpu" or steps <= piece:
            return self._run(tokens, state)
        outputs = []
        for part in tokens.split(piece, dim=1):
            outputs.append(self._run(part, state))
            state = outputs[-1].state
        attention = [output.attention for output in outputs if output.attention is not None]
        return ModelOutput(
            slots=torch.cat([output.slots for output in outputs], dim=1),
            attention=torch.cat(attention, dim=1) if attention else None,
            state=outputs[-1].state,
        )

    def _run(self, tokens: Float[Tensor, "B T M D"], state: ModelState | None) -> ModelOutput:
        batch, steps = tokens.shape[:2]
        flat = rearrange(tokens, "b t m d -> (b t) m d")
        slots = self._start(flat.shape[0])
        attention, states = None, []
        for index, layer in enumerate(self._layers):
            slots, read = layer.read(slots, flat)
            attention = read if read is not None else attention
            unfolded = rearrange(slots, "(b t) k d -> b t k d", b=batch, t=steps)
            mixed, layer_state = layer.mix_time(unfolded, state.layers[index] if state is not None else None)
            states.append(layer_state)
            slots = layer.mix_slots(rearrange(mixed, "b t k d -> (b t) k d"))
        return ModelOutput(
            slots=rearrange(self._split(slots), "(b t) k d -> b t k d", b=batch, t=steps),
            attention=None if attention is None else rearrange(attention, "(b t) k m -> b t k m", b=batch, t=steps),
            state=ModelState(tuple(states), steps + (state.num_steps if state is not None else 0)),
        )

    def step(self, tokens: Float[Tensor, "B M D"], state: ModelState | None = None) -> ModelOutput:
        """Run one step, in constant memory if the time mixer's state is constant; the result has T = 1."""
        if state is None:
            state = self.initial_state(tokens.shape[0])
        slots = self._start(tokens.shape[0])
        attention, states = None, []
        for layer, layer_state in zip(self._layers, state.layers, strict=True):
            slots, read = layer.read(slots, tokens)
            attention = read if read is not None else attention
            slots, layer_state = layer.mix_time_step(slots, layer_state)
            states.append(layer_state)
            slots = layer.mix_slots(slots)
        return ModelOutput(
            slots=self._split(slots)[:, None],
            attention=None if attention is None else attention[:, None],
            state=ModelState(tuple(states), state.num_steps + 1),
        )

    def initial_state(self, batch_size: int) -> ModelState:
        """The state before the first step."""
        return ModelState(tuple(layer.initial_state(batch_size, self.num_slots) for layer in self._layers), 0)

    @property
    def _layers(self) -> list[SlotLayer]:
        return list(self.layers)  # type: ignore[arg-type]

    def _start(self, batch: int) -> Tensor | None:
        return None if self.queries is None else self.queries.expand(batch, -1, -1)

    def _split(self, slots: Tensor | None) -> Tensor:
        assert slots is not None
        return slots if self.splitter is None else self.splitter(slots)
