"""Functions that numba's compiled functions can call: vector code, memory for its registers, and rounding to zero."""

import inspect
import platform
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir

# Private API of numba, checked with 0.62 to 0.68: `cgutils`, the representation of arrays (`make_array`), and the
# layout of named tuples (`BaseNamedTuple.instance_class`). `intrinsic` itself is public.
from numba.core import cgutils, types
from numba.extending import intrinsic

from slotssm.ops.cpu.codegen.simd import Array, Index, VectorBuilder

_CACHE_LINE_BYTES = 64
_I32 = ir.IntType(32)
_X86 = platform.machine().lower() in ("x86_64", "amd64")
_FLUSH = 0x8040
"""Bits of x86's MXCSR: results below the smallest normal number are zero (bit 15), and operands too (bit 6)."""


def vector_intrinsic(emit: Callable[..., None], **fixed: Any) -> Any:
    """Make `emit(builder, *arguments, **fixed)` callable from a compiled function.

    `emit` runs once, while numba compiles, and emits instructions through a `VectorBuilder`. Arrays arrive as
    `Array`, integers as `Index`, flags as LLVM values, and named tuples as named tuples of these; the first array
    decides the floating-point type of the vectors.
    """

    def typed(typing_context: Any, *arguments: Any) -> Any:
        parts = [part for kind in arguments for part in (kind if isinstance(kind, types.BaseNamedTuple) else [kind])]  # type: ignore[attr-defined]
        number = next(part.dtype for part in parts if isinstance(part, types.Array))

        def generate(context: Any, ir_builder: ir.IRBuilder, signature: Any, values: Any) -> Any:
            builder = VectorBuilder(ir_builder, number)

            def unpack(kind: Any, value: ir.Value) -> Any:
                if isinstance(kind, types.BaseNamedTuple):  # type: ignore[attr-defined]
                    return kind.instance_class(*map(unpack, kind.types, cgutils.unpack_tuple(ir_builder, value)))
                if isinstance(kind, types.Array):
                    array = context.make_array(kind)(context, ir_builder, value)
                    length = Index(ir_builder, ir_builder.extract_value(array.shape, 0))
                    return Array(builder, array.data, cgutils.unpack_tuple(ir_builder, array.strides), length)
                return Index(ir_builder, value) if isinstance(kind, types.Integer) else value

            emit(builder, *map(unpack, signature.args, values), **fixed)
            return context.get_dummy_value()

        return types.void(*map(types.unliteral, arguments)), generate  # type: ignore[attr-defined]

    own = [parameter for parameter in inspect.signature(emit).parameters.values() if parameter.name not in fixed]
    context = own[0].replace(name="typing_context")
    typed.__name__ = emit.__name__
    # numba reads the names of the arguments from here
    typed.__signature__ = inspect.Signature([context, *own[1:]])  # type: ignore[attr-defined]
    return intrinsic(typed)


@numba.njit
def aligned_zeros(count: int, like: np.ndarray) -> np.ndarray:
    """Zeros of the dtype of `like` that start at a cache line, so that no register straddles two lines."""
    spare = _CACHE_LINE_BYTES // like.itemsize
    memory = np.zeros(count + spare, like.dtype)
    skipped = (-memory.ctypes.data % _CACHE_LINE_BYTES) // like.itemsize
    return memory[skipped : skipped + count]


@intrinsic
def flush_denormals(typing_context: Any) -> Any:
    """Have the calling thread take numbers below the smallest normal one as zero; returns its mode before.

    Gradients of a distant output decay with every step of the scan into that range, where x86 processors take some
    hundred cycles for a number. Other processors are left as they are.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        if not _X86:
            return ir.Constant(_I32, 0)
        slot = cgutils.alloca_once(builder, _I32)
        _call_mxcsr(builder, "stmxcsr", slot)
        before = builder.load(slot)
        builder.store(builder.or_(before, ir.Constant(_I32, _FLUSH)), slot)
        _call_mxcsr(builder, "ldmxcsr", slot)
        return before

    return types.uint32(), generate


@intrinsic
def restore_mode(typing_context: Any, mode: Any) -> Any:
    """Give the calling thread the mode back that `flush_denormals` returned."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, values: Any) -> ir.Value:
        if _X86:
            slot = cgutils.alloca_once(builder, _I32)
            builder.store(values[0], slot)
            _call_mxcsr(builder, "ldmxcsr", slot)
        return context.get_dummy_value()

    return types.void(types.uint32), generate


def _call_mxcsr(builder: ir.IRBuilder, name: str, slot: ir.Value) -> None:
    """Read or write the thread's control register of floating-point arithmetic from or to memory."""
    kind = ir.FunctionType(ir.VoidType(), [slot.type])
    builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.sse.{name}"), [slot])
