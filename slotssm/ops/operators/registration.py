"""Kernels as torch operators: the one place that registers schemas, shapes and gradients.

An operator that is registered with torch works in `torch.compile` and `torch.export`, under autocast and
checkpointing, and its gradient is an operator as well. All operators here have a first derivative only.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from slotssm.errors import SlotSSMError


class Computation(NamedTuple):
    """One operator.

    Attributes:
        schema: arguments and results as torch writes them, `(Tensor x, bool flag) -> (Tensor, Tensor)`.
        compute: computes the results.
        allocate: takes the same arguments and returns empty tensors of the shapes, dtypes and strides of the results.
    """

    schema: str
    compute: Callable[..., Any]
    allocate: Callable[..., Any]


class DifferentiableOperator:
    """A torch operator `slotssm::NAME`, whose gradient is the operator `slotssm::NAME_backward`.

    Args:
        name: of the operator.
        forward: computes the results.
        backward: computes gradients.
        save: takes torch's context, the inputs and the outputs, and saves what `differentiate` needs.
        differentiate: takes torch's context, the backward operator and the gradient of each output, and returns the
            gradient of each input.
        dispatch_key: devices that the operators run on, as torch's name of a dispatch key.
        twice_differentiable: what to use for second derivatives, if there is anything.

    Attributes:
        forward: the operator as torch registered it.
        backward: its gradient.
    """

    def __init__(
        self,
        name: str,
        forward: Computation,
        backward: Computation,
        save: Callable[[Any, tuple[Any, ...], Any], None],
        differentiate: Callable[..., Any],
        dispatch_key: str,
        twice_differentiable: str | None = None,
    ) -> None:
        self.forward = _register(f"slotssm::{name}", forward, dispatch_key)
        self.backward = _register(f"slotssm::{name}_backward", backward, dispatch_key)
        operator, gradient = self.forward, self.backward

        def backward_operator(*inputs: Any) -> Any:
            return _differentiable_once(gradient, twice_differentiable, *inputs)

        def backward_rule(ctx: Any, *gradients: Tensor | None) -> Any:
            return differentiate(ctx, backward_operator, *gradients)

        torch.library.register_autograd(f"slotssm::{name}", backward_rule, setup_context=save)

        # torch.func refuses gradients that are registered in torch.library (pytorch#170834)
        class Function(torch.autograd.Function):
            @staticmethod
            def forward(*inputs: Any) -> Any:
                return operator(*inputs)

            setup_context = staticmethod(save)  # type: ignore[assignment]
            backward = staticmethod(backward_rule)

        self._function = Function

    def __call__(self, *inputs: Any) -> Any:
        """Compute the results, differentiably."""
        # a compiler knows the gradient of the operator, and cannot trace a function without gradients
        if torch.compiler.is_compiling():
            return self.forward(*inputs)
        return self._function.apply(*inputs)


def _register(name: str, computation: Computation, dispatch_key: str) -> Any:
    # by schema: torch's decorator for operators loads torch's compiler at the first call, which takes seconds
    torch.library.define(name, computation.schema)
    torch.library.impl(name, dispatch_key)(computation.compute)
    torch.library.register_fake(name)(computation.allocate)
    return getattr(torch.ops.slotssm, name.removeprefix("slotssm::")).default


def _differentiable_once(operator: Callable[..., Any], alternative: str | None, *inputs: Any) -> Any:
    """Call an operator that computes a first derivative; the second is an error rather than zero."""
    # a compiler takes no second derivatives, and cannot trace a function within the gradient of another
    if torch.compiler.is_compiling():
        return operator(*inputs)
    return _FirstDerivative.apply(operator, alternative, *inputs)


class _FirstDerivative(torch.autograd.Function):
    """An operator whose gradient is refused."""

    @staticmethod
    def forward(operator: Callable[..., Any], alternative: str | None, *inputs: Any) -> Any:
        return operator(*inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        operator, alternative = inputs[:2]
        ctx.message = f"{operator} has no further derivative" + (f"; {alternative} has" if alternative else "")

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> None:
        raise SlotSSMError(ctx.message)
