"""A block of sums held in registers: scalars down the rows times vectors across, the core of every dense product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from graphprune.backend.kernels.emit import load, registers, splat, store, unrolled
from graphprune.backend.target import CompileTarget

_LATENCY_SUMS = 8  # independent sums that keep two multiply-add units busy at a latency of four cycles
_LOAD_COST = 0.5  # of one load that hides behind multiply-adds, in multiply-adds
_START_COST = 24.0  # of starting and storing one block, in multiply-adds


@dataclass(frozen=True)
class Operand:
    """One side of a product: element i of step k of the reduction lies at ``buffer[start + k * step + i * across]``."""

    buffer: tirx.Buffer
    start: Any
    step: int
    across: int = 1


@dataclass(frozen=True)
class RegisterBlock:
    """``rows x (vectors * lanes)`` float32 sums."""

    rows: int
    vectors: int
    lanes: int

    @property
    def width(self) -> int:
        """Columns of the block."""
        return self.vectors * self.lanes

    def allocate(self):
        """Emit the allocation of the sums."""
        return registers(self.rows * self.vectors, self.lanes)

    def slot(self, row: int, vector: int) -> int:
        """Return where the sums of a row and vector begin."""
        return (row * self.vectors + vector) * self.lanes

    def clear(self, sums) -> None:
        """Emit zeros for all sums."""
        for offset in range(0, self.rows * self.width, self.lanes):
            store(sums, offset, splat(0.0, self.lanes), self.lanes)

    def resume(self, sums, held, base) -> None:
        """Emit the load of the sums from where ``hold`` left them, ``held[base:]``."""
        for offset in range(0, self.rows * self.width, self.lanes):
            store(sums, offset, load(held, base + offset, self.lanes), self.lanes)

    def hold(self, sums, held, base) -> None:
        """Emit the store of unfinished sums to ``held[base:]``, row by row."""
        for offset in range(0, self.rows * self.width, self.lanes):
            store(held, base + offset, load(sums, offset, self.lanes), self.lanes)

    def multiply(self, sums, depth: int, wide: Operand, narrow: Operand) -> None:
        """Emit ``depth`` steps of the reduction: ``wide`` gives each one ``width`` columns, ``narrow`` the rows."""

        def step(k) -> None:
            column, row = T.Bind(wide.start + k * wide.step), T.Bind(narrow.start + k * narrow.step)
            vectors = [load(wide.buffer, column + v * self.lanes, self.lanes) for v in range(self.vectors)]
            self.step(sums, vectors, [narrow.buffer[row + i * narrow.across] for i in range(self.rows)])

        unrolled(depth, step)

    def step(self, sums, vectors: Sequence, scalars: Sequence) -> None:
        """Emit ``sums[i, v] += scalars[i] * vectors[v]``, keeping the fewer kind of operand in registers."""
        if self.rows < self.vectors:
            held = [T.Bind(splat(scalar, self.lanes)) for scalar in scalars]
            for v, vector in enumerate(vectors):
                value = T.Bind(vector)
                for i, factor in enumerate(held):
                    self._add(sums, i, v, factor * value)
            return
        held = [T.Bind(vector) for vector in vectors]
        for i, scalar in enumerate(scalars):
            factor = T.Bind(splat(scalar, self.lanes))
            for v, value in enumerate(held):
                self._add(sums, i, v, factor * value)

    def _add(self, sums, row: int, vector: int, product) -> None:
        slot = self.slot(row, vector)
        store(sums, slot, load(sums, slot, self.lanes) + product, self.lanes)

    def cost(self, depth: int) -> float:
        """Return the estimated time of one block over a reduction of ``depth``, in half cycles."""
        sums, loads = self.rows * self.vectors, self.rows + self.vectors
        return depth * (max(sums, loads, _LATENCY_SUMS) + _LOAD_COST * loads) + _START_COST + sums


def most_rows(vectors: int, registers: int) -> int:
    """Return how many rows of ``vectors`` vectors of sums leave enough registers for the operands of a step."""
    rows = 0
    while (rows + 1) * vectors + min(rows + 1, vectors) + 1 <= registers:
        rows += 1
    return rows


def reduction_block(depth: int, most: int) -> int:
    """Return into pieces of which length to cut a reduction: at most ``most``, equal ones if that costs little."""
    if depth <= most:
        return depth
    divisors = [length for length in range(most // 2, most + 1) if depth % length == 0]
    return max(divisors, default=-(-depth // -(-depth // most)))


def choose_block(
    rows: int, columns: int, depth: int, target: CompileTarget, vectors: int | None = None
) -> RegisterBlock:
    """Return the block that computes a ``rows x columns`` result of a ``depth``-long reduction at least cost.

    With ``vectors`` it has that many vectors across, or as many as fit.
    """
    lanes = target.lanes
    while lanes > columns:
        lanes //= 2
    best: tuple[float, RegisterBlock] | None = None
    most = min(_LATENCY_SUMS, columns // lanes)
    for across in range(1, most + 1) if vectors is None else (min(vectors, most),):
        block_rows = min(rows, most_rows(across, target.registers))
        if block_rows < 1:
            break
        block = RegisterBlock(block_rows, across, lanes)
        tiles = -(-rows // block.rows) * -(-columns // block.width)
        cost = tiles * block.cost(depth)
        if best is None or cost < best[0]:
            best = cost, block
    assert best is not None, "one vector always fits"
    return best[1]
