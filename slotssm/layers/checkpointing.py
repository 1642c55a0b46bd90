"""Activation checkpointing: what a part of a model computes inside is not stored but computed again when needed."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpointed(module: nn.Module, function: Callable[..., Any], *inputs: Any) -> Any:
    """`function(*inputs)`, computed again in the backward pass if `module` trains with `checkpoint_activations`.

    Outputs and gradients are the same either way, also those of dropout, whose random numbers are drawn again from
    the same generator state. Of the intermediate results only the inputs stay in memory.

    Args:
        module: asked for its attributes `checkpoint_activations` and `training`.
        function: what to compute.
        inputs: its arguments.
    """
    if module.checkpoint_activations and module.training and torch.is_grad_enabled():
        return checkpoint(function, *inputs, use_reentrant=False, preserve_rng_state=True)
    return function(*inputs)
