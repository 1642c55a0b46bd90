"""Activation checkpointing: recompute the activations of part of a model in the backward pass."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def switch_checkpointing(task: nn.Module, on: bool) -> None:
    """Set `checkpoint_activations` of every module inside that has it."""
    for module in task.modules():
        if hasattr(module, "checkpoint_activations"):
            module.checkpoint_activations = on  # type: ignore[assignment]


def checkpointed(module: nn.Module, function: Callable[..., Any], *inputs: Any) -> Any:
    """`function(*inputs)`, recomputed in the backward pass if `module` is training with `checkpoint_activations`.

    Outputs and gradients are the same either way, even with dropout, whose random numbers are drawn again from the
    same generator state. Only the inputs are kept in memory.

    Args:
        module: the module whose attributes `checkpoint_activations` and `training` decide.
        function: the function to compute.
        inputs: its arguments.
    """
    if module.checkpoint_activations and module.training and torch.is_grad_enabled():
        return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=True)
    return function(*inputs)
