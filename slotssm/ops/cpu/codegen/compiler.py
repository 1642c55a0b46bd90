"""Compilation of the kernels for all sizes and strides, ahead of their first call, with a cache on disk."""

import functools
import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba.core import types

from slotssm.compilation import cached_njit
from slotssm.ops.cpu.codegen.simd import VECTOR_BYTES


@functools.cache
def compile_kernel(kernel: Callable[..., None], ranks: tuple[int, ...], dtype: str) -> Any:
    """Compile a kernel for float32 or float64, or load it from the cache.

    One version serves all sizes and strides, since arrays are declared as arbitrarily strided. The compiled kernel
    refuses other types instead of compiling a further version.

    Args:
        kernel: its parameters are annotated as `int`, `bool` or `np.ndarray`.
        ranks: number of axes of each array, in the order of the parameters.
        dtype: `float32` or `float64`, of all arrays.
    """
    number, remaining_ranks = getattr(types, dtype), iter(ranks)
    scalars = {int: types.int64, bool: types.boolean}
    parameters = [
        scalars[parameter.annotation]
        if parameter.annotation in scalars
        else types.Array(number, next(remaining_ranks), "A")
        for parameter in inspect.signature(kernel).parameters.values()
    ]
    # numba's cache by itself sees changes of the kernel's own file only
    dispatcher = cached_njit((_source_digest(), VECTOR_BYTES), nogil=True, error_model="numpy")(kernel)
    dispatcher.compile(types.void(*parameters))
    dispatcher.disable_compile()
    return dispatcher


@functools.cache
def _source_digest() -> str:
    """A digest of the source files of `slotssm.ops.cpu`, which all kernels are built from."""
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
