"""Between torch, numba and `lanes`: tensors as arrays, vector code for kernels, compilation for all sizes."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from torch import Tensor

from slotssm.ops.lanes import Array, Index, Lanes

BLOCK_CHANNELS = 128
"""Most channels of a task: their rows of a chunk stay in the second-level cache."""
_LINE_BYTES = 64


def vectorised(emit: Callable[..., None], **fixed: Any) -> Any:
    """Make `emit(lanes, *arguments, **fixed)` callable from a kernel.

    Arrays arrive as `Array`, integers as `Index`, flags as LLVM values, named tuples as named tuples of these; the
    type of the first array is the type of the lanes.
    """

    def typed(typing_context: Any, *arguments: Any) -> Any:
        parts = [part for kind in arguments for part in (kind if isinstance(kind, types.BaseNamedTuple) else [kind])]  # type: ignore[attr-defined]
        number = next(part.dtype for part in parts if isinstance(part, types.Array))

        def generate(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
            lanes = Lanes(builder, number)

            def unpack(kind: Any, value: ir.Value) -> Any:
                if isinstance(kind, types.BaseNamedTuple):  # type: ignore[attr-defined]
                    return kind.instance_class(*map(unpack, kind.types, cgutils.unpack_tuple(builder, value)))
                if isinstance(kind, types.Array):
                    array = context.make_array(kind)(context, builder, value)
                    length = Index(builder, builder.extract_value(array.shape, 0))
                    return Array(lanes, array.data, cgutils.unpack_tuple(builder, array.strides), length)
                return Index(builder, value) if isinstance(kind, types.Integer) else value

            emit(lanes, *map(unpack, signature.args, values), **fixed)
            return context.get_dummy_value()

        return types.void(*map(types.unliteral, arguments)), generate  # type: ignore[attr-defined]

    own = [parameter for parameter in inspect.signature(emit).parameters.values() if parameter.name not in fixed]
    context = own[0].replace(name="typing_context")
    typed.__name__ = emit.__name__
    # numba reads the names of the arguments from here
    typed.__signature__ = inspect.Signature([context, *own[1:]])  # type: ignore[attr-defined]
    return intrinsic(typed)


@numba.njit
def aligned(count: int, like: np.ndarray) -> np.ndarray:
    """Zeros of the type of `like` that start at a cache line, so that no register lies across two."""
    spare = _LINE_BYTES // like.itemsize
    memory = np.zeros(count + spare, like.dtype)
    skipped = (-memory.ctypes.data % _LINE_BYTES) // like.itemsize
    return memory[skipped : skipped + count]


@functools.cache
def compiled(kernel: Callable[..., None], integers: int, flags: int, ranks: tuple[int, ...], dtype: str) -> Any:
    """A kernel for float32 or float64, from the cache on disk if it was compiled before.

    Its arguments are so many integers, so many flags and arrays of these ranks. One version serves all sizes and
    strides: arrays are declared as arbitrarily strided.
    """
    number = getattr(types, dtype)
    arrays = (types.Array(number, rank, "A") for rank in ranks)
    signature = types.void(*integers * (types.int64,), *flags * (types.boolean,), *arrays)
    return numba.njit(signature, cache=True, nogil=True, error_model="numpy")(kernel)


def name_of(dtype: torch.dtype) -> str:
    """The name that numba knows a dtype by."""
    return str(dtype).removeprefix("torch.")


def as_array(tensor: Tensor) -> np.ndarray:
    """The tensor's memory; copied only if its last axis is not contiguous."""
    tensor = tensor.detach()
    return (tensor if tensor.stride(-1) == 1 else tensor.contiguous()).numpy()


def tasks_of(x: Tensor) -> tuple[int, int]:
    """Number of tasks for x, [B, L, E], and channels of each; few sequences are cut finer, for the sake of threads."""
    batch, _, num_channels = x.shape
    widest = BLOCK_CHANNELS if batch >= 8 else BLOCK_CHANNELS // 4
    num_blocks = max(1, -(-num_channels // widest))
    # whole vectors of any processor
    block_channels = max(16, -(-num_channels // (16 * num_blocks)) * 16)
    return batch * -(-num_channels // block_channels), block_channels
