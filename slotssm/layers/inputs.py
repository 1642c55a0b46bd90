"""Checks of the inputs of layers and models, with errors in words."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from slotssm.errors import InputError


def check_input(layer: nn.Module, values: Tensor, axes: str, width: int) -> None:
    """Refuse anything but floating-point values with the right number of axes, width, dtype and device.

    Args:
        layer: the layer, for its name in the message, and for the dtype and device of its parameters.
        values: the input to check.
        axes: names of all axes except the last, such as "B, L".
        width: length of the last axis.

    Raises:
        InputError: not a tensor, wrong number of axes, wrong width, a dtype that is not floating-point or not that of
            the parameters (unless autocast converts it), or another device.
    """
    name = type(layer).__name__
    if not isinstance(values, Tensor):
        raise InputError(f"{name} takes torch tensors, not {type(values).__name__}; convert it by torch.as_tensor")
    if values.ndim != axes.count(",") + 2 or values.shape[-1] != width or not values.is_floating_point():
        raise InputError(
            f"{name} takes floating-point numbers of shape [{axes}, {width}], not {_dtype(values)} of shape "
            f"{list(values.shape)}"
        )
    if torch.compiler.is_compiling():
        return
    weights = next((each for each in layer.parameters() if each.is_floating_point()), values)
    if values.device != weights.device:
        raise InputError(
            f"{name} has its parameters on {weights.device} and takes tensors there, not on {values.device}; move one "
            "of them with its method `to`"
        )
    # layers may keep some parameters in another type, such as float32 decay rates in half precision
    if values.dtype != weights.dtype and not torch.is_autocast_enabled(values.device.type):
        types = {each.dtype for each in layer.parameters()}
        if values.dtype not in types:
            raise InputError(
                f"{name} has parameters of {_dtype(weights)} and takes numbers of the same type, not {_dtype(values)}; "
                "convert one of them with its method `to`"
            )


def check_state(layer: nn.Module, state: Any, batch_size: int) -> None:
    """Refuse a state that is not one of this batch; None is accepted.

    Args:
        layer: the layer, for its name in the message.
        state: tensors with the batch first.
        batch_size: B of the input.

    Raises:
        InputError: something other than a tuple of tensors, or another batch size.
    """
    if state is None:
        return
    name = type(layer).__name__
    if not isinstance(state, Sequence) or not all(isinstance(each, Tensor) for each in state):
        raise InputError(f"{name} takes the state that an earlier call returned, not {type(state).__name__}")
    found = {len(each) for each in state} - {batch_size}
    if found:
        raise InputError(f"{name} takes a state for the {batch_size} sequences of its input, not for {found.pop()}")


def check_sizes(layer: nn.Module, **sizes: int) -> None:
    """Refuse sizes, such as widths, that are not positive."""
    for name, size in sizes.items():
        if size < 1:
            raise InputError(f"{type(layer).__name__} needs {name} of at least 1, not {size}")


def _dtype(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")
