"""SIMD vectors: arithmetic on them, memory access and loops, emitted as LLVM instructions.

numba's own loops leave the choice of vector code to LLVM's loop vectoriser, which keeps the states of the scan in
memory and reloads them at every step. The kernels instead build their innermost loops from the values of this module:
a `Vector` is one SIMD register (with AVX-512, 16 lanes of float32 or 8 of float64), overloaded operators emit one
instruction each, and a `Register` is a variable that stays in a register across the iterations of a loop.

All of this runs while numba compiles; at run time there are only the instructions.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from llvmlite import ir

# private API of numba, checked with 0.62 to 0.68: `cgutils`. LLVM's intrinsics are named for opaque pointers (`.p0`),
# which llvmlite has since 0.44
from numba.core import cgutils, types

from slotssm.compilation import target_processor

_INT = ir.IntType(64)
_I32 = ir.IntType(32)


def _vector_bytes() -> int:
    _, features = target_processor()
    enabled = {feature[1:] for feature in features.split(",") if feature.startswith("+")}
    if "avx512f" in enabled:
        return 64
    return 32 if "avx2" in enabled else 16


VECTOR_BYTES = _vector_bytes()
"""Width of a SIMD register of the processor that numba compiles for: 64 with AVX-512, 32 with AVX2, 16 otherwise."""


class Vector:
    """One SIMD register of numbers of one type."""

    def __init__(self, builder: "VectorBuilder", value: ir.Value) -> None:
        self.builder, self.value = builder, value

    def _emit(self, instruction: str, other: "Vector | float") -> "Vector":
        value = getattr(self.builder.ir, instruction)(self.value, self.builder.as_vector(other).value)
        return Vector(self.builder, value)

    def __add__(self, other: "Vector | float") -> "Vector":
        return self._emit("fadd", other)

    def __sub__(self, other: "Vector | float") -> "Vector":
        return self._emit("fsub", other)

    def __mul__(self, other: "Vector | float") -> "Vector":
        return self._emit("fmul", other)

    def __truediv__(self, other: "Vector | float") -> "Vector":
        return self._emit("fdiv", other)

    __radd__ = __add__
    __rmul__ = __mul__

    def __rsub__(self, other: float) -> "Vector":
        return self.builder.as_vector(other) - self

    def __rtruediv__(self, other: float) -> "Vector":
        return self.builder.as_vector(other) / self

    def __neg__(self) -> "Vector":
        return Vector(self.builder, self.builder.ir.fneg(self.value))

    def multiply_add(self, factor: "Vector | float", summand: "Vector | float") -> "Vector":
        """Multiply by a factor and add, in one instruction where the processor has it."""
        arguments = [self.value, self.builder.as_vector(factor).value, self.builder.as_vector(summand).value]
        return self.builder.call("llvm.fmuladd", arguments)

    def where_less(self, other: "Vector | float", then: "Vector | float", otherwise: "Vector | float") -> "Vector":
        """`then` in the lanes where self < other, `otherwise` in the others, also where one of them is NaN."""
        builder = self.builder
        less = builder.ir.fcmp_ordered("<", self.value, builder.as_vector(other).value)
        return Vector(
            builder, builder.ir.select(less, builder.as_vector(then).value, builder.as_vector(otherwise).value)
        )

    def zero_outside(self, mask: ir.Value) -> "Vector":
        """Zero in the lanes outside the mask."""
        return Vector(self.builder, self.builder.ir.select(mask, self.value, self.builder.as_vector(0.0).value))


class Register:
    """A variable that holds a vector across the iterations of a loop."""

    def __init__(self, builder: "VectorBuilder", value: Vector | float) -> None:
        self._builder = builder
        # LLVM turns the stack slot into a register
        self._slot = cgutils.alloca_once(builder.ir, builder.type)
        self.set(value)

    def get(self) -> Vector:
        """The current value."""
        return Vector(self._builder, self._builder.ir.load(self._slot))

    def set(self, value: Vector | float) -> None:
        """Replace the value."""
        self._builder.ir.store(self._builder.as_vector(value).value, self._slot)


class Index:
    """An integer that is known at run time."""

    def __init__(self, ir_builder: ir.IRBuilder, value: ir.Value) -> None:
        self._ir, self.value = ir_builder, value

    def _emit(self, instruction: str, other: "Index | int") -> "Index":
        number = other.value if isinstance(other, Index) else ir.Constant(_INT, other)
        return Index(self._ir, getattr(self._ir, instruction)(self.value, number))

    def __add__(self, other: "Index | int") -> "Index":
        return self._emit("add", other)

    def __sub__(self, other: "Index | int") -> "Index":
        return self._emit("sub", other)

    def __mul__(self, other: "Index | int") -> "Index":
        return self._emit("mul", other)

    def __floordiv__(self, other: "Index | int") -> "Index":
        return self._emit("sdiv", other)

    def is_less(self, other: "Index") -> ir.Value:
        """A flag: whether this is less than the other."""
        return self._ir.icmp_signed("<", self.value, other.value)

    def minimum(self, other: "Index") -> "Index":
        """The smaller of the two."""
        return Index(self._ir, self._ir.select(self.is_less(other), self.value, other.value))


class Array:
    """An array in memory; indexing gives the `Pointer` to a number, without a check of bounds.

    Attributes:
        length: size of the first axis.
    """

    def __init__(self, builder: "VectorBuilder", data: ir.Value, strides: list[ir.Value], length: Index) -> None:
        self._builder, self._data, self._strides, self.length = builder, data, strides, length

    def __getitem__(self, indices: "tuple[Index | int, ...]") -> "Pointer":
        offset = Index(self._builder.ir, ir.Constant(_INT, 0))
        for index, stride in zip(indices, self._strides, strict=True):
            if index != 0:
                offset = offset + Index(self._builder.ir, stride) * index
        return Pointer(self._builder, cgutils.pointer_add(self._builder.ir, self._data, offset.value))


class Pointer:
    """The address of a number in memory; offsets count numbers, not bytes."""

    def __init__(self, builder: "VectorBuilder", value: ir.Value) -> None:
        self.builder, self.value = builder, value

    def __add__(self, offset: int) -> "Pointer":
        return Pointer(self.builder, cgutils.pointer_add(self.builder.ir, self.value, offset * self.builder.bytes))

    def load(self, mask: ir.Value | None = None) -> Vector:
        """The vector that starts at this address; lanes outside the mask are not read and are zero."""
        builder = self.builder
        if mask is None:
            return Vector(builder, builder.ir.load(self._vector, align=builder.bytes))
        return builder.call_masked("load", builder.type, [self._vector], mask, [builder.as_vector(0.0).value])

    def store(self, vector: Vector, mask: ir.Value | None = None) -> None:
        """Write a vector to this address; lanes outside the mask are not written."""
        if mask is None:
            self.builder.ir.store(vector.value, self._vector, align=self.builder.bytes)
        else:
            self.builder.call_masked("store", ir.VoidType(), [vector.value, self._vector], mask, [])

    @property
    def _vector(self) -> ir.Value:
        return self.builder.ir.bitcast(self.value, self.builder.type.as_pointer())

    def prefetch(self) -> None:
        """Fetch the cache line of this address; the address may be outside the array."""
        kind = ir.FunctionType(ir.VoidType(), [self.value.type, _I32, _I32, _I32])
        function = cgutils.get_or_insert_function(self.builder.ir.module, kind, "llvm.prefetch.p0")
        self.builder.ir.call(function, [self.value, *(ir.Constant(_I32, flag) for flag in (0, 3, 1))])

    def broadcast(self) -> Vector:
        """The number at this address, in every lane."""
        number = self.builder.ir.load(self.value, align=self.builder.bytes)
        return self.builder.broadcast(number)


class VectorBuilder:
    """Emits vector code for one floating-point type.

    Args:
        ir_builder: where the instructions are inserted.
        number: numba's float32 or float64.
    """

    def __init__(self, ir_builder: ir.IRBuilder, number: types.Float) -> None:
        self.ir = ir_builder
        self.bytes = number.bitwidth // 8
        self.width = VECTOR_BYTES // self.bytes
        self.number = ir.FloatType() if self.bytes == 4 else ir.DoubleType()
        self.type = ir.VectorType(self.number, self.width)
        self.integer_type = ir.VectorType(ir.IntType(number.bitwidth), self.width)
        self._suffix = f"v{self.width}f{number.bitwidth}"

    def as_vector(self, value: Vector | float) -> Vector:
        """A vector as it is; a number as the vector that has it in every lane."""
        return value if isinstance(value, Vector) else Vector(self, ir.Constant(self.type, [float(value)] * self.width))

    def broadcast(self, number: ir.Value) -> Vector:
        """A number in every lane."""
        first = self.ir.insert_element(ir.Constant(self.type, ir.Undefined), number, ir.Constant(_I32, 0))
        pattern = ir.Constant(ir.VectorType(_I32, self.width), [0] * self.width)
        return Vector(self, self.ir.shuffle_vector(first, first, pattern))

    def call(self, intrinsic: str, arguments: list[ir.Value]) -> Vector:
        """Call an LLVM intrinsic of vectors."""
        kind = ir.FunctionType(self.type, [argument.type for argument in arguments])
        function = cgutils.get_or_insert_function(self.ir.module, kind, f"{intrinsic}.{self._suffix}")
        return Vector(self, self.ir.call(function, arguments))

    def call_masked(
        self, action: str, returned: ir.Type, before: list[ir.Value], mask: ir.Value, after: list[ir.Value]
    ) -> Vector:
        """Call LLVM's masked load or store."""
        arguments = [*before, ir.Constant(_I32, self.bytes), mask, *after]
        kind = ir.FunctionType(returned, [argument.type for argument in arguments])
        name = f"llvm.masked.{action}.{self._suffix}.p0"
        function = cgutils.get_or_insert_function(self.ir.module, kind, name)
        return Vector(self, self.ir.call(function, arguments))

    def mask(self, count: Index | int) -> ir.Value:
        """True in the first `count` lanes; in all of them if `count` exceeds their number."""
        count = count if isinstance(count, Index) else Index(self.ir, ir.Constant(_INT, count))
        most = ir.Constant(_INT, self.width)
        small = self.ir.select(self.ir.icmp_signed("<", count.value, most), count.value, most)
        integers = ir.VectorType(_I32, self.width)
        first = self.ir.insert_element(
            ir.Constant(integers, ir.Undefined), self.ir.trunc(small, _I32), ir.Constant(_I32, 0)
        )
        limit = self.ir.shuffle_vector(first, first, ir.Constant(integers, [0] * self.width))
        return self.ir.icmp_signed("<", ir.Constant(integers, list(range(self.width))), limit)

    def transpose(self, vectors: Sequence[Vector]) -> list[Vector]:
        """As many vectors as there are lanes, transposed: lane i of vector j becomes lane j of vector i."""
        rows, span = list(vectors), 1
        while span < self.width:
            # of every pair of vectors, one takes the even runs of `span` lanes, the other the odd runs
            runs = [lane for lane in range(self.width) if lane // span % 2 == 0]
            for i in runs:
                rows[i], rows[i + span] = self._interleaved(rows[i], rows[i + span], runs, span)
            span *= 2
        return rows

    def lane_sums(self, vectors: Sequence[Vector]) -> Vector:
        """A vector whose lane i is the sum over the lanes of vector i, for as many vectors as there are lanes."""
        span = 1
        while len(vectors) > 1:
            # take both vectors in runs of `span` lanes, and add the even runs to the odd ones
            runs = [lane for lane in range(self.width) if lane // span % 2 == 0]
            pairs = zip(vectors[::2], vectors[1::2], strict=True)
            vectors = [low + high for low, high in (self._interleaved(a, b, runs, span) for a, b in pairs)]
            span *= 2
        return vectors[0]

    def _interleaved(self, a: Vector, b: Vector, runs: list[int], span: int) -> tuple[Vector, Vector]:
        """The even runs of both vectors in turns, and the odd ones."""
        pattern = []
        for start in range(0, len(runs), span):
            pattern += runs[start : start + span] + [lane + self.width for lane in runs[start : start + span]]
        kind = ir.VectorType(_I32, self.width)
        low = self.ir.shuffle_vector(a.value, b.value, ir.Constant(kind, pattern))
        high = self.ir.shuffle_vector(a.value, b.value, ir.Constant(kind, [lane + span for lane in pattern]))
        return Vector(self, low), Vector(self, high)

    @contextmanager
    def loop(self, count: Index, backwards: bool = False) -> Iterator[Index]:
        """Emit a loop whose index runs over 0 … count - 1, or from count - 1 down to 0."""
        with cgutils.for_range(self.ir, count.value) as loop:
            index = Index(self.ir, loop.index)
            yield count - 1 - index if backwards else index

    @contextmanager
    def if_then(self, flag: ir.Value) -> Iterator[None]:
        """Emit code that runs if the flag is set at run time."""
        with self.ir.if_then(flag):
            yield

    def if_else(self, flag: ir.Value, then: Callable[[], Vector], otherwise: Vector | float) -> Vector:
        """The value that `then` emits if the flag is set at run time, else `otherwise`."""
        result = Register(self, otherwise)
        with self.if_then(flag):
            result.set(then())
        return result.get()
