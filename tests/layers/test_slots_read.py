"""The map of the slots that each piece reads: against torch's own attention, and without effect on predictions."""

import pytest
import torch
from torch import nn

from slotssm.layers import Attention, PieceDecoder

DIM, HEADS, SLOTS = 16, 4, 5


@pytest.fixture(autouse=True)
def doubles():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def decoder(num_layers: int = 2) -> PieceDecoder:
    torch.manual_seed(0)
    made = PieceDecoder(8, 12, 4, 3, DIM, num_layers, HEADS, 2.0).eval()
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.5)
    return made


def torch_attention(own: Attention) -> nn.MultiheadAttention:
    """torch's module with the weights of ours."""
    made = nn.MultiheadAttention(DIM, HEADS, bias=False, batch_first=True)
    weight = torch.cat([own.query.weight, own.key_value.weight])
    made.load_state_dict({"in_proj_weight": weight, "out_proj.weight": own.out.weight})
    return made


@torch.no_grad()
def test_the_weights_and_what_they_give_are_torchs():
    own, slots = decoder().layers[1].cross_attention, torch.randn(3, SLOTS, DIM)
    x = torch.randn(3, 7, DIM)
    mixed, weights = torch_attention(own)(
        own.norm(x), own.context_norm(slots), own.context_norm(slots), average_attn_weights=False
    )
    torch.testing.assert_close(own.weights(x, slots), weights, rtol=0, atol=1e-12)
    torch.testing.assert_close(own(x, slots), x + mixed + own.out.bias, rtol=0, atol=1e-6)
    itself = decoder().layers[0].self_attention
    _, weights = torch_attention(itself)(*[itself.norm(x)] * 3, average_attn_weights=False)
    torch.testing.assert_close(itself.weights(x), weights, rtol=0, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_the_map_is_the_mean_over_heads_of_the_last_layer(num_layers):
    made, slots = decoder(num_layers), torch.randn(2, SLOTS, DIM)
    x = made.queries.expand(2, -1, -1)
    for layer in made.layers:
        x = layer.self_attention(x)
        own = layer.cross_attention
        context = own.context_norm(slots)
        mixed, weights = torch_attention(own)(own.norm(x), context, context)
        x = layer.mlp(x + mixed + own.out.bias)
    found = made.slots_read(slots)
    assert found.shape == (2, SLOTS, 2, 3)
    torch.testing.assert_close(found, weights.transpose(1, 2).unflatten(2, (2, 3)), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.sum(1), torch.ones(2, 2, 3))
    picture = made.head(x).unflatten(1, (2, 3)).unflatten(3, (3, 4, 4)).permute(0, 3, 1, 4, 2, 5).reshape(2, 3, 8, 12)
    torch.testing.assert_close(made(slots), picture, rtol=0, atol=1e-6)


@torch.no_grad()
def test_the_map_follows_the_slots():
    made, slots, order = decoder(), torch.randn(2, SLOTS, DIM), [3, 0, 4, 1, 2]
    torch.testing.assert_close(made.slots_read(slots[:, order]), made.slots_read(slots)[:, order])
    assert (made.slots_read(slots[:, :1]) == 1).all()
