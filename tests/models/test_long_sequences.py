"""The paper's longest sequence, 2560 steps, as training begins: small models with initial weights in float32."""

import pytest
import torch
from model_cases import CASES, DIM, case_name, config_of, slots_of

from slotssm.models import build_model

STEPS, TOKENS = 2560, 2


@pytest.fixture(params=CASES, ids=case_name)
def model(request):
    # a second layer of a recurrence takes as long as the first and shows nothing new
    changes = {"num_layers": 1} if request.param[0] in ("slot-rnn", "rim") else {}
    return build_model(config_of(*request.param, **changes))


@pytest.fixture
def num_slots(request):
    return slots_of(request.node.callspec.params["model"][0])


def test_outputs_and_gradients_are_finite(model, num_slots):
    tokens = torch.randn(1, STEPS, TOKENS, DIM).requires_grad_()
    output = model(tokens)
    assert output.slots.shape == (1, STEPS, num_slots, DIM)
    assert output.slots.abs().max() < 1e3
    # the last step alone, as recall has it, and all of them
    (output.slots[:, -1].square().sum() + output.slots.square().mean()).backward()
    assert tokens.grad.isfinite().all()
    assert (tokens.grad.abs().amax((0, 2, 3)) > 0).all()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all(), name


@torch.no_grad()
def test_the_last_step_reaches_no_other(model):
    tokens = torch.randn(1, STEPS, TOKENS, DIM)
    changed = tokens.clone()
    changed[:, -1] += torch.randn(TOKENS, DIM)
    before, after = model(tokens).slots, model(changed).slots
    assert torch.equal(before[:, :-1], after[:, :-1])
    assert not torch.allclose(before[:, -1], after[:, -1])
