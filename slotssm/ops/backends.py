"""The backends of `selective_scan`: one table of what implements it, where each can serve, and which `auto` takes.

A further backend is a further entry of `BACKENDS`, at its place in the order of speed.
"""

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor

from slotssm.errors import InputError
from slotssm.ops import chunked, reference
from slotssm.ops.cpu import scan_operator
from slotssm.ops.cpu.availability import compile_failure
from slotssm.ops.external import mamba_ssm
from slotssm.ops.operators.constants import constant_when_compiled
from slotssm.ops.operators.dtypes import state_dtype
from slotssm.ops.triton import availability as triton_availability
from slotssm.ops.triton import scan_operator as triton_scan_operator

_log = logging.getLogger("slotssm.ops")


class Case(NamedTuple):
    """What decides whether a backend can serve a call.

    Attributes:
        device: type of the device, `cpu` or `cuda` for instance.
        dtype: `float32` or `float64`, in which the state is kept.
        resumed: whether the scan starts from a given state.
    """

    device: str
    dtype: str
    resumed: bool


class Backend(NamedTuple):
    """One implementation of `selective_scan`.

    Attributes:
        scan: takes x, dt, A, B, C, D, z, delta_bias, delta_softplus and initial_state as `selective_scan` got them;
            returns y and the last state.
        refusal: why the backend cannot serve a case on this machine, with a remedy; None if it can.
    """

    scan: Callable[..., tuple[Tensor, Tensor]]
    refusal: Callable[[Case], str | None]


def step_sizes(dt: Tensor, delta_bias: Tensor | None, delta_softplus: bool) -> Tensor:
    """Δ from dt: bias and softplus."""
    if delta_bias is not None:
        dt = dt + delta_bias.to(dt.dtype)
    return F.softplus(dt) if delta_softplus else dt


def skip_and_gate(y: Tensor, x: Tensor, D: Tensor | None, z: Tensor | None) -> Tensor:
    """The skip connection from x, then the gate z."""
    if D is not None:
        y = y + D.to(y.dtype) * x
    return y if z is None else y * F.silu(z.to(y.dtype))


# --- plain torch ----------------------------------------------------------------------------------------


def _around_recurrence(
    recurrence: Callable[..., tuple[Tensor, Tensor]],
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    initial_state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The scan from a function that computes the recurrence, without what comes before and after it."""
    if initial_state is None:
        initial_state = x.new_zeros(x.shape[0], *A.shape)
    inputs, dt, A, B, C, state = (t.to(state_dtype(x)) for t in (x, dt, A, B, C, initial_state))
    y, final = recurrence(inputs, step_sizes(dt, delta_bias, delta_softplus), A, B, C, state)
    return skip_and_gate(y, inputs, D, z), final


def _reference(*arguments: Any) -> tuple[Tensor, Tensor]:
    return _around_recurrence(reference.scan, *arguments)


def _chunked(*arguments: Any) -> tuple[Tensor, Tensor]:
    return _around_recurrence(chunked.scan, *arguments)


# --- where each can serve ---------------------------------------------------------------------------------


def _fused_refusal(case: Case) -> str | None:
    if case.device != "cpu":
        return f"runs on the CPU, and the input is on {case.device}; use backend='auto'"
    if reason := compile_failure(case.dtype):
        return f"cannot be compiled here ({reason}); use backend='auto' or 'chunked'"
    return None


def _triton_refusal(case: Case) -> str | None:
    return triton_availability.refusal(case.device, case.dtype, _reference)


def _mamba_ssm_refusal(case: Case) -> str | None:
    if case.device != "cuda" or not mamba_ssm.is_installed():
        return "needs inputs on CUDA and the package mamba-ssm; use backend='auto'"
    if case.resumed:
        return "takes no initial_state; use backend='auto' or 'chunked'"
    if case.dtype == "float64":
        return "does not compute in float64; use backend='auto' or 'chunked'"
    return None


def _never(case: Case) -> str | None:
    return None


BACKENDS = {
    "fused": Backend(scan_operator.selective_scan, _fused_refusal),
    "triton": Backend(triton_scan_operator.selective_scan, _triton_refusal),
    "mamba_ssm": Backend(mamba_ssm.selective_scan, _mamba_ssm_refusal),
    "chunked": Backend(_chunked, _never),
    "reference": Backend(_reference, _never),
}
"""Backends by name: `auto` takes the first that can serve, the fastest on each device."""

_automatic: dict[Case, str] = {}


@constant_when_compiled
def choose(backend: str, device: str, dtype: str, resumed: bool) -> str:
    """The backend that serves a case: the named one, or for `auto` the fastest, which is logged once.

    Raises:
        InputError: an unknown backend, or one that cannot serve.
    """
    case = Case(device, dtype, resumed)
    if backend == "auto":
        if case not in _automatic:
            _automatic[case] = next(name for name, entry in BACKENDS.items() if not entry.refusal(case))
            _log.debug("backend 'auto' takes %r for %s on %s", _automatic[case], dtype, device)
        return _automatic[case]
    if backend not in BACKENDS:
        raise InputError(f"backend {backend!r} is not one of auto, {', '.join(BACKENDS)}")
    if reason := BACKENDS[backend].refusal(case):
        raise InputError(f"backend {backend!r} {reason}")
    return backend
