"""The selective scan of Mamba: a linear recurrence whose coefficients depend on the input."""

import logging

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from slotssm.errors import InputError
from slotssm.ops import chunked, fused_scan, mamba_ssm, reference
from slotssm.ops.availability import compile_failure, has_mamba_ssm
from slotssm.ops.shapes import require_shapes
from slotssm.ops.sizes import name_of

BACKENDS = ("auto", "reference", "chunked", "fused", "mamba_ssm")

_log = logging.getLogger("slotssm.ops")


def selective_scan(
    x: Float[Tensor, "B L E"],
    dt: Float[Tensor, "B L E"],
    A: Float[Tensor, "E N"],
    B: Float[Tensor, "B L N"],
    C: Float[Tensor, "B L N"],
    D: Float[Tensor, " E"] | None = None,
    z: Float[Tensor, "B L E"] | None = None,
    delta_bias: Float[Tensor, " E"] | None = None,
    delta_softplus: bool = False,
    initial_state: Float[Tensor, "B E N"] | None = None,
    return_final_state: bool = False,
    backend: str = "auto",
) -> Float[Tensor, "B L E"] | tuple[Float[Tensor, "B L E"], Float[Tensor, "B E N"]]:
    """Run h_t = exp(Δ_t A) h_{t-1} + Δ_t B_t x_t, y_t = C_t h_t + D x_t over a sequence (Mamba, eq. 2 and 4).

    B is discretised by Euler's rule, as in `mamba_ssm`, not by exact zero-order hold. Time is the second axis
    here; `mamba_ssm` has it last. The state is kept in float32 (float64 for float64 inputs).

    Args:
        x: input.
        dt: step sizes before bias and softplus.
        A: continuous-time decay, negative.
        B: input map of each step.
        C: output map of each step.
        D: skip connection; None leaves it out.
        z: gate; the output is multiplied by SiLU(z).
        delta_bias: added to dt.
        delta_softplus: whether Δ = softplus(dt + delta_bias).
        initial_state: h before the first step; zeros by default. Gradients flow into it.
        return_final_state: also return h after the last step; gradients flow through it.
        backend: `reference` (loop), `chunked` (torch operators, bounded memory), `fused` (numba, CPU only) or
            `mamba_ssm` (that package's CUDA kernel; no initial state, no gradient through the final one).
            `auto` takes `fused` on the CPU, `mamba_ssm` where it is installed and can serve, else `chunked`.

    Returns:
        y in the dtype of x, and the final state if asked for.

    Raises:
        InputError: an unknown backend or one that cannot serve here, or shapes that do not fit together.
    """
    _check_shapes(x, dt, A, B, C, D, z, delta_bias, initial_state)
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    backend = _chosen(backend, x.device.type, name_of(dtype), initial_state is not None)
    if backend == "mamba_ssm":
        y, final = mamba_ssm.scan(x, dt, A, B, C, D, z, delta_bias, delta_softplus)
        return (y, final) if return_final_state else y
    inputs, sizes, A, B, C = (tensor.to(dtype) for tensor in (x, dt, A, B, C))
    if initial_state is None:
        initial_state = inputs.new_zeros(x.shape[0], *A.shape)
    initial_state = initial_state.to(dtype)
    if backend == "fused":
        skip, bias = (inputs.new_zeros(x.shape[2]) if t is None else t.to(dtype) for t in (D, delta_bias))
        gate = None if z is None else z.to(dtype)
        y, final = fused_scan.scan(inputs, sizes, A, B, C, skip, gate, bias, delta_softplus, initial_state)
    else:
        scan = reference.scan if backend == "reference" else chunked.scan
        y, final = scan(inputs, _step_sizes(sizes, delta_bias, delta_softplus), A, B, C, initial_state)
        y = _finish(y, inputs, D, z)
    return (y.to(x.dtype), final) if return_final_state else y.to(x.dtype)


def selective_scan_step(
    state: Float[Tensor, "B E N"],
    x: Float[Tensor, "B E"],
    dt: Float[Tensor, "B E"],
    A: Float[Tensor, "E N"],
    B: Float[Tensor, "B N"],
    C: Float[Tensor, "B N"],
    D: Float[Tensor, " E"] | None = None,
    z: Float[Tensor, "B E"] | None = None,
    delta_bias: Float[Tensor, " E"] | None = None,
    delta_softplus: bool = False,
) -> tuple[Float[Tensor, "B E"], Float[Tensor, "B E N"]]:
    """One step of `selective_scan`; returns the output and the new state."""
    inputs = x.to(state.dtype)
    delta = _step_sizes(dt.to(state.dtype), delta_bias, delta_softplus)
    state, y = reference.step(state, inputs, delta, A.to(state.dtype), B.to(state.dtype), C.to(state.dtype))
    return _finish(y, inputs, D, z).to(x.dtype), state


def _step_sizes(dt: Tensor, delta_bias: Tensor | None, delta_softplus: bool) -> Tensor:
    if delta_bias is not None:
        dt = dt + delta_bias.to(dt.dtype)
    return F.softplus(dt) if delta_softplus else dt


def _check_shapes(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    initial_state: Tensor | None,
) -> None:
    """The kernels do not check bounds: arrays that are too small would be read beyond their end."""
    batch, steps, channels = x.shape
    states = A.shape[-1]
    expected = {
        "dt": (dt, (batch, steps, channels)),
        "A": (A, (channels, states)),
        "B": (B, (batch, steps, states)),
        "C": (C, (batch, steps, states)),
        "D": (D, (channels,)),
        "z": (z, (batch, steps, channels)),
        "delta_bias": (delta_bias, (channels,)),
        "initial_state": (initial_state, (batch, channels, states)),
    }
    require_shapes(x, expected)


def _finish(y: Tensor, x: Tensor, D: Tensor | None, z: Tensor | None) -> Tensor:
    """Skip connection and gate."""
    if D is not None:
        y = y + D.to(y.dtype) * x
    return y if z is None else y * F.silu(z.to(y.dtype))


_automatic: dict[tuple[str, str, bool], str] = {}


# a constant to torch.compile
@torch.compiler.assume_constant_result
def _chosen(backend: str, device: str, dtype: str, resumed: bool) -> str:
    """The backend that runs: `auto` takes the fastest that serves, and says once which."""
    if backend not in BACKENDS:
        raise InputError(f"backend {backend!r} is not one of {', '.join(BACKENDS)}")
    if backend == "fused" and device != "cpu":
        raise InputError(f"backend 'fused' runs on the CPU, and the input is on {device}; use backend='auto'")
    if backend == "fused" and (reason := compile_failure(dtype)):
        raise InputError(f"backend 'fused' cannot be compiled here ({reason}); use backend='auto' or 'chunked'")
    if backend == "mamba_ssm" and (device != "cuda" or not has_mamba_ssm()):
        raise InputError("backend 'mamba_ssm' needs inputs on CUDA and the package mamba-ssm; use backend='auto'")
    if backend == "mamba_ssm" and resumed:
        raise InputError("backend 'mamba_ssm' takes no initial_state; use backend='auto' or 'chunked'")
    if backend != "auto":
        return backend
    case = device, dtype, resumed
    if case not in _automatic:
        _automatic[case] = _fastest(*case)
        _log.debug("backend 'auto' takes %r for %s on %s", _automatic[case], dtype, device)
    return _automatic[case]


def _fastest(device: str, dtype: str, resumed: bool) -> str:
    if device == "cuda" and not resumed and dtype != "float64" and has_mamba_ssm():
        return "mamba_ssm"
    return "fused" if device == "cpu" and not compile_failure(dtype) else "chunked"
