"""Which parameters decay, and which can never receive a gradient."""

import pytest
import torch
from torch import nn

from slotssm.layers import (
    RIM,
    S4D,
    S5,
    Attention,
    CausalSlotAttention,
    CNNEncoder,
    ConvolutionPainter,
    InvertedAttention,
    Mamba,
    Mamba2,
    PieceDecoder,
    PieceTokenizer,
    QueryBlock,
    SlotAttention,
    SlotEncoder,
    SlotGRU,
    SlotMixer,
    SpatialBroadcastDecoder,
    count_unused_parameters,
    decayed_parameters,
)

DIM = 8


def decayed_names(module: nn.Module) -> set[str]:
    found = {id(parameter) for parameter in decayed_parameters(module)}
    return {name for name, parameter in module.named_parameters() if id(parameter) in found}


# --- weight decay -----------------------------------------------------------------------------------------

MIXER = {"attention.query.weight", "attention.key_value.weight", "attention.out.weight"}
MIXER |= {"mlp.net.1.weight", "mlp.net.3.weight"}


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (
            Mamba(DIM, d_state=4),
            {"in_proj.weight", "conv1d.weight", "x_proj.weight", "dt_proj.weight", "out_proj.weight"},
        ),
        (Mamba2(DIM, d_state=4, headdim=4), {"in_proj.weight", "conv1d.weight", "out_proj.weight"}),
        (S4D(DIM, d_state=4), {"out_proj.weight"}),
        (S5(DIM, d_state=4), {"gate.weight"}),
        (
            RIM(DIM, 3, 2, 2),
            {"input_key.weight", "input_value.weight", "out_gate.weight"}
            | {"input_query", "weight_ih", "weight_hh", "query_key_value"},
        ),
        (SlotGRU(DIM, 2, 2.0), {"gru.weight_ih", "gru.weight_hh"} | {f"mixer.{name}" for name in MIXER}),
        (SlotMixer(DIM, 2, 2.0), MIXER),
        (CausalSlotAttention(DIM, 2), {"query.weight", "key_value.weight", "out.weight"}),
        (InvertedAttention(DIM), {"query.weight", "key_value.weight", "out.weight"}),
        (
            SlotAttention(DIM, 1, 2.0),
            {"query.weight", "key_value.weight", "gru.weight_ih", "gru.weight_hh", "mlp.net.1.weight"}
            | {"mlp.net.3.weight"},
        ),
        (
            SlotEncoder(3, DIM, 1, 2, 2.0),
            {f"layers.0.{kind}_attention.{name}.weight" for kind in ("self", "cross") for name in ("query", "out")}
            | {f"layers.0.{kind}_attention.key_value.weight" for kind in ("self", "cross")}
            | {"layers.0.mlp.net.1.weight", "layers.0.mlp.net.3.weight", "to_slots.weight"},
        ),
        (PieceTokenizer(8, 8, 1, 2, DIM), {"embed.weight", "mlp.1.weight", "mlp.3.weight"}),
        (
            CNNEncoder(8, 8, (4, 4), 2, DIM),
            {"cnn.0.weight", "cnn.2.weight", "project.weight", "mlp.1.weight", "mlp.3.weight"},
        ),
        (
            SpatialBroadcastDecoder(DIM, ConvolutionPainter(8, 8, DIM, (4, 4))),
            {"painter.0.weight", "painter.2.weight", "painter.4.weight"},
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_weights_of_linear_maps_convolutions_and_cells_decay(module, expected):
    assert decayed_names(module) == expected


def test_modules_of_torch_that_a_user_may_bring():
    parts = {
        "attention": (nn.MultiheadAttention(8, 2), {"in_proj_weight", "out_proj.weight"}),
        "cross": (
            nn.MultiheadAttention(8, 2, kdim=4, vdim=4, add_bias_kv=True),
            {"q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"},
        ),
        "lstm": (nn.LSTM(4, 5, 2), {f"weight_{kind}_l{layer}" for kind in ("ih", "hh") for layer in range(2)}),
        "bilinear": (nn.Bilinear(3, 4, 5), {"weight"}),
        "convolution": (nn.Conv3d(2, 4, 3), {"weight"}),
        "embedding": (nn.Embedding(5, 4), set()),
        "norm": (nn.GroupNorm(2, 4), set()),
    }
    for name, (module, expected) in parts.items():
        assert decayed_names(module) == expected, name


class Own(nn.Module):
    """What a user's module may hold: of its own parameters only those that it names decay."""

    weight_matrices = ("matrix",)

    def __init__(self) -> None:
        super().__init__()
        self.matrix, self.start = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(3, 3))
        self.map = nn.Linear(3, 3)


class Silent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 3))


def test_a_module_declares_its_own_matrices_and_what_nobody_names_does_not_decay():
    assert decayed_names(nn.Sequential(Own(), Silent())) == {"0.matrix", "0.map.weight"}

    class Mistaken(Own):
        weight_matrices = ("matrx",)

    with pytest.raises(AttributeError, match="matrx"):
        decayed_parameters(Mistaken())


def test_shared_weights_come_once_and_in_the_order_of_the_parameters():
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    module = nn.Sequential(first, Own(), second)
    found = decayed_parameters(module)
    assert [id(parameter) for parameter in found] == [
        id(parameter) for parameter in (first.weight, module[1].matrix, module[1].map.weight)
    ]


# --- parameters without effect ----------------------------------------------------------------------------


def num_without_gradient(module: nn.Module, *inputs: torch.Tensor | None) -> int:
    """Numbers in the parameters whose gradient vanishes for random inputs and weights, in float64."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    module.double()
    outputs = module(*(None if values is None else values.double() for values in inputs))
    outputs = [
        part for part in (outputs if isinstance(outputs, tuple) else (outputs,)) if isinstance(part, torch.Tensor)
    ]
    loss = (outputs[0] * torch.randn_like(outputs[0])).sum()
    gradients = torch.autograd.grad(loss, list(module.parameters()), materialize_grads=True)
    # a softmax over one key leaves rounding errors of a gradient
    rounding = 1e-11 * max(gradient.abs().max() for gradient in gradients)
    return sum(int((gradient.abs() < rounding).sum()) for gradient in gradients)


@pytest.mark.parametrize("num_slots", [1, 2, 4])
def test_counts_are_those_of_a_backward_pass(num_slots):
    slots, tokens = torch.randn(16, num_slots, DIM), torch.randn(16, 5, DIM)
    videos = torch.randn(2, 30, num_slots, DIM)
    cases = {
        "self-attention": (Attention(DIM, 2), (slots,)),
        "mixer": (SlotMixer(DIM, 2, 2.0), (slots,)),
        "inverted": (InvertedAttention(DIM), (slots, tokens)),
        "inverted, null slot": (InvertedAttention(DIM, null_slot=True), (slots, tokens)),
        "slot attention": (SlotAttention(DIM, 2, 2.0), (slots, torch.randn(16, 5, DIM))),
        "encoder": (SlotEncoder(num_slots, DIM, 2, 2, 2.0), (None, tokens)),
        "causal": (CausalSlotAttention(DIM, 2), (videos,)),
        "slot GRU": (SlotGRU(DIM, 2, 2.0), (videos,)),
        "RIM": (RIM(DIM, num_slots, num_slots, 2), (videos,)),
        "decoder": (PieceDecoder(4, 8, 2, 3, DIM, 2, 2, 2.0), (slots,)),
    }
    for name, (module, inputs) in cases.items():
        expected = num_without_gradient(module, *inputs)
        if name == "slot attention":
            # the backward pass does not reach the norm of the tokens, which comes before
            expected -= sum(part.numel() for part in module.token_norm.parameters())
        assert count_unused_parameters(module, num_slots) == expected, name


@pytest.mark.parametrize(("num_queries", "num_keys"), [(1, 1), (1, 4), (4, 1), (4, 4)])
def test_counts_of_cross_attention_are_those_of_a_backward_pass(num_queries, num_keys):
    queries, context = torch.randn(16, num_queries, DIM), torch.randn(16, num_keys, DIM)
    cross, block = Attention(DIM, 2, cross=True), QueryBlock(DIM, 2, 2.0)
    assert cross.count_unused_parameters(num_keys) == num_without_gradient(cross, queries, context)
    found = block.count_unused_parameters(num_queries, num_keys)
    assert found == num_without_gradient(block, queries, context)


def test_parts_are_added_up_and_own_modules_count_as_used():
    assert (
        count_unused_parameters(nn.Sequential(Own(), SlotMixer(DIM, 2, 2.0), SlotMixer(DIM, 2, 2.0)), 1) == 4 * DIM**2
    )
