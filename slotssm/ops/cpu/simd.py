"""Vector code for the kernels: arithmetic on lanes of a SIMD register, emitted as LLVM instructions.

numba's own loops leave the choice of vector code to LLVM's loop vectoriser, which keeps the states of the scan
in memory and reloads them for every step. The kernels instead build their innermost loops from the values of
this module: a `Vector` is one register (16 float32 or 8 float64 with AVX-512), overloaded operators emit one
instruction each, and a `Register` is a variable that lives in a register across the iterations of a loop.

Nothing here runs at run time; these functions run once, while numba compiles.
"""

import math
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import cgutils, config, types

LOG2_E = 1.4426950408889634
_INT = ir.IntType(64)
_I32 = ir.IntType(32)


class _Form(NamedTuple):
    """Facts of a floating-point type.

    Attributes:
        mantissa_bits: bits below the exponent.
        bias: exponent field of the number 1.
        rounder: added to a number of moderate size, it leaves no bits for a fraction, and below the exponent
            the whole part plus the bias.
        rounder_bits: the rounder's bits without the bias; its lowest bits are zero.
        coefficients: of 2**f - 1 over f in [-1/2, 1/2], from the first power of f on.
        artanh_terms: terms of the series of artanh(s) / s for s up to 1/3.
    """

    mantissa_bits: int
    bias: int
    rounder: float
    rounder_bits: int
    coefficients: list[float]
    artanh_terms: int


_FORMS = {
    4: _Form(
        mantissa_bits=23,
        bias=127,
        rounder=1.5 * 2**23 + 127,
        rounder_bits=0x4B400000,
        # minimax for the relative error with the constant 1, so that whole powers are exact
        coefficients=[
            0.6931469775965887,
            0.2402224208184317,
            0.05550733745645653,
            0.009671512862189369,
            0.0013264727080185626,
        ],
        artanh_terms=7,
    ),
    8: _Form(
        mantissa_bits=52,
        bias=1023,
        rounder=1.5 * 2**52 + 1023,
        rounder_bits=0x4338000000000000,
        # Taylor: enough terms for the last bit
        coefficients=[math.log(2) ** k / math.factorial(k) for k in range(1, 14)],
        artanh_terms=17,
    ),
}


def _vector_bytes() -> int:
    features = llvm.get_host_cpu_features()
    # numba compiles for another processor on demand
    if config.CPU_FEATURES is not None:
        features = {feature[1:]: feature[0] == "+" for feature in config.CPU_FEATURES.split(",") if feature}
    if features.get("avx512f"):
        return 64
    return 32 if features.get("avx2") else 16


VECTOR_BYTES = _vector_bytes()
"""Width of the widest register of this processor: 64 with AVX-512, 32 with AVX2, 16 otherwise."""


class Vector:
    """One SIMD register of numbers of one type."""

    def __init__(self, lanes: "Lanes", value: ir.Value) -> None:
        self.lanes, self.value = lanes, value

    def _emit(self, instruction: str, other: "Vector | float") -> "Vector":
        value = getattr(self.lanes.builder, instruction)(self.value, self.lanes.of(other).value)
        return Vector(self.lanes, value)

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
        return self.lanes.of(other) - self

    def __rtruediv__(self, other: float) -> "Vector":
        return self.lanes.of(other) / self

    def __neg__(self) -> "Vector":
        return Vector(self.lanes, self.lanes.builder.fneg(self.value))

    def times_plus(self, factor: "Vector | float", summand: "Vector | float") -> "Vector":
        """Multiply by a factor and add, in one instruction where the processor has it."""
        arguments = [self.value, self.lanes.of(factor).value, self.lanes.of(summand).value]
        return self.lanes.call("llvm.fmuladd", arguments)

    def where_less(self, other: "Vector | float", then: "Vector | float", otherwise: "Vector | float") -> "Vector":
        """`then` in the lanes where self < other, `otherwise` elsewhere (where either is NaN, too)."""
        lanes = self.lanes
        less = lanes.builder.fcmp_ordered("<", self.value, lanes.of(other).value)
        return Vector(lanes, lanes.builder.select(less, lanes.of(then).value, lanes.of(otherwise).value))

    def within(self, mask: ir.Value) -> "Vector":
        """Zero in the lanes outside the mask."""
        return Vector(self.lanes, self.lanes.builder.select(mask, self.value, self.lanes.of(0.0).value))


class Register:
    """A variable that holds a vector across the iterations of a loop."""

    def __init__(self, lanes: "Lanes", value: Vector | float) -> None:
        self._lanes = lanes
        # LLVM turns the stack slot into a register
        self._slot = cgutils.alloca_once(lanes.builder, lanes.type)
        self.set(value)

    def get(self) -> Vector:
        """The present value."""
        return Vector(self._lanes, self._lanes.builder.load(self._slot))

    def set(self, value: Vector | float) -> None:
        """Replace the value."""
        self._lanes.builder.store(self._lanes.of(value).value, self._slot)

    def add(self, factor: Vector, other: Vector) -> None:
        """Add factor · other to the value."""
        self.set(factor.times_plus(other, self.get()))


class Index:
    """An integer that is known at run time."""

    def __init__(self, builder: ir.IRBuilder, value: ir.Value) -> None:
        self._builder, self.value = builder, value

    def _emit(self, instruction: str, other: "Index | int") -> "Index":
        number = other.value if isinstance(other, Index) else ir.Constant(_INT, other)
        return Index(self._builder, getattr(self._builder, instruction)(self.value, number))

    def __add__(self, other: "Index | int") -> "Index":
        return self._emit("add", other)

    def __sub__(self, other: "Index | int") -> "Index":
        return self._emit("sub", other)

    def __mul__(self, other: "Index | int") -> "Index":
        return self._emit("mul", other)

    def __floordiv__(self, other: "Index | int") -> "Index":
        return self._emit("sdiv", other)


class Array:
    """An array in memory; indexing gives the `Pointer` to a number, and checks nothing.

    Attributes:
        length: size of the first axis.
    """

    def __init__(self, lanes: "Lanes", data: ir.Value, strides: list[ir.Value], length: Index) -> None:
        self._lanes, self._data, self._strides, self.length = lanes, data, strides, length

    def __getitem__(self, place: "tuple[Index | int, ...]") -> "Pointer":
        offset = Index(self._lanes.builder, ir.Constant(_INT, 0))
        for index, stride in zip(place, self._strides, strict=True):
            if index != 0:
                offset = offset + Index(self._lanes.builder, stride) * index
        return Pointer(self._lanes, cgutils.pointer_add(self._lanes.builder, self._data, offset.value))


class Pointer:
    """Where numbers lie in memory; offsets count numbers, not bytes."""

    def __init__(self, lanes: "Lanes", value: ir.Value) -> None:
        self.lanes, self.value = lanes, value

    def __add__(self, offset: int) -> "Pointer":
        return Pointer(self.lanes, cgutils.pointer_add(self.lanes.builder, self.value, offset * self.lanes.bytes))

    def load(self, mask: ir.Value | None = None) -> Vector:
        """The vector that starts here; lanes outside the mask are not read and are zero."""
        builder, lanes = self.lanes.builder, self.lanes
        if mask is None:
            return Vector(lanes, builder.load(self._vector, align=lanes.bytes))
        return lanes.masked("load", lanes.type, [self._vector], mask, [lanes.of(0.0).value])

    def store(self, vector: Vector, mask: ir.Value | None = None) -> None:
        """Write a vector here; nothing is written outside the mask."""
        if mask is None:
            self.lanes.builder.store(vector.value, self._vector, align=self.lanes.bytes)
        else:
            self.lanes.masked("store", ir.VoidType(), [vector.value, self._vector], mask, [])

    @property
    def _vector(self) -> ir.Value:
        return self.lanes.builder.bitcast(self.value, self.lanes.type.as_pointer())

    def prefetch(self) -> None:
        """Have the line that lies here fetched into the cache; the address may be outside of the array."""
        kind = ir.FunctionType(ir.VoidType(), [self.value.type, _I32, _I32, _I32])
        function = cgutils.get_or_insert_function(self.lanes.builder.module, kind, "llvm.prefetch.p0")
        self.lanes.builder.call(function, [self.value, *(ir.Constant(_I32, flag) for flag in (0, 3, 1))])

    def spread(self) -> Vector:
        """The number that lies here, in every lane."""
        number = self.lanes.builder.load(self.value, align=self.lanes.bytes)
        return self.lanes.spread(number)


class Lanes:
    """Emits the vector code of one floating-point type.

    Args:
        builder: where instructions go.
        number: numba's float32 or float64.
    """

    def __init__(self, builder: ir.IRBuilder, number: types.Float) -> None:
        self.builder = builder
        self.bytes = number.bitwidth // 8
        self.width = lane_count(self.bytes)
        self.number = ir.FloatType() if self.bytes == 4 else ir.DoubleType()
        self.type = ir.VectorType(self.number, self.width)
        self._integer = ir.VectorType(ir.IntType(number.bitwidth), self.width)
        self._suffix = f"v{self.width}f{number.bitwidth}"

    def of(self, value: Vector | float) -> Vector:
        """A vector as it is, or a number in every lane."""
        return value if isinstance(value, Vector) else Vector(self, ir.Constant(self.type, [float(value)] * self.width))

    def spread(self, number: ir.Value) -> Vector:
        """A number in every lane."""
        first = self.builder.insert_element(ir.Constant(self.type, ir.Undefined), number, ir.Constant(_I32, 0))
        pattern = ir.Constant(ir.VectorType(_I32, self.width), [0] * self.width)
        return Vector(self, self.builder.shuffle_vector(first, first, pattern))

    def call(self, intrinsic: str, arguments: list[ir.Value]) -> Vector:
        """Call an LLVM intrinsic of vectors."""
        kind = ir.FunctionType(self.type, [argument.type for argument in arguments])
        function = cgutils.get_or_insert_function(self.builder.module, kind, f"{intrinsic}.{self._suffix}")
        return Vector(self, self.builder.call(function, arguments))

    def masked(
        self, action: str, returned: ir.Type, before: list[ir.Value], mask: ir.Value, after: list[ir.Value]
    ) -> Vector:
        """Call LLVM's masked load or store."""
        arguments = [*before, ir.Constant(_I32, self.bytes), mask, *after]
        kind = ir.FunctionType(returned, [argument.type for argument in arguments])
        name = f"llvm.masked.{action}.{self._suffix}.p0"
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)
        return Vector(self, self.builder.call(function, arguments))

    def mask(self, count: Index | int) -> ir.Value:
        """True in the first `count` lanes; the count may exceed the lanes."""
        count = count if isinstance(count, Index) else Index(self.builder, ir.Constant(_INT, count))
        most = ir.Constant(_INT, self.width)
        small = self.builder.select(self.builder.icmp_signed("<", count.value, most), count.value, most)
        integers = ir.VectorType(_I32, self.width)
        first = self.builder.insert_element(
            ir.Constant(integers, ir.Undefined), self.builder.trunc(small, _I32), ir.Constant(_I32, 0)
        )
        limit = self.builder.shuffle_vector(first, first, ir.Constant(integers, [0] * self.width))
        return self.builder.icmp_signed("<", ir.Constant(integers, list(range(self.width))), limit)

    def sums(self, vectors: Sequence[Vector]) -> Vector:
        """A vector whose lane i is the sum over the lanes of vector i; there are as many vectors as lanes."""
        span = 1
        while len(vectors) > 1:
            # lanes of both, in runs of `span`: first and second runs of every pair are added
            runs = [lane for lane in range(self.width) if lane // span % 2 == 0]
            vectors = [
                self._interleaved_sum(a, b, runs, span) for a, b in zip(vectors[::2], vectors[1::2], strict=True)
            ]
            span *= 2
        return vectors[0]

    def _interleaved_sum(self, a: Vector, b: Vector, runs: list[int], span: int) -> Vector:
        pattern = []
        for start in range(0, len(runs), span):
            pattern += runs[start : start + span] + [lane + self.width for lane in runs[start : start + span]]
        kind = ir.VectorType(_I32, self.width)
        low = self.builder.shuffle_vector(a.value, b.value, ir.Constant(kind, pattern))
        high = self.builder.shuffle_vector(a.value, b.value, ir.Constant(kind, [lane + span for lane in pattern]))
        return Vector(self, low) + Vector(self, high)

    @contextmanager
    def loop(self, count: Index, backwards: bool = False) -> Iterator[Index]:
        """Emit a loop whose index runs over 0 … count - 1, or from count - 1 down to 0."""
        with cgutils.for_range(self.builder, count.value) as loop:
            index = Index(self.builder, loop.index)
            yield count - 1 - index if backwards else index

    @contextmanager
    def only_if(self, flag: ir.Value) -> Iterator[None]:
        """Emit code that runs where the flag is set."""
        with self.builder.if_then(flag):
            yield

    def either(self, flag: ir.Value, then: Callable[[], Vector], otherwise: Vector | float) -> Vector:
        """What `then` emits where the flag is set, else `otherwise`."""
        result = Register(self, otherwise)
        with self.only_if(flag):
            result.set(then())
        return result.get()

    # --- functions ----------------------------------------------------------------------------------------

    def exp2(self, u: Vector) -> Vector:
        """Power of two: u is rounded to a whole power, which goes into the exponent, times a polynomial for the rest.

        Relative error below 2.5e-7 (float32) and 1e-15 (float64). Zero below the smallest normal number, infinite
        above the largest, NaN for NaN and for infinite u.
        """
        form = _FORMS[self.bytes]
        # adding this number leaves the whole part, plus the exponent's bias, in the lowest bits of the sum
        shifted = u + form.rounder
        rest = u - (shifted - form.rounder)
        power = self.of(form.coefficients[-1])
        for coefficient in form.coefficients[-2::-1]:
            power = power.times_plus(rest, coefficient)
        power = power.times_plus(rest, 1.0)
        # clamped as integers, since those instructions do not compete with multiplications: an exponent of zero
        # makes the factor 0, the largest one makes it infinite
        builder, bits = self.builder, self.builder.bitcast(shifted.value, self._integer)
        least, most, shift = (
            ir.Constant(self._integer, [number] * self.width)
            for number in (form.rounder_bits, form.rounder_bits + 2 * form.bias + 1, form.mantissa_bits)
        )
        bits = builder.select(builder.icmp_signed("<", bits, least), least, bits)
        bits = builder.select(builder.icmp_signed(">", bits, most), most, bits)
        return power * Vector(self, builder.bitcast(builder.shl(bits, shift), self.type))

    def exp(self, x: Vector) -> Vector:
        """Power of e; the rounding error of x · log2(e), which grows with x, is made good."""
        # far beyond the range, and finite
        x = self.clamped(x, 1e4)
        # the constant as a number of the lanes' type, and what that number lacks
        rounded = struct.unpack("f", struct.pack("f", LOG2_E))[0] if self.bytes == 4 else LOG2_E
        high = x * rounded
        low = x.times_plus(rounded, -high) + x * (LOG2_E - rounded)
        return self.exp2(high) * low.times_plus(1 / LOG2_E, 1.0)

    def clamped(self, x: Vector, most: float) -> Vector:
        """A number between -most and most; NaN stays."""
        x = x.where_less(-most, -most, x)
        return self.of(most).where_less(x, most, x)

    def sigmoid(self, x: Vector) -> Vector:
        """1 / (1 + e**-x)."""
        return 1.0 / (1.0 + self.exp(-x))

    def softplus(self, x: Vector) -> Vector:
        """log(1 + e**x), and x itself above 20, as in torch."""
        size = x.where_less(0.0, -x, x)
        small = self.exp(-size)
        # log(1 + v) = 2 artanh(v / (2 + v)), a series that keeps its relative precision for small v
        s = small / (small + 2.0)
        square = s * s
        series = self.of(1 / (2 * _FORMS[self.bytes].artanh_terms - 1))
        for k in range(_FORMS[self.bytes].artanh_terms - 2, -1, -1):
            series = series.times_plus(square, 1 / (2 * k + 1))
        log = (s * 2.0) * series
        soft = x.where_less(0.0, log, x + log)
        return self.of(20.0).where_less(x, x, soft)


def lane_count(number_bytes: int) -> int:
    """How many numbers of that size a register holds."""
    return VECTOR_BYTES // number_bytes
