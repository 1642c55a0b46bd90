"""Recurrent Independent Mechanisms: recurrent units that compete for the input and communicate sparsely."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from slotssm.errors import InputError
from slotssm.layers.compiled_steps import step_of
from slotssm.layers.inputs import check_input, check_state
from slotssm.layers.time_mixers.slot_rnn import gru_update
from slotssm.ops import attend


class RIMState(NamedTuple):
    """State of the units between two calls.

    Attributes:
        hidden: [B, K, D] their hidden states.
    """

    hidden: Tensor


class RIM(nn.Module):
    """K recurrent units, of which the A that attend most to the input are active at each step (Goyal et al. 2019).

    One step (arXiv 1909.10893, section 2):

    1. Input attention: each unit attends to the tokens and a null token of zeros, with a query from its hidden state.
    2. The A units with the least attention on the null token are active.
    3. Independent dynamics: each active unit updates its state with its own GRU and the result of its attention.
    4. Communication: active units attend to all units and add the result.

    Inactive units keep their hidden state. Gradients pass through the kept state, but not through the discarded
    updates of inactive units or the selection of active units.

    From the paper: all of the above; keys and values of the tokens are computed by one shared map each, while every
    unit has its own query map, its own GRU and its own maps in the communication; an inactive unit communicates the
    state that it keeps (in the authors' code: its discarded update).

    From the authors' code (anirudh9119/RIMs): one head and keys of 64 channels in the input attention; query, key and
    value maps without biases, so that the null token has score and value 0; dropout of the attention's result; in the
    communication, σ(gate) · tanh(map) of the heads instead of the heads themselves, which bounds the update of a step,
    with maps that the units share; initial states of zeros.

    Our choice: values of the tokens have width D and heads width D / heads; torch's default initialisation; ties of
    the attention on the null token go to the units with lower indices, as in the first step, where the queries of all
    units are zero.

    Args:
        dim: width D of tokens and hidden states.
        num_units: number of units K.
        num_active: number of active units A in each step.
        num_heads: heads of the communication, dividing `dim`.
        input_key_dim: width of queries and keys of the input attention.
        dropout: dropout of the results of both attentions; 0 is off.

    Attributes:
        compile_steps: whether the step of a sequence is compiled; see `slotssm.layers.compiled_steps`.
    """

    compile_steps: bool = False

    weight_matrices = ("weight_ih", "weight_hh", "input_query", "query_key_value")

    def __init__(
        self,
        dim: int,
        num_units: int,
        num_active: int,
        num_heads: int,
        input_key_dim: int = 64,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 < num_active <= num_units:
            raise InputError(f"{num_active} of {num_units} units cannot be active; choose from 1 to {num_units}")
        self.dim, self.num_units, self.num_active, self.num_heads = dim, num_units, num_active, num_heads
        self.input_key = nn.Linear(dim, input_key_dim, bias=False)
        self.input_value = nn.Linear(dim, dim, bias=False)
        self.input_query = _uniform_parameter(dim, num_units, dim, input_key_dim)
        self.weight_ih, self.weight_hh = (
            _uniform_parameter(dim, num_units, dim, 3 * dim),
            _uniform_parameter(dim, num_units, dim, 3 * dim),
        )
        self.bias_ih, self.bias_hh = (
            _uniform_parameter(dim, num_units, 1, 3 * dim),
            _uniform_parameter(dim, num_units, 1, 3 * dim),
        )
        self.query_key_value = _uniform_parameter(dim, num_units, dim, 3 * dim)
        self.out_gate = nn.Linear(dim, 2 * dim)
        self.dropout = nn.Dropout(dropout)

    def initial_state(self, batch_size: int, num_slots: int | None = None) -> RIMState:
        """The initial state: zeros for each unit, for any number of input slots."""
        return RIMState(self.weight_hh.new_zeros(batch_size, self.num_units, self.dim))

    def forward(
        self, tokens: Float[Tensor, "B T M D"], state: RIMState | None = None
    ) -> tuple[Float[Tensor, "B T K D"], RIMState]:
        """Process a sequence, continuing from `state`; returns the hidden states and the new state.

        Raises:
            InputError: tokens with the wrong shape, width or dtype.
        """
        check_input(self, tokens, "B, T, M", self.dim)
        check_state(self, state, len(tokens))
        if state is None:
            state = self.initial_state(tokens.shape[0])
        keys, values = self._map_tokens(tokens)
        # the unit axis comes first, since each unit has its own matrices
        hidden = state.hidden.transpose(0, 1)
        outputs, advance = [], step_of(self, self._advance)
        for keys_now, values_now in zip(keys.unbind(1), values.unbind(1), strict=True):
            hidden = advance(keys_now, values_now, hidden)
            outputs.append(hidden.transpose(0, 1))
        if not outputs:
            return values.reshape(tokens.shape[0], 0, self.num_units, self.dim), state
        return torch.stack(outputs, dim=1), RIMState(outputs[-1])

    def step(self, tokens: Float[Tensor, "B M D"], state: RIMState) -> tuple[Float[Tensor, "B K D"], RIMState]:
        """Process one step; returns the hidden states and the new state; errors as in `forward`."""
        check_input(self, tokens, "B, M", self.dim)
        check_state(self, state, len(tokens))
        hidden = self._advance(*self._map_tokens(tokens), state.hidden.transpose(0, 1)).transpose(0, 1)
        return hidden, RIMState(hidden)

    def count_unused_parameters(self, num_slots: int) -> int:
        """Number of parameters that cannot affect the output: queries and keys of the communication if K = 1."""
        return 2 * self.dim * self.dim if self.num_units == 1 else 0

    def _map_tokens(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Keys [..., E, 1 + M], divided by sqrt(E), and values [..., 1 + M, D], those of the null token first."""
        tokens = F.pad(tokens, (0, 0, 1, 0))
        keys = F.linear(tokens, self.input_key.weight * self.input_key.out_features**-0.5)
        return keys.transpose(-1, -2), self.input_value(tokens)

    def _advance(self, keys: Tensor, values: Tensor, hidden: Tensor) -> Tensor:
        """The next hidden states [K, B, D] from the keys [B, E, 1 + M] and values [B, 1 + M, D] of one step."""
        queries = torch.bmm(hidden, self.input_query).transpose(0, 1)
        attention = torch.softmax(torch.bmm(queries, keys), dim=-1)
        active = self._choose(attention[..., 0])
        read = self.dropout(torch.bmm(attention, values)).transpose(0, 1)
        gates, candidate = torch.baddbmm(self.bias_ih, read, self.weight_ih).split([2 * self.dim, self.dim], dim=-1)
        recurrent = torch.baddbmm(self.bias_hh, hidden, self.weight_hh)
        moved = torch.where(active, gru_update(gates, candidate, recurrent, hidden), hidden)
        return torch.where(active, moved + self._communicate(moved), hidden)

    def _choose(self, null: Tensor) -> Tensor:
        """Which units are active, [K, B, 1], from the attention on the null token [B, K]."""
        # unlike topk, a stable sort defines the order of ties
        order = torch.sort(null.detach(), dim=-1, stable=True).indices
        active = torch.zeros_like(null, dtype=torch.bool).scatter(1, order[:, : self.num_active], True)
        return active.t()[..., None]

    def _communicate(self, hidden: Tensor) -> Tensor:
        """What each unit adds to its state [K, B, D] after reading from all units."""
        heads = torch.bmm(hidden, self.query_key_value).unflatten(-1, (3, self.num_heads, -1))
        y = attend(*heads.permute(2, 1, 3, 0, 4))
        update, gate = self.out_gate(y.permute(2, 0, 1, 3).flatten(2)).chunk(2, dim=-1)
        return torch.sigmoid(gate) * torch.tanh(self.dropout(update))


def _uniform_parameter(dim: int, *shape: int) -> nn.Parameter:
    """A parameter drawn uniformly within ± 1 / sqrt(D), as torch initialises recurrent cells."""
    return nn.Parameter(torch.empty(shape).uniform_(-(dim**-0.5), dim**-0.5))
