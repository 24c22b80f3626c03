"""Emits sums of products with a CSR matrix: each non-zero multiplies a tile of positions kept in registers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm.tirx.script.builder import ir as T

from graphprune.backend.formats import BlockedCsr
from graphprune.backend.kernels.emit import load, registers, splat, store, workspace


class CsrSums:
    """Sums ``bias[m] + sum_e value[e] * source[start + origin + offset[e] + shift]`` for every vector's shift.

    ``origin`` is that of the reduction block plus that of the row's group.

    Args:
        arrays: flat buffers of values, offsets, pointers and bias, as packed by ``pack_csr``.
        packed: the packed matrix, for its numbers of rows and blocks.
        shifts: where each vector of the tile lies in the source, relative to the tile's first position.
        lanes: float32 elements per vector.
        groups: equal groups of rows, the convolution's.
        group_stride: from one group's origin in the source to the next one's.
    """

    def __init__(
        self,
        arrays: Sequence,
        packed: BlockedCsr,
        shifts: Sequence[int],
        lanes: int,
        groups: int = 1,
        group_stride: int = 0,
    ):
        self.values, self.offsets, self.pointers, self.bias = arrays
        self.packed, self.rows, self.blocks = packed, packed.rows, packed.blocks
        self.group_rows, self.group_stride = packed.rows // groups, group_stride
        self.shifts, self.lanes = tuple(shifts), lanes
        self.width = len(self.shifts) * lanes

    def in_registers(self, row, source, start):
        """Emit the sums of one row over the only block and return the registers that hold them."""
        sums = registers(len(self.shifts), self.lanes)
        self._start(sums, 0, row)
        self._accumulate(sums, row, 0, source, start)
        return sums

    def in_workspace(
        self, first_row, count: int, source, start, fill: Callable | None = None, ahead: Callable | None = None
    ):
        """Emit the sums of ``count`` rows over all blocks and return a [count, width] workspace of them.

        ``fill(block)`` emits what has to happen before a block, such as gathering its inputs in ``source``;
        ``ahead(block, row)`` what goes along with each of the rows, such as asking for later inputs.
        """
        partial = workspace(count * self.width)
        with T.serial(count) as row:
            self._start(partial, row * self.width, first_row + row)
        with T.serial(self.blocks) as block:
            if fill is not None:
                fill(block)
            with T.serial(count) as row:
                if ahead is not None:
                    ahead(block, row)
                sums = registers(len(self.shifts), self.lanes)
                self._move(partial, row * self.width, sums, 0)
                self._accumulate(sums, first_row + row, block, source, start)
                self._move(sums, 0, partial, row * self.width)
        return partial

    def _start(self, sums, base, row) -> None:
        for v in range(len(self.shifts)):
            store(sums, base + v * self.lanes, splat(self.bias[row], self.lanes), self.lanes)

    def _move(self, source, source_base, target, target_base) -> None:
        for v in range(len(self.shifts)):
            offset = v * self.lanes
            store(target, target_base + offset, load(source, source_base + offset, self.lanes), self.lanes)

    def _accumulate(self, sums, row, block, source, start) -> None:
        pointer = block * self.rows + row
        first = T.Bind(self.pointers[pointer])
        origin = start + block * self.packed.block_stride
        if self.group_stride:
            origin = origin + row // self.group_rows * self.group_stride
        origin = T.Bind(origin)
        with T.serial(self.pointers[pointer + 1] - first) as e:
            weight = T.Bind(splat(self.values[first + e], self.lanes))
            shifted = T.Bind(origin + T.Cast("int32", self.offsets[first + e]))
            for v, shift in enumerate(self.shifts):
                product = weight * load(source, shifted + shift, self.lanes)
                store(sums, v * self.lanes, load(sums, v * self.lanes, self.lanes) + product, self.lanes)
