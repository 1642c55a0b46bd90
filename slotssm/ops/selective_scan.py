"""The selective scan of Mamba: a linear recurrence whose coefficients depend on the input."""

from jaxtyping import Float
from torch import Tensor

from slotssm.ops import reference
from slotssm.ops.backends import BACKENDS, choose, skip_and_gate, step_sizes
from slotssm.ops.operators.dtypes import dtype_name, state_dtype
from slotssm.ops.shapes import require_shapes


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
            `triton` (kernels for CUDA) or `mamba_ssm` (that package's CUDA kernel; no float64, no initial state, no
            gradient through the final one). `auto` takes the first that can serve of `fused` on the CPU, and on CUDA
            `triton` where it is installed and agrees with `reference` in a trial, `mamba_ssm`, and `chunked`.

    Returns:
        y in the dtype of x, and the final state if asked for.

    Raises:
        InputError: an unknown backend or one that cannot serve here, or shapes that do not match.
    """
    _check_shapes(x, dt, A, B, C, D, z, delta_bias, initial_state)
    name = choose(backend, x.device.type, dtype_name(state_dtype(x)), initial_state is not None)
    y, final = BACKENDS[name].scan(x, dt, A, B, C, D, z, delta_bias, delta_softplus, initial_state)
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
    delta = step_sizes(dt.to(state.dtype), delta_bias, delta_softplus)
    state, y = reference.step(state, inputs, delta, A.to(state.dtype), B.to(state.dtype), C.to(state.dtype))
    return skip_and_gate(y, inputs, D, z).to(x.dtype), state


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
    """Refuse shapes that do not match: the kernels do not check bounds, and would read beyond an array."""
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
