"""Compiled steps: `torch.compile` of one step of a recurrence, which the loop over the steps calls.

A step of a recurrent layer is a dozen small operations, each a kernel of its own on a GPU. Compiling the whole loop
would unroll it, which takes the longer the more steps there are; one step is the same for all lengths.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

BACKEND = "inductor"
"""The backend of `torch.compile`."""


def switch_compiled_steps(task: nn.Module, on: bool) -> None:
    """Set `compile_steps` of every module inside that has it."""
    for module in task.modules():
        if hasattr(module, "compile_steps"):
            module.compile_steps = on  # type: ignore[assignment]


def step_of(module: nn.Module, method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of a module that computes one step, compiled if the module has `compile_steps` on.

    Results are the same except for rounding and for what dropout draws. Modules of one class share the compiled code of
    one size.

    Args:
        module: the module whose attribute decides.
        method: its method.
    """
    if not module.compile_steps:
        return method
    compiled = _compiled(type(module), method.__name__, BACKEND)  # type: ignore[arg-type] # a class is hashable
    return functools.partial(compiled, module)


@functools.cache
def _compiled(kind: type[nn.Module], name: str, backend: str) -> Callable[..., Any]:
    compiled: Callable[..., Any] = torch.compile(getattr(kind, name), backend=backend)
    return compiled
