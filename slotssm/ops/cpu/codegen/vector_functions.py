"""Elementary functions of SIMD vectors: exponentials, sigmoid and softplus, emitted as vector instructions."""

import math
import struct
from typing import NamedTuple

from llvmlite import ir

from slotssm.ops.cpu.codegen.simd import Vector

LOG2_E = 1.4426950408889634


class _FloatFormat(NamedTuple):
    """Properties of a floating-point type, and constants of the functions for it.

    Attributes:
        mantissa_bits: bits below the exponent.
        bias: exponent field of the number 1.
        rounder: a large number; adding it to a moderate number rounds that to an integer, which stands, plus the
            bias, in the lowest bits of the sum.
        rounder_bits: the rounder's bits without the bias; its lowest bits are zero.
        coefficients: of the polynomial for 2**f - 1 over f in [-1/2, 1/2], from the first power of f on.
        artanh_terms: number of terms of the series of artanh(s) / s for s up to 1/3.
    """

    mantissa_bits: int
    bias: int
    rounder: float
    rounder_bits: int
    coefficients: list[float]
    artanh_terms: int


_FORMATS = {
    4: _FloatFormat(
        mantissa_bits=23,
        bias=127,
        rounder=1.5 * 2**23 + 127,
        rounder_bits=0x4B400000,
        # minimax in the relative error; the constant term is 1, so that integer powers are exact
        coefficients=[
            0.6931469775965887,
            0.2402224208184317,
            0.05550733745645653,
            0.009671512862189369,
            0.0013264727080185626,
        ],
        artanh_terms=7,
    ),
    8: _FloatFormat(
        mantissa_bits=52,
        bias=1023,
        rounder=1.5 * 2**52 + 1023,
        rounder_bits=0x4338000000000000,
        # the Taylor series, to the last bit
        coefficients=[math.log(2) ** k / math.factorial(k) for k in range(1, 14)],
        artanh_terms=17,
    ),
}


def exp2(u: Vector) -> Vector:
    """2**u: the integer nearest to u becomes the exponent, and a polynomial gives the power of the rest.

    The relative error is below 2.5e-7 (float32) and 1e-15 (float64). The result is zero below the smallest normal
    number, infinite above the largest, and NaN for NaN and for infinite u.
    """
    builder = u.builder
    form = _FORMATS[builder.bytes]
    shifted = u + form.rounder
    rest = u - (shifted - form.rounder)
    power = builder.as_vector(form.coefficients[-1])
    for coefficient in form.coefficients[-2::-1]:
        power = power.multiply_add(rest, coefficient)
    power = power.multiply_add(rest, 1.0)
    # clamped as integers, whose instructions do not compete with multiplications: an exponent field of zero makes the
    # factor 0, the largest one makes it infinite
    bits = builder.ir.bitcast(shifted.value, builder.integer_type)
    least, most, shift = (
        ir.Constant(builder.integer_type, [number] * builder.width)
        for number in (form.rounder_bits, form.rounder_bits + 2 * form.bias + 1, form.mantissa_bits)
    )
    bits = builder.ir.select(builder.ir.icmp_signed("<", bits, least), least, bits)
    bits = builder.ir.select(builder.ir.icmp_signed(">", bits, most), most, bits)
    return power * Vector(builder, builder.ir.bitcast(builder.ir.shl(bits, shift), builder.type))


def exp(x: Vector) -> Vector:
    """e**x, with a correction of the rounding error of x · log2(e), which grows with x."""
    # far beyond the range of the result, and finite
    x = clamp(x, 1e4)
    # log2(e) in the type of the vector, and the remainder that this leaves
    rounded = struct.unpack("f", struct.pack("f", LOG2_E))[0] if x.builder.bytes == 4 else LOG2_E
    high = x * rounded
    low = x.multiply_add(rounded, -high) + x * (LOG2_E - rounded)
    return exp2(high) * low.multiply_add(1 / LOG2_E, 1.0)


def clamp(x: Vector, most: float) -> Vector:
    """Limit x to the range from -most to most; NaN stays NaN."""
    x = x.where_less(-most, -most, x)
    return x.builder.as_vector(most).where_less(x, most, x)


def sigmoid(x: Vector) -> Vector:
    """1 / (1 + e**-x)."""
    return 1.0 / (1.0 + exp(-x))


def silu_gradient(x: Vector, gate: Vector) -> Vector:
    """The derivative of x · sigmoid(x), given gate = sigmoid(x)."""
    return gate * (x * (1.0 - gate) + 1.0)


def softplus(x: Vector) -> Vector:
    """log(1 + e**x), and x itself above 20, as in torch."""
    magnitude = x.where_less(0.0, -x, x)
    small = exp(-magnitude)
    # log(1 + v) = 2 artanh(v / (2 + v)), a series that keeps its relative precision for small v
    s = small / (small + 2.0)
    square = s * s
    num_terms = _FORMATS[x.builder.bytes].artanh_terms
    series = x.builder.as_vector(1 / (2 * num_terms - 1))
    for k in range(num_terms - 2, -1, -1):
        series = series.multiply_add(square, 1 / (2 * k + 1))
    log = (s * 2.0) * series
    soft = x.where_less(0.0, log, x + log)
    return x.builder.as_vector(20.0).where_less(x, x, soft)
