"""Functions whose results are constants to `torch.compile`."""

from collections.abc import Callable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


def constant_when_compiled(function: Function) -> Function:
    """Mark a function for `torch.compile`, which then calls it once instead of tracing it.

    The same as `torch.compiler.assume_constant_result`, which would load torch's compiler at import: a second or more
    for everyone who compiles nothing.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
