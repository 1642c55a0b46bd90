"""The selective scan of Mamba: a linear recurrence whose coefficients depend on the input."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from slotssm.errors import InputError
from slotssm.ops import reference

BACKENDS = ("auto", "reference", "fused")


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
        backend: `reference` (loop, any device), `fused` (numba on the CPU) or `auto`.

    Returns:
        y in the dtype of x, and the final state if asked for.

    Raises:
        InputError: unknown backend, `fused` on another device than the CPU, or shapes that do not fit together.
    """
    _check_shapes(x, dt, A, B, C, z, initial_state)
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    inputs, delta = x.to(dtype), dt.to(dtype)
    if delta_bias is not None:
        delta = delta + delta_bias.to(dtype)
    if delta_softplus:
        delta = F.softplus(delta)
    if initial_state is None:
        initial_state = inputs.new_zeros(x.shape[0], x.shape[2], A.shape[1])
    scan = _scan_of(backend, x.device)
    y, final = scan(inputs, delta, A.to(dtype), B.to(dtype), C.to(dtype), initial_state.to(dtype))
    y = _finish(y, inputs, D, z).to(x.dtype)
    return (y, final) if return_final_state else y


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
    inputs, delta = x.to(state.dtype), dt.to(state.dtype)
    if delta_bias is not None:
        delta = delta + delta_bias.to(state.dtype)
    if delta_softplus:
        delta = F.softplus(delta)
    state, y = reference.step(state, inputs, delta, A.to(state.dtype), B.to(state.dtype), C.to(state.dtype))
    return _finish(y, inputs, D, z).to(x.dtype), state


def _check_shapes(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, z: Tensor | None, initial_state: Tensor | None
) -> None:
    """The kernels do not check bounds: arrays that are too small would be read beyond their end."""
    batch, steps, channels = x.shape
    states = A.shape[-1]
    expected = {
        "dt": (dt, (batch, steps, channels)),
        "A": (A, (channels, states)),
        "B": (B, (batch, steps, states)),
        "C": (C, (batch, steps, states)),
        "z": (z, (batch, steps, channels)),
        "initial_state": (initial_state, (batch, channels, states)),
    }
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise InputError(f"{name} has shape {tuple(tensor.shape)}, but x {tuple(x.shape)} needs {shape}")


def _finish(y: Tensor, x: Tensor, D: Tensor | None, z: Tensor | None) -> Tensor:
    """Skip connection and gate."""
    if D is not None:
        y = y + D.to(y.dtype) * x
    return y if z is None else y * F.silu(z.to(y.dtype))


def _scan_of(backend: str, device: torch.device):  # type: ignore[no-untyped-def]  # noqa: ANN202
    if backend not in BACKENDS:
        raise InputError(f"backend {backend!r} is not one of {', '.join(BACKENDS)}")
    if backend == "auto":
        backend = "fused" if device.type == "cpu" else "reference"
    if backend == "reference":
        return reference.scan
    if device.type != "cpu":
        raise InputError(f"backend 'fused' runs on the CPU, and the input is on {device}; use backend='auto'")
    from slotssm.ops import fused  # numba is loaded only where it is used

    return fused.scan
