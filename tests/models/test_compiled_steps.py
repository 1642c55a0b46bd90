"""The steps of recurrent models through `torch.compile`: the same values and gradients, for any length."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch
from model_cases import build, parts, random_tokens

from slotssm.layers import compiled_steps
from slotssm.layers.compiled_steps import switch_compiled_steps

RECURRENT = ["slot-rnn", "rim", "savi"]


def outcome(model, tokens) -> list[torch.Tensor]:
    """Slots, states and all gradients of a sequence in two parts."""
    tokens = tokens.clone().requires_grad_()
    first = model(tokens[:, :4])
    output = model(tokens[:, 4:], first.state)
    loss = output.slots.square().sum() + first.slots.sum()
    gradients = torch.autograd.grad(loss, [tokens, *model.parameters()], materialize_grads=True)
    return [first.slots, output.slots, *parts(output.state), *gradients]


def compiled_as_eager(kind: str, backend: str) -> int:
    """Compare a model with and without compiled steps; returns the number of graphs."""
    compiled_steps.BACKEND = backend
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model, tokens = build(kind), random_tokens()
    expected = outcome(model, tokens)
    switch_compiled_steps(model, True)
    found = outcome(model, tokens)
    assert all(module.compile_steps for module in model.modules() if hasattr(module, "compile_steps"))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    with torch.no_grad():
        longer = random_tokens(steps=30)
        ours = model(longer).slots
        switch_compiled_steps(model, False)
        torch.testing.assert_close(ours, model(longer).slots, rtol=1e-10, atol=1e-10)
    return graphs


# a process where annotations are not checked: torch.compile cannot look through the checks
@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("kind", RECURRENT)
def test_values_and_gradients_are_those_of_the_loop(kind, backend):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        graphs = process.submit(compiled_as_eager, kind, backend).result(timeout=900)
    # for states with and without a gradient and for each layer, not for each of the nine steps
    assert 1 <= graphs <= 6


def test_a_step_is_compiled_where_it_is_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(
        compiled_steps, "_compiled", lambda kind, name, backend: asked.append(name) or getattr(kind, name)
    )
    for kind in RECURRENT:
        model, tokens = build(kind), random_tokens()
        expected = outcome(model, tokens)
        assert not asked
        switch_compiled_steps(model, True)
        assert all(torch.equal(*pair) for pair in zip(outcome(model, tokens), expected, strict=True))
        assert set(asked) == {"_advance"}
        asked.clear()
