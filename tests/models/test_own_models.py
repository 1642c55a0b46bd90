"""Models and readers that a user brings: what they must offer, and that nothing else is asked of them."""

import jaxtyping
import pytest
import torch
from model_cases import CASES, DIM, ENCODED, SLOTS, STEPS, TOKENS, build, case_name, close, random_tokens, slots_of
from torch import nn

from slotssm.config import ModelConfig
from slotssm.data.spec import DataSpec
from slotssm.errors import InputError
from slotssm.layers import Mamba, Reader, SlotEncoder
from slotssm.models import ModelOutput, ModelState, SlotLayer, SlotModel, SlotSequenceModel
from slotssm.tasks import Reconstruct, ReconstructConfig


class RunningMean(SlotModel):
    """Every slot is a linear map of the mean of all tokens so far: no layer, no reader, no mixer."""

    def __init__(self, num_slots: int, slot_dim: int) -> None:
        super().__init__(num_slots, slot_dim)
        self.maps = nn.Linear(slot_dim, num_slots * slot_dim)

    def forward(self, tokens, state=None):
        state = state or self.initial_state(len(tokens))
        sums = state.layers[0][0][:, None] + tokens.mean(2).cumsum(1)
        counts = torch.arange(state.num_steps + 1, state.num_steps + 1 + tokens.shape[1])
        slots = self.maps(sums / counts[:, None]).unflatten(-1, (self.num_slots, self.slot_dim))
        return ModelOutput(slots, None, ModelState(((sums[:, -1],),), int(counts[-1])))

    def step(self, tokens, state=None):
        return self(tokens[:, None], state)

    def initial_state(self, batch_size):
        return ModelState(((self.maps.weight.new_zeros(batch_size, self.slot_dim),),), 0)


class NearestTokens(nn.Module):
    """A reader without weights: slots move to the mean of the tokens that are nearer to them than to others."""

    gives_attention = True

    def forward(self, slots, tokens):
        distances = torch.cdist(slots, tokens)
        attention = (distances == distances.amin(1, keepdim=True)).to(slots.dtype)
        return slots + attention @ tokens / tokens.shape[1], attention


def test_a_model_that_is_no_stack_serves_a_task():
    frames = torch.randint(256, (2, 5, 8, 8, 3), dtype=torch.uint8)
    task = Reconstruct(
        ReconstructConfig(encoder_channels=(4,), encoder_downsample=2, decoder_channels=(4,), decoder="convolutions"),
        RunningMean(SLOTS, DIM),
        ModelConfig(kind="running-mean", num_slots=SLOTS, slot_dim=DIM),
        DataSpec(num_frames=5, height=8, width=8),
    )
    task({"frames": frames})[0].backward()
    assert task.model.maps.weight.grad.any()
    whole, first = task.predict(frames), task.predict(frames[:, :2])
    rest = task.predict(frames[:, 2:], first.state)
    torch.testing.assert_close(torch.cat([first["masks"], rest["masks"]], 1), whole["masks"])
    assert "attention" not in whole
    assert "attention" not in task.outputs


def test_a_model_without_a_step_cannot_be_made():
    class Unfinished(SlotModel):
        def forward(self, tokens, state=None): ...

    with pytest.raises(TypeError, match=r"abstract methods '?initial_state'?, '?step'?"):
        Unfinished(SLOTS, DIM)


def test_a_reader_of_ones_own_fits_into_a_layer():
    assert isinstance(NearestTokens(), Reader)
    layers = [SlotLayer(DIM, NearestTokens(), Mamba(DIM, d_state=4), None) for _ in range(2)]
    model, tokens = SlotSequenceModel(layers, SLOTS, DIM, learned_queries=True).double(), random_tokens()
    assert model.gives_attention
    output = model(tokens)
    slots = model.queries.expand(2, STEPS, -1, -1)
    for layer in layers:
        read = [layer.reader(slots[:, t], tokens[:, t])[0] for t in range(STEPS)]
        slots = torch.stack(read, 1)
        slots = torch.stack(
            [slots[:, :, k] + layer.time_mixer(layer.time_norm(slots[:, :, k]))[0] for k in range(SLOTS)], 2
        )
    close(output.slots, slots)
    assert ((output.attention == 0) | (output.attention == 1)).all()
    state, stepped = None, []
    for t in range(STEPS):
        stepped.append(model.step(tokens[:, t], state))
        state = stepped[-1].state
    close(torch.cat([one.slots for one in stepped], 1), output.slots)
    close(torch.cat([one.attention for one in stepped], 1), output.attention)


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_models_tell_whether_they_give_attention_and_what_size_their_slots_have(case):
    model = build(*case)
    assert isinstance(model, SlotModel)
    output = model(random_tokens())
    assert model.gives_attention == (output.attention is not None) == (case[0] not in ENCODED)
    assert output.slots.shape[2:] == (model.num_slots, model.slot_dim) == (slots_of(case[0]), DIM)


def test_a_stack_gives_attention_if_any_reader_does():
    def layer(reader):
        return SlotLayer(DIM, reader, Mamba(DIM, d_state=4), None)

    encoder = SlotEncoder(SLOTS, DIM, 1, 2, 2.0)
    assert not SlotSequenceModel([layer(encoder), layer(None)], SLOTS, DIM).gives_attention
    model = SlotSequenceModel([layer(encoder), layer(NearestTokens()), layer(None)], SLOTS, DIM).double()
    assert model.gives_attention
    assert model(random_tokens()).attention.shape == (2, STEPS, SLOTS, TOKENS)


def test_a_stack_without_reader_and_queries_is_refused():
    model = SlotSequenceModel([SlotLayer(DIM, None, Mamba(DIM, d_state=4), None)], SLOTS, DIM).double()
    for call in (lambda: model(random_tokens()), lambda: model.step(random_tokens()[:, 0])):
        with pytest.raises(InputError, match="needs a reader, or learned queries"):
            call()


@pytest.mark.parametrize("kind", ["slotssm", "savi"])
def test_wrong_tokens_are_refused_in_words(kind):
    model, name = build(kind), type(build(kind)).__name__
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        for wrong in (random_tokens()[..., :-1], random_tokens()[0], random_tokens().long()):
            with pytest.raises(InputError, match=rf"{name} takes floating-point numbers of shape \[B, T, M, {DIM}\]"):
                model(wrong)
        with pytest.raises(InputError, match=rf"{name} takes floating-point numbers of shape \[B, M, {DIM}\]"):
            model.step(random_tokens())
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
