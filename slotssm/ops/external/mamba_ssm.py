"""The CUDA kernel of the package `mamba_ssm` behind our interface."""

from typing import Any

import torch
from torch import Tensor

from slotssm.errors import SlotSSMError


class _WithoutGradient(torch.autograd.Function):
    """Pass a tensor on, and refuse its gradient: the kernel would ignore it without a word."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        raise SlotSSMError("mamba_ssm has no gradient through the final state; use backend='chunked'")


def scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    softplus: bool,
) -> tuple[Tensor, Tensor]:
    """`selective_scan` from a state of zero; `mamba_ssm` has time last and takes parameters in float32."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    u, delta, b, c, gate = (None if t is None else t.to(x.dtype).transpose(1, 2).contiguous() for t in (x, dt, B, C, z))
    rates, skip, bias = (None if t is None else t.float() for t in (A, D, delta_bias))
    y, final = selective_scan_fn(
        u, delta, rates, b, c, D=skip, z=gate, delta_bias=bias, delta_softplus=softplus, return_last_state=True
    )
    return y.transpose(1, 2), _WithoutGradient.apply(final)
