"""The causal depthwise convolution and SiLU before a selective scan."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from slotssm.ops.cpu import convolution_operator
from slotssm.ops.cpu.availability import compile_failure
from slotssm.ops.operators.constants import constant_when_compiled
from slotssm.ops.operators.dtypes import dtype_name
from slotssm.ops.shapes import require_shapes
from slotssm.ops.triton import availability as triton_availability
from slotssm.ops.triton import convolution_operator as triton_convolution_operator


def causal_convolve(
    x: Float[Tensor, "B L E"],
    past: Float[Tensor, "B E W"],
    weight: Float[Tensor, "E W"],
    bias: Float[Tensor, " E"],
) -> tuple[Float[Tensor, "B L E"], Float[Tensor, "B E W"]]:
    """Convolve every channel with its own filter of W steps, then apply SiLU; the last weight is for the newest step.

    On the CPU one numba kernel does both, on CUDA one of Triton where it works, elsewhere torch does.

    Args:
        x: inputs.
        past: the last W inputs before x, newest last.
        weight: the filter of each channel.
        bias: added to every output.

    Returns:
        The outputs in the dtype of x, and the last W inputs up to the end of x.

    Raises:
        InputError: shapes that do not match.
    """
    batch, _, channels = x.shape
    width = weight.shape[-1]
    expected = {
        "past": (past, (batch, channels, width)),
        "weight": (weight, (channels, width)),
        "bias": (bias, (channels,)),
    }
    require_shapes(x, expected)
    past = past.transpose(1, 2).to(x.dtype)
    # a copy: a view would keep all of x in memory, and change with it
    last = torch.cat([past, x[:, -width:]], dim=1)[:, -width:].transpose(1, 2).contiguous()
    is_double = torch.float64 in (x.dtype, weight.dtype)
    working = torch.float64 if is_double else torch.float32
    if x.device.type == "cpu" and not compile_failure(dtype_name(working)):
        y = convolution_operator.convolve(*(tensor.to(working) for tensor in (x, past, weight, bias)))
    elif _triton_serves(x.device.type, dtype_name(working)):
        y = triton_convolution_operator.convolve(x, past, weight.to(working), bias.to(working))
    else:
        y = _in_plain_torch(x, past, weight, bias)
    return y.to(x.dtype), last


@constant_when_compiled
def _triton_serves(device: str, dtype: str) -> bool:
    """Whether Triton's kernel is taken: on CUDA, where a trial agrees with plain torch."""
    return device == "cuda" and not triton_availability.convolution_refusal(device, dtype, _in_plain_torch)


def _in_plain_torch(x: Tensor, past: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.silu(_shifted_sum(torch.cat([past, x], dim=1), weight, bias))


def _shifted_sum(history: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The convolution as a sum of W shifted products, which needs no transposition of time and channels."""
    width = weight.shape[1]
    total = bias
    for w in range(width):
        total = torch.addcmul(total, history[:, w + 1 : history.shape[1] - width + w + 1], weight[:, w])
    return total
