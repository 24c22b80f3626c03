"""Tells which call in the finished program computes which layer, for profiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import tvm
from tvm import relax

from graphprune.kernel_calls import KernelCall


@dataclass(frozen=True)
class EmittedCall:
    """A call as lowering emitted it: what it computes, and the packed weights that only this call has."""

    description: KernelCall
    constants: tuple[tvm.ir.GenericConst, ...]


def call_table(module: tvm.IRModule, emitted: Sequence[EmittedCall]) -> tuple[KernelCall, ...]:
    """Return every call of a compiled function in ``main``, in order, before it becomes bytecode.

    Layers of equal shape share a function, so the name alone does not tell them apart. A call with packed weights is
    known by these very tensors; others by their place among the calls of their function, if none was added or dropped.
    A call that lowering did not emit is one that TVM made from Relax ops, and goes by its function's name.
    """
    program = list(_calls(module))
    described: list[KernelCall] = []
    for position, (name, call) in enumerate(program):
        known = [entry for entry in emitted if entry.description.function == name]
        own = next((entry for entry in known if entry.constants and _holds(call, entry.constants)), None)
        if own is None and known and not known[0].constants:
            before = sum(other == name for other, _ in program[:position])
            if sum(other == name for other, _ in program) == len(known):
                own = known[before]
        described.append(own.description if own else KernelCall(name, name, "relax", _shape(call)))
    return tuple(described)


def _calls(module: tvm.IRModule) -> Iterator[tuple[str, relax.Call]]:
    """Yield (function name, call) for each call of a function or library routine in ``main``."""
    destination_passing = {
        tvm.ir.Op.get(f"relax.{name}") for name in ("call_tir", "call_tir_inplace", "call_dps_packed")
    }
    for block in module["main"].body.blocks:
        for binding in block.bindings:
            call = binding.value
            if not isinstance(call, relax.Call):
                continue
            if call.op in destination_passing:
                function = call.args[0]
                yield _name(function), call
            elif isinstance(call.op, (tvm.ir.GlobalVar, relax.ExternFunc)):
                yield _name(call.op), call


def _name(function: tvm.ir.GlobalVar | relax.ExternFunc) -> str:
    return str(function.name_hint if isinstance(function, tvm.ir.GlobalVar) else function.global_symbol)


def _holds(call: relax.Call, constants: Sequence[tvm.ir.GenericConst]) -> bool:
    """Say whether the last arguments of a call are these constants: the same tensors, not equal ones."""
    arguments = list(call.args[1])[-len(constants) :]
    return len(arguments) == len(constants) and all(
        isinstance(argument, tvm.ir.GenericConst) and argument.value.same_as(constant.value)
        for argument, constant in zip(arguments, constants)
    )


def _shape(call: relax.Call) -> tuple[int, ...]:
    """Return the shape of a call's result, or nothing where it has several or they are not fixed."""
    shape = getattr(call.ty, "shape", None)
    sizes = [getattr(size, "value", None) for size in shape] if isinstance(shape, relax.ShapeExpr) else []
    return tuple(sizes) if all(isinstance(size, int) for size in sizes) else ()
