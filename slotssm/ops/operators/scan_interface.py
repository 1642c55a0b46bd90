"""Schemas and gradients of the selective scan and the causal convolution, the same for every kind of kernel."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from slotssm.ops.operators.registration import Computation, DifferentiableOperator

_SCAN = "Tensor x, Tensor dt, Tensor A, Tensor B, Tensor C, Tensor D, Tensor? z, Tensor delta_bias, bool softplus"
_CONVOLUTION = "Tensor x, Tensor past, Tensor weight, Tensor bias"

Kernel = tuple[Callable[..., Any], Callable[..., Any]]
"""What computes results, and what allocates empty ones."""


def scan_operator(name: str, forward: Kernel, backward: Kernel, dispatch_key: str) -> DifferentiableOperator:
    """The operator of a selective scan: outputs, final state, and states that are stored for the backward pass.

    Args:
        name: of the operator.
        forward: takes x, dt, A, B, C, D, z or None, delta_bias, softplus and the initial state.
        backward: takes the same without the initial state, then the stored states and the gradients of outputs and
            final state; without z, its gradient is empty.
        dispatch_key: devices that the operators run on.
    """
    return DifferentiableOperator(
        name,
        forward=Computation(f"({_SCAN}, Tensor initial_state) -> (Tensor, Tensor, Tensor)", *forward),
        backward=Computation(
            f"({_SCAN}, Tensor stored, Tensor grad_y, Tensor grad_final)"
            " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
            *backward,
        ),
        save=_save_scan,
        differentiate=_differentiate_scan,
        dispatch_key=dispatch_key,
        twice_differentiable="selective_scan(backend='reference')",
    )


def _save_scan(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, softplus, _ = inputs
    ctx.softplus, ctx.gated, ctx.final_shape = softplus, tensors[6] is not None, output[1].shape
    ctx.save_for_backward(*(tensor for tensor in tensors if tensor is not None), output[2])
    # materialised, the zero gradient of the stored states would be a large tensor
    ctx.set_materialize_grads(False)


def _differentiate_scan(
    ctx: Any, backward: Any, grad_y: Tensor | None, grad_final: Tensor | None, _: Tensor | None
) -> tuple[Tensor | None, ...]:
    *tensors, stored = ctx.saved_tensors
    grad_y = torch.zeros_like(tensors[0]) if grad_y is None else grad_y
    grad_final = stored.new_zeros(ctx.final_shape) if grad_final is None else grad_final
    if not ctx.gated:
        tensors.insert(6, None)
    *grads, grad_z, grad_bias, grad_state = backward(*tensors, ctx.softplus, stored, grad_y, grad_final)
    return *grads, grad_z if ctx.gated else None, grad_bias, None, grad_state


def convolution_operator(name: str, forward: Kernel, backward: Callable[..., Any], dispatch_key: str) -> Any:
    """The operator of the causal convolution with SiLU.

    Args:
        name: of the operator.
        forward: takes x, [B, L, E], the past, [B, W, E], weight and bias.
        backward: takes the same and the gradient of the outputs; computes the gradients of all four. That of the past
            is a tensor of its own, that of x the end of one for past and x together.
        dispatch_key: devices that the operators run on.
    """
    return DifferentiableOperator(
        name,
        forward=Computation(f"({_CONVOLUTION}) -> Tensor", *forward),
        backward=Computation(
            f"({_CONVOLUTION}, Tensor grad_y) -> (Tensor, Tensor, Tensor, Tensor)", backward, _allocate_gradients
        ),
        save=_save_convolution,
        differentiate=_differentiate_convolution,
        dispatch_key=dispatch_key,
    )


def _allocate_gradients(x: Tensor, past: Tensor, weight: Tensor, bias: Tensor, grad_y: Tensor) -> tuple[Tensor, ...]:
    batch, num_steps, num_channels = x.shape
    width = weight.shape[1]
    history = x.new_empty(batch, width - 1 + num_steps, num_channels)
    return history[:, width - 1 :], *(tensor.new_empty(tensor.shape) for tensor in (past, weight, bias))


def _save_convolution(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate_convolution(ctx: Any, backward: Any, grad_y: Tensor) -> tuple[Tensor, ...]:
    gradients: tuple[Tensor, ...] = backward(*ctx.saved_tensors, grad_y)
    return gradients
