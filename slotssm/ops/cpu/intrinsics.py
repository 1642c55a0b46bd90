"""Between numba and `lanes`: vector code for kernels, aligned memory, compilation for all sizes."""

import functools
import hashlib
import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.caching import FunctionCache
from numba.extending import intrinsic

from slotssm.ops.lanes import Array, Index, Lanes

_LINE_BYTES = 64
_log = logging.getLogger("slotssm.ops")


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
    dispatcher = numba.njit(nogil=True, error_model="numpy")(kernel)
    try:
        dispatcher._cache = _Cache(kernel)
    except RuntimeError:
        _log.debug("no writable place to cache compiled kernels; every process compiles its own")
    dispatcher.compile(signature)
    dispatcher.disable_compile()
    return dispatcher


class _Cache(FunctionCache):
    """numba's cache on disk, which by itself only sees changes of the file that a kernel stands in."""

    def _index_key(self, signature: Any, codegen: Any) -> tuple[Any, ...]:
        return (*super()._index_key(signature, codegen), _sources())

    def save_overload(self, signature: Any, data: Any) -> None:
        try:
            super().save_overload(signature, data)
        except OSError as error:
            _log.debug("a compiled kernel could not be cached: %s", error)


@functools.cache
def _sources() -> str:
    """A digest of the files that kernels are made of."""
    room = Path(__file__).parent
    files = [room / f"{name}.py" for name in ("lanes", "bridge", "blocks", "sizes", "scan_loops")]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files if file.exists())).hexdigest()
