"""The SlotRNN layer: a GRU for every slot, with the slot mixer applied to the states at each step."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from slotssm.layers.compiled_steps import step_of
from slotssm.layers.inputs import check_input, check_state
from slotssm.layers.slots import SlotMixer
from slotssm.ops import attend


class SlotGRUState(NamedTuple):
    """State of a slot GRU between two calls.

    Attributes:
        hidden: [B, K, D] the mixed states of the slots.
    """

    hidden: Tensor


class SlotGRU(nn.Module):
    """h_t = SlotMixer(GRU(slot_t, h_{t-1})) with one GRU for all slots: the recurrence of the paper's SlotRNN.

    The mixed state is both the output and the state of the next step.

    Args:
        dim: width D of slots and states.
        num_heads: heads of the slot mixer.
        mlp_ratio: hidden width of the slot mixer's MLP as a multiple of `dim`.
        dropout: in the slot mixer; 0 is off.

    Attributes:
        compile_steps: whether the step of a sequence is compiled; see `slotssm.layers.compiled_steps`.
    """

    compile_steps: bool = False

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.gru = nn.GRUCell(dim, dim)
        self.mixer = SlotMixer(dim, num_heads, mlp_ratio, dropout)

    def initial_state(self, batch_size: int, num_slots: int) -> SlotGRUState:
        """The initial state: zeros."""
        return SlotGRUState(self.gru.weight_hh.new_zeros(batch_size, num_slots, self.gru.hidden_size))

    def forward(
        self, slots: Float[Tensor, "B T K D"], state: SlotGRUState | None = None
    ) -> tuple[Float[Tensor, "B T K D"], SlotGRUState]:
        """Process a sequence, continuing from `state`; returns the outputs and the new state.

        Raises:
            InputError: slots with the wrong shape, width or dtype.
        """
        check_input(self, slots, "B, T, K", self.gru.input_size)
        check_state(self, state, len(slots))
        batch_size, _, num_slots, _ = slots.shape
        if state is None:
            state = self.initial_state(batch_size, num_slots)
        # batch and slots in one axis, so that the loop does not reshape inputs
        gates, candidates = self._map_inputs(rearrange(slots, "b t k d -> t (b k) d"))
        hidden, joint = state.hidden.flatten(0, 1), self._joint_map()
        outputs, advance = [], step_of(self, self._advance)
        for of_gates, of_candidate in zip(gates.unbind(), candidates.unbind(), strict=True):
            hidden = advance(of_gates, of_candidate, hidden, num_slots, joint)
            outputs.append(hidden.view(state.hidden.shape))
        if not outputs:
            return candidates.view(slots.shape), state
        return torch.stack(outputs, dim=1), SlotGRUState(outputs[-1])

    def step(self, slots: Float[Tensor, "B K D"], state: SlotGRUState) -> tuple[Float[Tensor, "B K D"], SlotGRUState]:
        """Process one step; returns the output and the new state; errors as in `forward`."""
        check_input(self, slots, "B, K", self.gru.input_size)
        check_state(self, state, len(slots))
        inputs = self._map_inputs(slots.flatten(0, 1))
        hidden = self._advance(*inputs, state.hidden.flatten(0, 1), slots.shape[1], self._joint_map()).view(slots.shape)
        return hidden, SlotGRUState(hidden)

    def _map_inputs(self, slots: Tensor) -> tuple[Tensor, Tensor]:
        """Input terms of the gates [..., 2 D] and of the candidate [..., D]."""
        # two products: splitting one would pad the gradients of both parts with zeros to its full size
        sizes = [2 * self.gru.hidden_size, self.gru.hidden_size]
        weights, biases = self.gru.weight_ih.split(sizes), self.gru.bias_ih.split(sizes)
        return F.linear(slots, weights[0], biases[0]), F.linear(slots, weights[1], biases[1])

    def _joint_map(self) -> Tensor:
        """Concatenated weights of the mixer's queries, keys and values, [3 D, D]."""
        return torch.cat([self.mixer.attention.query.weight, self.mixer.attention.key_value.weight])

    def _advance(self, gates: Tensor, candidate: Tensor, hidden: Tensor, num_slots: int, joint: Tensor) -> Tensor:
        """The next hidden state [B K, D]: the GRU, then the slot mixer with one product for q, k and v."""
        hidden = gru_update(gates, candidate, F.linear(hidden, self.gru.weight_hh, self.gru.bias_hh), hidden)
        attention = self.mixer.attention
        q, k, v = (
            F.linear(attention.norm(hidden), joint)
            .view(-1, num_slots, 3, attention.num_heads, hidden.shape[-1] // attention.num_heads)
            .permute(2, 0, 3, 1, 4)
        )
        y = attend(q, k, v).transpose(1, 2).reshape(hidden.shape)
        return self.mixer.mlp(hidden + attention.dropout(attention.out(y)))


def gru_update(
    gates: Float[Tensor, "*batch D2"],
    candidate: Float[Tensor, "*batch D"],
    recurrent: Float[Tensor, "*batch D3"],
    hidden: Float[Tensor, "*batch D"],
) -> Float[Tensor, "*batch D"]:
    """The next hidden state of a GRU, with the equations of `torch.nn.GRUCell`.

    r, z = σ(gates + recurrent), n = tanh(candidate + r · recurrent), h' = (1 - z) n + z h.

    Args:
        gates: input terms of r and z, D2 = 2 D.
        candidate: input term of n.
        recurrent: recurrent terms of r, z and n in this order, D3 = 3 D.
        hidden: the previous hidden state.
    """
    width = hidden.shape[-1]
    of_gates, of_candidate = recurrent.split([2 * width, width], dim=-1)
    reset, keep = torch.sigmoid(gates + of_gates).chunk(2, dim=-1)
    new = torch.tanh(torch.addcmul(candidate, reset, of_candidate))
    # under autocast the linear maps are less precise than the state
    return torch.lerp(new.to(hidden.dtype), hidden, keep.to(hidden.dtype))
