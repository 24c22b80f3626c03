"""A block of sums held in registers: rows of scalars times rows of vectors, the core of every dense product."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.tirx.script.builder import ir as T

from graphprune.backend.kernels.emit import load, registers, splat, store
from graphprune.backend.target import CompileTarget


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

    def step(self, sums, wide, wide_start, narrow, narrow_start, narrow_stride) -> None:
        """Emit ``sums[i, :] += narrow[narrow_start + i * narrow_stride] * wide[wide_start:][:width]`` for every row i."""
        values = [
            T.Bind(load(wide, wide_start + v * self.lanes, self.lanes)) for v in range(self.vectors)
        ]
        for i in range(self.rows):
            factor = T.Bind(splat(narrow[narrow_start + i * narrow_stride], self.lanes))
            for v, value in enumerate(values):
                slot = self.slot(i, v)
                store(sums, slot, load(sums, slot, self.lanes) + factor * value, self.lanes)


def choose_block(rows: int, columns: int, target: CompileTarget) -> RegisterBlock:
    """Return the block for a ``rows x columns`` result that keeps the multiply-add units busiest.

    One row (a matrix-vector product) gets many vectors, so that there are enough independent sums to hide latency.
    """
    lanes = target.lanes
    while lanes > columns:
        lanes //= 2
    best: tuple[float, RegisterBlock] | None = None
    for vectors in range(1, min(8, columns // lanes) + 1):
        most_rows = (target.registers - vectors - 1) // vectors
        if most_rows < 1:
            break
        block = RegisterBlock(min(rows, most_rows), vectors, lanes)
        tiles = -(-rows // block.rows) * -(-columns // block.width)
        multiplies, loads = block.rows * vectors, block.rows + vectors
        cost = tiles * max(multiplies, loads, 8)  # eight independent sums hide the latency of a multiply-add
        if best is None or cost <= best[0]:
            best = cost, block
    assert best is not None
    return best[1]
