"""Models that are stacks of layers: (token reader → time mixer → slot mixer) × layers.

Tokens are [B, T, M, D], slots [B, T, K, D]. Readers and slot mixers process every step independently, so time is
folded into the batch for them. A time mixer processes every slot independently (`SlotLayer`: slots are folded into
the batch) or all slots jointly (`JointSlotLayer`).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from slotssm.errors import InputError
from slotssm.layers import JointTimeMixer, Reader, TimeMixer, TimeMixerState, count_unused_parameters
from slotssm.layers.checkpointing import checkpointed
from slotssm.layers.inputs import check_input
from slotssm.models.chunking import run_in_chunks
from slotssm.models.model import ModelOutput, ModelState, SlotModel, check_state


class Layer(nn.Module, ABC):
    """One layer: an optional reader, the time mixer with its pre-norm, an optional slot mixer.

    Args:
        dim: width D.
        reader: computes slots from the tokens, or updates the previous layer's slots with them; None passes the
            previous layer's slots on.
        time_mixer: mixes steps.
        slot_mixer: mixes the slots of each step; None omits it.
    """

    time_mixer: TimeMixer | JointTimeMixer

    def __init__(
        self,
        dim: int,
        reader: Reader | None,
        time_mixer: TimeMixer | JointTimeMixer,
        slot_mixer: nn.Module | None,
    ) -> None:
        super().__init__()
        self.reader = reader
        self.time_norm = nn.LayerNorm(dim)
        self.time_mixer = time_mixer
        self.slot_mixer = slot_mixer

    def forward(
        self,
        slots: Float[Tensor, "B T K D"] | None,
        tokens: Float[Tensor, "B T M D"],
        state: TimeMixerState | None = None,
    ) -> tuple[Float[Tensor, "B T K2 D"], Float[Tensor, "B T K2 M"] | None, TimeMixerState]:
        """Run over T steps in parallel.

        Args:
            slots: of the previous layer; None in the first layer.
            tokens: inputs of every step.
            state: the state returned by an earlier call; None starts from the initial state.

        Returns:
            The slots, the reader's attention if there is one, and the new state.
        """
        steps = tokens.shape[1]
        below = None if slots is None else rearrange(slots, "b t k d -> (b t) k d")
        read, attention = self.read(below, rearrange(tokens, "b t m d -> (b t) m d"))
        mixed, state = self.mix_time(rearrange(read, "(b t) k d -> b t k d", t=steps, b=len(tokens)), state)
        slots = self.mix_slots(rearrange(mixed, "b t k d -> (b t) k d"))
        if attention is not None:
            attention = rearrange(attention, "(b t) k m -> b t k m", t=steps, b=len(tokens))
        return rearrange(slots, "(b t) k d -> b t k d", t=steps, b=len(tokens)), attention, state

    def step(
        self, slots: Float[Tensor, "B K D"] | None, tokens: Float[Tensor, "B M D"], state: TimeMixerState
    ) -> tuple[Float[Tensor, "B K2 D"], Float[Tensor, "B K2 M"] | None, TimeMixerState]:
        """Run one step; otherwise as `forward`."""
        read, attention = self.read(slots, tokens)
        mixed, state = self.mix_time_step(read, state)
        return self.mix_slots(mixed), attention, state

    def read(
        self, slots: Float[Tensor, "BT K D"] | None, tokens: Float[Tensor, "BT M D"]
    ) -> tuple[Float[Tensor, "BT K2 D"], Float[Tensor, "BT K2 M"] | None]:
        """Slots of each step from the previous layer's slots and the tokens, and the attention if there is one.

        Raises:
            InputError: there is neither a reader nor a previous layer.
        """
        if self.reader is not None:
            return self.reader(slots, tokens)
        if slots is None:
            raise InputError("the first layer of a stack needs a reader, or learned queries as its input slots")
        return slots, None

    def mix_slots(self, slots: Float[Tensor, "BT K D"]) -> Float[Tensor, "BT K D"]:
        """Apply the slot mixer to every step."""
        return slots if self.slot_mixer is None else self.slot_mixer(slots)

    @abstractmethod
    def mix_time(
        self, slots: Float[Tensor, "B T K D"], state: TimeMixerState | None
    ) -> tuple[Float[Tensor, "B T K2 D"], TimeMixerState]:
        """Run the time mixer over all steps in one call."""

    @abstractmethod
    def mix_time_step(
        self, slots: Float[Tensor, "B K D"], state: TimeMixerState
    ) -> tuple[Float[Tensor, "B K2 D"], TimeMixerState]:
        """Advance the time mixer by one step."""

    @abstractmethod
    def initial_state(self, batch_size: int, num_slots: int) -> TimeMixerState:
        """Initial state of the time mixer."""


class SlotLayer(Layer):
    """A layer whose time mixer processes each slot independently, with a residual connection.

    Args:
        dim: width D.
        reader: as in `Layer`.
        time_mixer: mixes the steps of each slot; all slots share its weights.
        slot_mixer: as in `Layer`.
    """

    time_mixer: TimeMixer

    def __init__(self, dim: int, reader: Reader | None, time_mixer: TimeMixer, slot_mixer: nn.Module | None) -> None:
        super().__init__(dim, reader, time_mixer, slot_mixer)

    def mix_time(
        self, slots: Float[Tensor, "B T K D"], state: TimeMixerState | None
    ) -> tuple[Float[Tensor, "B T K D"], TimeMixerState]:
        """Apply the time mixer to every slot, all steps in parallel."""
        folded = rearrange(self.time_norm(slots), "b t k d -> (b k) t d")
        mixed, state = self.time_mixer(folded, state)
        return slots + rearrange(mixed, "(b k) t d -> b t k d", b=slots.shape[0]), state

    def mix_time_step(
        self, slots: Float[Tensor, "B K D"], state: TimeMixerState
    ) -> tuple[Float[Tensor, "B K D"], TimeMixerState]:
        """Advance the time mixer by one step."""
        mixed, state = self.time_mixer.step(rearrange(self.time_norm(slots), "b k d -> (b k) d"), state)
        return slots + rearrange(mixed, "(b k) d -> b k d", b=slots.shape[0]), state

    def initial_state(self, batch_size: int, num_slots: int) -> TimeMixerState:
        """Initial state of the time mixer."""
        return self.time_mixer.initial_state(batch_size * num_slots)


class JointSlotLayer(Layer):
    """A layer whose time mixer processes all slots jointly, such as attention over slots and steps, or a recurrence.

    Args:
        dim: width D.
        reader: as in `Layer`.
        time_mixer: mixes the steps of all slots.
        slot_mixer: as in `Layer`.
        residual: whether to add the layer's slots to the time mixer's output; without it, that output is the slots.
    """

    time_mixer: JointTimeMixer

    def __init__(
        self,
        dim: int,
        reader: Reader | None,
        time_mixer: JointTimeMixer,
        slot_mixer: nn.Module | None,
        residual: bool = True,
    ) -> None:
        super().__init__(dim, reader, time_mixer, slot_mixer)
        self.residual = residual

    def mix_time(
        self, slots: Float[Tensor, "B T K D"], state: TimeMixerState | None
    ) -> tuple[Float[Tensor, "B T K2 D"], TimeMixerState]:
        """Apply the time mixer to all slots, all steps in one call."""
        mixed, state = self.time_mixer(self.time_norm(slots), state)
        return slots + mixed if self.residual else mixed, state

    def mix_time_step(
        self, slots: Float[Tensor, "B K D"], state: TimeMixerState
    ) -> tuple[Float[Tensor, "B K2 D"], TimeMixerState]:
        """Advance the time mixer by one step."""
        mixed, state = self.time_mixer.step(self.time_norm(slots), state)
        return slots + mixed if self.residual else mixed, state

    def initial_state(self, batch_size: int, num_slots: int) -> TimeMixerState:
        """Initial state of the time mixer."""
        return self.time_mixer.initial_state(batch_size, num_slots)


class SlotSequenceModel(SlotModel):
    """A stack of layers with the same number of slots in each.

    The paper allows a different number of slots in each layer (section 4.3); here all layers have the same K. The
    attention in the output is that of the last reader that has one.

    Args:
        layers: the stack.
        num_slots: K, the number of output slots.
        dim: width D.
        learned_queries: whether to learn queries as the input slots of the first layer.
        splitter: maps the last layer's slots to the output slots, as Split SSM maps one vector to K slots.
        num_states: number of slots inside the layers if `splitter` changes it; None is `num_slots`.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        num_slots: int,
        dim: int,
        learned_queries: bool = False,
        splitter: nn.Module | None = None,
        num_states: int | None = None,
    ) -> None:
        super().__init__(num_slots, dim)
        self.num_states = num_states or num_slots
        self.layers = nn.ModuleList(layers)
        self.queries = nn.Parameter(torch.randn(self.num_states, dim)) if learned_queries else None
        self.splitter = splitter
        self.gives_attention = any(layer.reader is not None and layer.reader.gives_attention for layer in layers)

    def forward(self, tokens: Float[Tensor, "B T M D"], state: ModelState | None = None) -> ModelOutput:
        """Run over T steps in parallel; on a CPU without gradients in chunks, which is faster and takes less memory.

        Args:
            tokens: inputs of every step.
            state: the state returned by an earlier call; None starts from the initial state.

        Raises:
            InputError: tokens with the wrong shape, width or dtype.
        """
        check_input(self, tokens, "B, T, M", self.slot_dim)
        check_state(self, state, len(self.layers))
        return run_in_chunks(self._run, tokens, state, self.num_states)

    def _run(self, tokens: Float[Tensor, "B T M D"], state: ModelState | None) -> ModelOutput:
        batch, steps = tokens.shape[:2]
        slots = self._start(batch * steps)
        slots = None if slots is None else rearrange(slots, "(b t) k d -> b t k d", b=batch, t=steps)
        attention, states = None, []
        for index, layer in enumerate(self.layers):
            layer_state = state.layers[index] if state is not None else None
            slots, read, layer_state = checkpointed(self, layer, slots, tokens, layer_state)
            attention = read if read is not None else attention
            states.append(layer_state)
        return ModelOutput(
            slots=rearrange(self._split(rearrange(slots, "b t k d -> (b t) k d")), "(b t) k d -> b t k d", t=steps),
            attention=attention,
            state=ModelState(tuple(states), steps + (state.num_steps if state is not None else 0)),
        )

    def step(self, tokens: Float[Tensor, "B M D"], state: ModelState | None = None) -> ModelOutput:
        """Run one step, in constant memory if the time mixer's state has a fixed size; the result has T = 1.

        Args:
            tokens: inputs of the step.
            state: the state returned by an earlier call; None starts from the initial state.

        Raises:
            InputError: tokens with the wrong shape, width or dtype.
        """
        check_input(self, tokens, "B, M", self.slot_dim)
        check_state(self, state, len(self.layers))
        if state is None:
            state = self.initial_state(tokens.shape[0])
        slots = self._start(tokens.shape[0])
        attention, states = None, []
        for layer, layer_state in zip(self._layers, state.layers, strict=True):
            slots, read, layer_state = layer.step(slots, tokens, layer_state)
            attention = read if read is not None else attention
            states.append(layer_state)
        return ModelOutput(
            slots=self._split(slots)[:, None],
            attention=None if attention is None else attention[:, None],
            state=ModelState(tuple(states), state.num_steps + 1),
        )

    def initial_state(self, batch_size: int) -> ModelState:
        """The initial state."""
        return ModelState(tuple(layer.initial_state(batch_size, self.num_states) for layer in self._layers), 0)

    def count_unused_parameters(self, num_slots: int) -> int:
        """Number of parameters that cannot affect the output; the layers have `num_states` slots."""
        return sum(count_unused_parameters(part, self.num_states) for part in self.children())

    @property
    def _layers(self) -> list[Layer]:
        return list(self.layers)  # type: ignore[arg-type]

    def _start(self, batch: int) -> Tensor | None:
        return None if self.queries is None else self.queries.expand(batch, -1, -1)

    def _split(self, slots: Tensor | None) -> Tensor:
        assert slots is not None, "a stack has at least one layer"
        return slots if self.splitter is None else self.splitter(slots)
