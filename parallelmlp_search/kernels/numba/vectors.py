"""SIMD vectors of float32 as values in compiled loops.

The compiler vectorizes simple loops by itself, but keeps the sums of a matrix product in memory between
passes. With explicit vectors they stay in registers. Loads and stores need no alignment and check no bounds:
buffers must be large enough.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llvmlite.ir
import numba
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic, models, register_model

from parallelmlp_search.kernels.numba.library import target

LANES = 16 if target() == "x86-64-v4" else 8
"""Number of floats in a vector: one register of 16 or 8, or two of 4."""

FLOAT = llvmlite.ir.FloatType()
BITS = llvmlite.ir.IntType(32)


class _Vector(numba.types.Type):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


VECTOR = _Vector()


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, llvmlite.ir.VectorType(FLOAT, LANES))


def _vector_pointer(builder: Any, arguments: Any) -> Any:
    """Pointer to the vector that starts at an index of a buffer."""
    pointer = builder.gep(arguments[0], [arguments[1]])
    return builder.bitcast(pointer, llvmlite.ir.VectorType(FLOAT, LANES).as_pointer())


def _splat(builder: Any, number: Any) -> Any:
    undefined = llvmlite.ir.Constant(llvmlite.ir.VectorType(FLOAT, LANES), llvmlite.ir.Undefined)
    first = builder.insert_element(undefined, number, BITS(0))
    lanes = llvmlite.ir.Constant(llvmlite.ir.VectorType(BITS, LANES), [0] * LANES)
    return builder.shuffle_vector(first, undefined, lanes)


@intrinsic  # type: ignore[untyped-decorator]
def load(context: Any, buffer: Any, index: Any) -> Any:
    """Load a vector that starts at ``index`` of a buffer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_vector_pointer(builder, arguments), align=4)

    return VECTOR(buffer, numba.types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def store(context: Any, buffer: Any, index: Any, vector: Any) -> Any:
    """Store a vector at ``index`` of a buffer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _vector_pointer(builder, arguments), align=4)
        return context.get_dummy_value()

    return numba.types.void(buffer, numba.types.intp, VECTOR), generate


@intrinsic  # type: ignore[untyped-decorator]
def splat(context: Any, number: Any) -> Any:
    """Return a vector with a number in every lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _splat(builder, arguments[0])

    return VECTOR(numba.types.float32), generate


@intrinsic  # type: ignore[untyped-decorator]
def load_splat(context: Any, buffer: Any, index: Any) -> Any:
    """Return a vector with an element of a buffer in every lane."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number = builder.load(builder.gep(arguments[0], [arguments[1]]))
        return _splat(builder, number)

    return VECTOR(buffer, numba.types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def multiply_add(context: Any, a: Any, b: Any, c: Any) -> Any:
    """Return ``a b + c``, rounded once if the machine has fused multiply-add."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        product = builder.fmul(arguments[0], arguments[1], flags=("contract",))
        return builder.fadd(product, arguments[2], flags=("contract",))

    return VECTOR(VECTOR, VECTOR, VECTOR), generate


def _binary_operation(name: str) -> Callable[..., Any]:
    """Operation on two vectors by the name of its LLVM instruction."""

    def operation(context: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, name)(*arguments)

        return VECTOR(VECTOR, VECTOR), generate

    found: Callable[..., Any] = intrinsic(operation)
    return found


add, subtract, multiply, divide = (_binary_operation(name) for name in ("fadd", "fsub", "fmul", "fdiv"))


@intrinsic  # type: ignore[untyped-decorator]
def sqrt(context: Any, vector: Any) -> Any:
    """Return the square roots of the lanes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = llvmlite.ir.FunctionType(arguments[0].type, [arguments[0].type])
        function = get_or_insert_function(builder.module, kind, f"llvm.sqrt.v{LANES}f32")
        return builder.call(function, arguments)

    return VECTOR(VECTOR), generate


@intrinsic  # type: ignore[untyped-decorator]
def horizontal_sum(context: Any, vector: Any) -> Any:
    """Return the sum of the lanes, by adding halves."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (left,) = arguments
        size = LANES
        while size > 1:
            size //= 2
            kind = llvmlite.ir.VectorType(BITS, size)
            undefined = llvmlite.ir.Constant(left.type, llvmlite.ir.Undefined)
            low = builder.shuffle_vector(left, undefined, llvmlite.ir.Constant(kind, list(range(size))))
            high = builder.shuffle_vector(
                left, undefined, llvmlite.ir.Constant(kind, list(range(size, 2 * size)))
            )
            left = builder.fadd(low, high)
        return builder.extract_element(left, BITS(0))

    return numba.types.float32(VECTOR), generate


@intrinsic  # type: ignore[untyped-decorator]
def transpose_block(
    context: Any, source: Any, start: Any, stride: Any, target: Any, to: Any, target_stride: Any
) -> Any:
    """Transpose a square block of ``LANES`` rows, which lie ``stride`` apart, into another buffer."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def pointers(buffer: int) -> list[Any]:
            index, found = arguments[buffer + 1], []
            for _ in range(LANES):
                found.append(_vector_pointer(builder, [arguments[buffer], index]))
                index = builder.add(index, arguments[buffer + 2])
            return found

        rows = [builder.load(pointer, align=4) for pointer in pointers(0)]
        distance = LANES // 2
        while distance:  # swap the blocks beside the diagonal, the largest first
            upper = [j if not j & distance else LANES + j - distance for j in range(LANES)]
            lower = [j + distance if not j & distance else LANES + j for j in range(LANES)]
            kind = llvmlite.ir.VectorType(BITS, LANES)
            for i in range(LANES):
                if not i & distance:
                    a, b = rows[i], rows[i + distance]
                    rows[i] = builder.shuffle_vector(a, b, llvmlite.ir.Constant(kind, upper))
                    rows[i + distance] = builder.shuffle_vector(a, b, llvmlite.ir.Constant(kind, lower))
            distance //= 2
        for row, pointer in zip(rows, pointers(3), strict=True):
            builder.store(row, pointer, align=4)
        return context.get_dummy_value()

    index = numba.types.intp
    return numba.types.void(source, index, index, target, index, index), generate
