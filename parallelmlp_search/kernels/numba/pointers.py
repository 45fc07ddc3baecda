"""Pointers to numbers as values in compiled loops, and arguments that Python passes in one array.

Compiled loops take pointers and sizes instead of arrays of numba: they need neither the runtime of numba nor
its reference counts, so that their machine code can be stored and loaded without numba, and they compile
three times as fast, since a pointer is one value and an array seven. No index is checked, and none may be
negative.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import llvmlite.ir
from numba import types
from numba.core.types import Integer, Type, float32, float64, int32, int64, none, uint8
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

from parallelmlp_search.kernels.numba.arguments import field_kinds


class Pointer(Type):
    """Type of a pointer to numbers of one type."""

    def __init__(self, number: Any) -> None:
        self.number = number
        super().__init__(name=f"pointer({number})")


Floats, Integers, Flags = Pointer(float32), Pointer(int64), Pointer(uint8)
Doubles, Words = Pointer(float64), Pointer(int32)


@register_model(Pointer)
class _PointerModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, manager.lookup(kind.number).get_data_type().as_pointer())


@infer_global(operator.getitem)
class _GetItem(AbstractTemplate):  # type: ignore[misc]
    def generic(self, arguments: Any, keywords: Any) -> Any:
        if isinstance(arguments[0], Pointer) and isinstance(arguments[1], Integer):
            return signature(arguments[0].number, arguments[0], int64)
        return None


@infer_global(operator.setitem)
class _SetItem(AbstractTemplate):  # type: ignore[misc]
    def generic(self, arguments: Any, keywords: Any) -> Any:
        if isinstance(arguments[0], Pointer) and isinstance(arguments[1], Integer):
            return signature(none, arguments[0], int64, arguments[0].number)
        return None


@infer_global(operator.add)
class _Add(AbstractTemplate):  # type: ignore[misc]
    def generic(self, arguments: Any, keywords: Any) -> Any:
        if isinstance(arguments[0], Pointer) and isinstance(arguments[1], Integer):
            return signature(arguments[0], arguments[0], int64)
        return None


@lower_builtin(operator.getitem, Pointer, Integer)  # type: ignore[untyped-decorator]
def _get_item(context: Any, builder: Any, kinds: Any, arguments: Any) -> Any:
    return builder.load(builder.gep(arguments[0], [arguments[1]]))


@lower_builtin(operator.setitem, Pointer, Integer, Type)  # type: ignore[untyped-decorator]
def _set_item(context: Any, builder: Any, kinds: Any, arguments: Any) -> Any:
    builder.store(arguments[2], builder.gep(arguments[0], [arguments[1]]))


@lower_builtin(operator.add, Pointer, Integer)  # type: ignore[untyped-decorator]
def _add(context: Any, builder: Any, kinds: Any, arguments: Any) -> Any:
    return builder.gep(arguments[0], [arguments[1]])


def _cast(target: Pointer) -> Callable[..., Any]:
    def cast(context: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, kinds: Any, arguments: Any) -> Any:
            kind = context.get_value_type(target)
            if isinstance(kinds.args[0], Pointer):
                return builder.bitcast(arguments[0], kind)
            return builder.inttoptr(arguments[0], kind)

        return target(value), generate

    found: Callable[..., Any] = intrinsic(cast)
    return found


as_floats, as_integers, as_flags, as_words = _cast(Floats), _cast(Integers), _cast(Flags), _cast(Words)
"""Return a pointer of another type to the same memory, also from an address."""


@intrinsic  # type: ignore[untyped-decorator]
def address(context: Any, pointer: Any) -> Any:
    """Return the address that a pointer holds."""

    def generate(context: Any, builder: Any, kinds: Any, arguments: Any) -> Any:
        return builder.ptrtoint(arguments[0], llvmlite.ir.IntType(64))

    return int64(pointer), generate


_KINDS = {
    "Floats": Floats,
    "Doubles": Doubles,
    "Integers": Integers,
    "Flags": Flags,
    "int": int64,
    "float": float32,
}


def unpacker(tuple_class: Any, start: int = 0) -> Callable[..., Any]:
    """Return a compiled function that reads a named tuple from what `arguments.pack` returns.

    Parameters
    ----------
    tuple_class
        Named tuple of :mod:`parallelmlp_search.kernels.numba.arguments`.
    start
        Place of the first field in the array.

    Returns
    -------
    callable
        It takes a pointer to the integers.
    """
    kinds = [_KINDS[name] for name in field_kinds(tuple_class)]
    result = types.NamedTuple(kinds, tuple_class)

    def unpack(context: Any, array: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            values = []
            for place, kind in enumerate(kinds, start):
                pointer = builder.gep(arguments[0], [llvmlite.ir.IntType(64)(place)])
                value = builder.load(pointer)
                if isinstance(kind, Pointer):
                    value = builder.inttoptr(value, context.get_value_type(kind))
                elif kind == float32:
                    value = builder.bitcast(value, llvmlite.ir.DoubleType())
                    value = builder.fptrunc(value, llvmlite.ir.FloatType())
                values.append(value)
            return context.make_tuple(builder, result, values)

        return result(array), generate

    found: Callable[..., Any] = intrinsic(unpack)
    return found
