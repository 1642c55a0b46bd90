"""What is checked and measured on a GPU: scans, attention and recurrent models of the paper's sizes."""

import torch
from torch import Tensor

from slotssm.errors import InputError
from slotssm.layers import CausalSlotAttention
from slotssm.models import RIMs, SAVi, SlotRNN
from slotssm.ops import block_causal, selective_scan
from slotssm.ops.backends import BACKENDS

RECURRENT = {"slot-rnn": SlotRNN, "rim": RIMs, "savi": SAVi}


def arguments_of(shape: tuple[int, int, int, int], device: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """Arguments of a scan as a Mamba layer makes them, each with a gradient."""
    batch, length, channels, states = shape
    generator = torch.Generator().manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator)

    moving = {
        "x": normal(batch, length, channels),
        "dt": normal(batch, length, channels) - 3,
        "B": normal(batch, length, states),
        "C": normal(batch, length, states),
        "z": normal(batch, length, channels),
    }
    rates = -torch.arange(1, states + 1).float().repeat(channels, 1)
    fixed = {"A": rates, "D": torch.ones(channels), "delta_bias": torch.zeros(channels)}
    found = {name: value.to(device, dtype) for name, value in moving.items()}
    found |= {name: value.to(device) for name, value in fixed.items()}
    return {name: value.requires_grad_() for name, value in found.items()}


def forward_backward(arguments: dict[str, Tensor], backend: str) -> list[Tensor]:
    """The outputs of a scan and the gradients of a function of them."""
    y = selective_scan(**arguments, delta_softplus=True, backend=backend)
    return [y, *torch.autograd.grad(y.float().square().mean(), list(arguments.values()))]


def usable(device: str) -> list[str]:
    """Backends that serve a device, without the reference."""
    found = []
    for name in BACKENDS:
        try:
            selective_scan(**arguments_of((1, 2, 2, 2), device, torch.float32), backend=name)
        except (InputError, RuntimeError):
            continue
        found.append(name)
    return [name for name in found if name != "reference"]


def attended(layer: CausalSlotAttention, slots: Tensor, by_flex: bool) -> list[Tensor]:
    """Outputs and gradients of an attention over slots and steps."""
    serves = block_causal.serves
    if not by_flex:
        block_causal.serves = lambda q: False
    try:
        y, _ = layer(slots)
        return [y, *torch.autograd.grad(y.float().square().mean(), [slots, *layer.parameters()])]
    finally:
        block_causal.serves = serves


def flex_serves(slots: Tensor) -> bool:
    """Whether flex attention serves four heads of these slots."""
    batch, _, _, width = slots.shape
    return block_causal.serves(slots.new_empty(batch, 4, 1, width // 4))


def attention_of(shape: tuple[int, int, int, int], device: str) -> tuple[CausalSlotAttention, Tensor]:
    """A layer and slots of a shape."""
    torch.manual_seed(0)
    layer = CausalSlotAttention(shape[-1], 4).to(device)
    return layer, torch.randn(shape, device=device, requires_grad=True)


def recurrent(kind: str, device: str, steps: int, batch: int) -> tuple[torch.nn.Module, Tensor]:
    """A recurrent model of the size of the paper's baselines, and tokens."""
    torch.manual_seed(0)
    model = RECURRENT[kind](num_slots=6, slot_dim=64, num_heads=4).to(device)
    return model, torch.randn(batch, steps, 16, 64, device=device, requires_grad=True)


def run_recurrent(model: torch.nn.Module, tokens: Tensor) -> list[Tensor]:
    """Slots and gradients of a recurrent model."""
    slots = model(tokens).slots
    gradients = torch.autograd.grad(
        slots.square().mean(), [tokens, *model.parameters()], allow_unused=True, materialize_grads=True
    )
    return [slots, *gradients]
