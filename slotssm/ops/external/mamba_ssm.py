"""The CUDA kernel of the package `mamba_ssm` behind the interface of `slotssm.ops.selective_scan`."""

import functools
import importlib
import logging
from typing import Any

import torch
from torch import Tensor

from slotssm.errors import SlotSSMError

_log = logging.getLogger("slotssm")


@functools.cache
def is_installed() -> bool:
    """Whether the package can be loaded; a broken installation is warned of once."""
    try:
        importlib.import_module("mamba_ssm.ops.selective_scan_interface")
    # a compiled extension that does not fit torch may raise anything
    except Exception as error:
        if not (isinstance(error, ModuleNotFoundError) and str(error.name).startswith("mamba_ssm")):
            _log.warning("mamba_ssm is installed, but broken (%s)", error)
        return False
    return True


class _WithoutGradient(torch.autograd.Function):
    """Pass a tensor on and refuse its gradient, which the kernel would silently take for zero."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        raise SlotSSMError("mamba_ssm has no gradient through the final state; use backend='chunked'")


def selective_scan(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    initial_state: None,
) -> tuple[Tensor, Tensor]:
    """`slotssm.ops.selective_scan` from a zero state; `mamba_ssm` has time last and takes parameters in float32."""
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    u, delta, b, c, gate = (None if t is None else t.to(x.dtype).transpose(1, 2).contiguous() for t in (x, dt, B, C, z))
    rates, skip, bias = (None if t is None else t.float() for t in (A, D, delta_bias))
    y, final = selective_scan_fn(
        u, delta, rates, b, c, D=skip, z=gate, delta_bias=bias, delta_softplus=delta_softplus, return_last_state=True
    )
    return y.transpose(1, 2), _WithoutGradient.apply(final)
