"""The paper's longest sequence, 2560 steps, as training begins: small models with initial weights in float32."""

import pytest
import torch
from model_cases import CASES, CORRECTING, DIM, case_name, config_of, slots_of

from slotssm.models import SlotModel, build_model, chunking

STEPS, TOKENS = 2560, 2
LONG_CASES = [pytest.param(case, marks=[pytest.mark.slow] if case[0] in CORRECTING else []) for case in CASES]


def untrained(kind: str, mixer: str) -> SlotModel:
    # a second layer of a recurrence takes as long as the first and shows nothing new
    changes = {"num_layers": 1} if kind in ("slot-rnn", "rim") else {}
    return build_model(config_of(kind, mixer, **changes))


@pytest.mark.parametrize("case", LONG_CASES, ids=case_name)
def test_outputs_and_gradients_are_finite(case):
    model, tokens = untrained(*case), torch.randn(1, STEPS, TOKENS, DIM).requires_grad_()
    slots = model(tokens).slots
    assert slots.shape == (1, STEPS, slots_of(case[0]), DIM)
    assert slots.abs().max() < 1e3
    # the last step alone, as recall has it, and all of them
    (slots[:, -1].square().sum() + slots.square().mean()).backward()
    assert tokens.grad.isfinite().all()
    assert (tokens.grad.abs().amax((0, 2, 3)) > 0).all()
    for name, parameter in model.named_parameters():
        # one slot alone has nothing to choose in its self-attention
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


@torch.no_grad()
@pytest.mark.parametrize("case", LONG_CASES, ids=case_name)
def test_the_last_step_reaches_no_other(case):
    model, tokens = untrained(*case), torch.randn(1, STEPS, TOKENS, DIM)
    changed = tokens.clone()
    changed[:, -1] += torch.randn(TOKENS, DIM)
    before, after = model(tokens).slots, model(changed).slots
    assert torch.equal(before[:, :-1], after[:, :-1])
    assert not torch.allclose(before[:, -1], after[:, -1])


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_without_gradients_a_long_sequence_is_processed_in_chunks(case, monkeypatch):
    model, tokens = untrained(*case).eval(), torch.randn(2, 50, TOKENS, DIM)
    whole = model(tokens)
    lengths = []
    run = model._run
    monkeypatch.setattr(model, "_run", lambda part, state: lengths.append(part.shape[1]) or run(part, state))
    num_states = getattr(model, "num_states", model.num_slots)
    monkeypatch.setattr(chunking, "CHUNK_BYTES", 4 * 2 * num_states * DIM * 16)
    with torch.no_grad():
        parted = model(tokens)
    assert lengths == [16, 16, 16, 2]
    torch.testing.assert_close(parted.slots, whole.slots, rtol=1e-4, atol=1e-4)
    assert parted.state.num_steps == 50
    if whole.attention is not None:
        torch.testing.assert_close(parted.attention, whole.attention, rtol=1e-4, atol=1e-4)
