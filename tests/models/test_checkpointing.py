"""Activation checkpointing changes neither outputs nor gradients, and stores less."""

import pytest
import torch
from model_cases import CASES, CONFIGS, SLOTS, build, case_name, parts, random_tokens

from slotssm.layers import ConvolutionPainter, PieceDecoder, SpatialBroadcastDecoder


def outcome(model, tokens, checkpointed: bool, seed: int = 7) -> list[torch.Tensor]:
    """Outputs, states and all gradients of a training step, dropout drawn from the seed."""
    model.checkpoint_activations = checkpointed
    model.train()
    tokens = tokens.clone().requires_grad_()
    torch.manual_seed(seed)
    first = model(tokens[:, :4])
    output = model(tokens[:, 4:], first.state)
    weight = torch.linspace(-1, 1, output.slots.numel(), dtype=output.slots.dtype).view_as(output.slots)
    loss = (output.slots * weight).sum() + first.slots.square().sum()
    if output.attention is not None:
        loss = loss + output.attention.square().sum()
    gradients = torch.autograd.grad(loss, [tokens, *model.parameters()], materialize_grads=True)
    after = torch.rand(1)  # the generator goes on from the same state
    return [first.slots, output.slots, *parts(output.state), *gradients, after]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_outputs_and_all_gradients_of_models_are_the_same(case, dropout):
    model, tokens = build(*case, dropout=dropout), random_tokens()
    for ours, theirs in zip(outcome(model, tokens, True), outcome(model, tokens, False), strict=True):
        assert torch.equal(ours, theirs)
    if dropout:
        assert not torch.equal(outcome(model, tokens, True)[1], outcome(model, tokens, True, seed=8)[1])


def saved_bytes(model, forward) -> int:
    """Bytes that autograd keeps for the backward pass, each storage once, parameters aside."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    seen: dict[int, int] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = forward()  # storages must not be freed and reused while they are counted
    del kept
    return sum(seen.values())


@pytest.mark.parametrize("kind", CONFIGS)
def test_less_is_stored_in_training_and_nothing_changes_otherwise(kind):
    model, tokens = build(kind), random_tokens(steps=30).requires_grad_()

    def stored(checkpointed: bool, training: bool) -> int:
        model.checkpoint_activations = checkpointed
        model.train(training)
        return saved_bytes(model, lambda: model(tokens))

    assert stored(True, training=True) < 0.5 * stored(False, training=True)
    assert stored(True, training=False) == stored(False, training=False)
    model.checkpoint_activations = True
    with torch.no_grad():
        assert not model.train()(tokens).slots.requires_grad


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_decoders_too(dropout):
    slots = torch.randn(2, SLOTS, 8)
    pieces = PieceDecoder(8, 16, 4, 3, 8, 2, 2, 2.0, dropout=dropout)
    broadcast = SpatialBroadcastDecoder(8, ConvolutionPainter(8, 16, 8, (6, 4)))
    for decoder in (pieces, broadcast):
        found = []
        for checkpointed in (True, False):
            decoder.checkpoint_activations = checkpointed
            leaf = slots.clone().requires_grad_()
            torch.manual_seed(3)
            images = decoder(leaf)
            found.append([images, *torch.autograd.grad(images.square().sum(), [leaf, *decoder.parameters()])])
        assert all(map(torch.equal, *found))
        decoder.checkpoint_activations = True
        less = saved_bytes(decoder, lambda decoder=decoder: decoder(slots))
        decoder.checkpoint_activations = False
        assert less < 0.7 * saved_bytes(decoder, lambda decoder=decoder: decoder(slots))
