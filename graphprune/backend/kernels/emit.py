"""A small vocabulary for emitting TensorIR with explicit vectors, over TVM's IR builder.

Kernels are written as Python functions that emit statements: a Python ``for`` is unrolled into the kernel, a
``T.serial`` or ``T.parallel`` frame is a loop of the kernel. Buffers that kernels index themselves are flat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from tvm import DataType, tirx
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as T

from graphprune.backend.kernels.tiling import LINE_FLOATS


class Emitter:
    """The function under construction; ``function`` holds it once the ``building`` context is left."""

    function: tirx.PrimFunc


@contextmanager
def building(name: str) -> Iterator[Emitter]:
    """Open a TensorIR function called ``name``; arguments and statements emitted inside belong to it."""
    emitter = Emitter()
    with IRBuilder() as builder, T.prim_func(s_tir=True):
        T.func_name(name)
        T.func_attr({"tirx.noalias": True})
        yield emitter
    emitter.function = builder.get()


@dataclass(frozen=True)
class Arguments:
    """Flat views of a kernel's buffers: input, residual (or None), constants in order, output."""

    x: tirx.Buffer
    residual: tirx.Buffer | None
    constants: list[tirx.Buffer]
    out: tirx.Buffer


def arguments(
    x_shape: Sequence[int],
    out_shape: Sequence[int],
    constants: Sequence[np.ndarray],
    *,
    residual: bool,
    residual_shape: Sequence[int] | None = None,
) -> Arguments:
    """Add the buffers of a kernel, in the order of the ``Kernel`` contract, and return flat views of them.

    A residual has the shape of the output where ``residual_shape`` does not say otherwise.
    """
    declared = [T.arg("x", _buffer(x_shape, "float32"))]
    if residual:
        declared.append(T.arg("residual", _buffer(residual_shape or out_shape, "float32")))
    declared += [T.arg(f"c{i}", _buffer(array.shape, str(array.dtype))) for i, array in enumerate(constants)]
    declared.append(T.arg("out", _buffer(out_shape, "float32")))
    # Views are statements, so all of them come after the last argument.
    views = [flat_view(buffer) for buffer in declared]
    first_constant = 2 if residual else 1
    return Arguments(views[0], views[1] if residual else None, views[first_constant:-1], views[-1])


def _buffer(shape: Sequence[int], dtype: str) -> tirx.Buffer:
    return T.buffer(tuple(shape), dtype, layout=None)


def flat_view(buffer: tirx.Buffer) -> tirx.Buffer:
    """Return a one-dimensional view of a buffer."""
    return T.decl_buffer((prod(int(n) for n in buffer.shape),), buffer.dtype, data=buffer.data, layout=None)


def registers(count: int, lanes: int, *, dtype: str = "float32", on_stack: bool = False) -> tirx.Buffer:
    """Allocate ``count`` vectors that LLVM will keep in registers, as a flat buffer.

    By default they are memory of TVM's workspace pool: LLVM keeps it in registers in loops and writes it back after
    each. ``on_stack`` saves the writing back, but then LLVM may move many loads of long loop bodies ahead of the sums
    and spill; it is for short bodies.
    """
    # Small buffers of global scope are the only ones that TVM puts on the stack.
    return T.alloc_buffer((count * lanes,), dtype, scope="global" if on_stack else "local", layout=None)


def workspace(size: int, dtype: str = "float32") -> tirx.Buffer:
    """Allocate a flat scratch buffer of ``size`` elements for the duration of the enclosing loop body."""
    return T.alloc_buffer((size,), dtype, layout=None)


def load(buffer: tirx.Buffer, index, lanes: int):
    """Return the ``lanes`` consecutive elements of a flat ``buffer`` from ``index`` on (a scalar for one lane)."""
    return buffer[index] if lanes == 1 else buffer[tirx.Ramp(index, 1, lanes)]


def load_integers(buffer: tirx.Buffer, index, count: int, *, bextr: bool = False) -> list:
    """Emit the load of ``count`` integers, not negative, from ``index`` on by few 64-bit loads, and return them.

    Processors do two or three loads in a cycle, however wide, and more shifts and masks beside them. ``bextr`` is as
    for ``integers_in``.
    """
    bits = DataType(buffer.dtype).bits
    per_word = 64 // bits
    integers = []
    for start in range(0, count, per_word):
        word = T.Bind(T.reinterpret("uint64", load(buffer, index + start, per_word)))
        integers += integers_in(word, bits, bextr=bextr)
    return integers


def integers_in(word, bits: int, *, bextr: bool = False) -> list:
    """Return the integers of ``bits`` each, not negative, that a 64-bit ``word`` holds, low bits first.

    They are int32, or int64 with ``bextr``: then each is taken out by x86's instruction for that (``target.bextr``),
    where LLVM would copy, shift and mask.
    """
    mask, places = T.uint64(2**bits - 1), range(0, 64, bits)
    if not bextr:
        return [T.Cast("int32", T.bitwise_and(T.shift_right(word, T.uint64(place)), mask)) for place in places]
    parts = [T.bitwise_and(word, mask)]
    for place in places[1:]:
        field = T.uint64(bits << 8 | place)
        parts.append(tirx.op.call_llvm_pure_intrin("uint64", "llvm.x86.bmi.bextr.64", word, field))
    return [T.Cast("int64", part) for part in parts]


def store(buffer: tirx.Buffer, index, value, lanes: int) -> None:
    """Store ``value``, a vector of ``lanes`` elements, to a flat ``buffer`` from ``index`` on."""
    T.buffer_store(buffer, value, [index if lanes == 1 else tirx.Ramp(index, 1, lanes)])


def prefetch(buffer: tirx.Buffer, index, *, write: bool = False, near: bool = False) -> None:
    """Ask for the cache line of an element of a flat ``buffer``, which need not lie inside, to come nearer.

    It comes to the first-level cache if it will be written or is wanted ``near``, else to the second.
    """
    address = tirx.op.address_of(buffer[index])
    level = 3 if write or near else 2
    T.evaluate(tirx.op.call_llvm_intrin("void", "llvm.prefetch", address, *map(T.int32, (write, level, 1))))


def fetch_share(buffer: tirx.Buffer, start, count: int, step, steps: int) -> None:
    """Emit prefetches of share number ``step``, of ``steps``, of the ``count`` elements from ``start`` on."""
    lines = -(-count // (LINE_FLOATS * steps))
    first = T.Bind(start + step * (lines * LINE_FLOATS))
    for line in range(lines):
        prefetch(buffer, first + line * LINE_FLOATS, near=True)


def splat(value, lanes: int):
    """Return ``value`` (an expression or a Python float) in every lane of a vector."""
    scalar = T.float32(value) if isinstance(value, (int, float)) else value
    return scalar if lanes == 1 else tirx.Broadcast(scalar, lanes)


def unrolled(extent: int, body: Callable[[Any], None], times: int = 4) -> None:
    """Emit ``body(i)`` for each i below ``extent``, in a loop of ``times`` bodies and, after it, the rest of them."""
    whole = extent // times * times
    if whole:
        with T.serial(whole // times) as step:
            for j in range(times):
                body(T.Bind(step * times + j))
    for i in range(whole, extent):
        body(i)


def widths(extent: int, lanes: int) -> list[tuple[int, int]]:
    """Cover ``extent`` elements exactly with (start, width) vectors, widths being powers of two up to ``lanes``."""
    pieces, start = [], 0
    while start < extent:
        width = lanes
        while width > extent - start:
            width //= 2
        pieces.append((start, width))
        start += width
    return pieces
