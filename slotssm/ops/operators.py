"""What is common to operators that carry their own first derivative."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from slotssm.errors import SlotSSMError


def once(operator: Callable[..., tuple[Tensor, ...]], *inputs: Any) -> tuple[Tensor, ...]:
    """Call an operator that computes a first derivative; differentiating it again is an error rather than zero."""
    # a compiler has no second derivatives anyway, and cannot trace a function within a function's gradient
    return operator(*inputs) if torch.compiler.is_compiling() else _Once.apply(operator, *inputs)


class _Once(torch.autograd.Function):
    """The operator with a gradient that refuses."""

    @staticmethod
    def forward(operator: Callable[..., tuple[Tensor, ...]], *inputs: Any) -> tuple[Tensor, ...]:
        return operator(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.name = str(inputs[0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> None:
        raise SlotSSMError(f"{ctx.name} has no further derivative; selective_scan(backend='reference') has")
