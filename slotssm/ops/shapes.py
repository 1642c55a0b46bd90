"""Checks of shapes: broadcasting would hide a mismatch, and kernels would read beyond an array."""

from collections.abc import Mapping

from torch import Tensor

from slotssm.errors import InputError


def require_shapes(x: Tensor, expected: Mapping[str, tuple[Tensor | None, tuple[int, ...]]]) -> None:
    """Compare named tensors with the shapes that x requires; None stands for an argument that was left out.

    Raises:
        InputError: a shape that differs; the first one is named.
    """
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise InputError(f"{name} has shape {tuple(tensor.shape)}, but x {tuple(x.shape)} needs {shape}")
