"""Emits sums of products with a CSR matrix: each non-zero multiplies a tile of positions kept in registers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from graphprune.backend.formats import LATER, BlockedCsr
from graphprune.backend.kernels.emit import load, load_integers, prefetch, registers, splat, store, workspace
from graphprune.backend.kernels.tiling import LINE_FLOATS

# Non-zeros whose values, and whose offsets, are loaded together: processors load two or three times a cycle, whatever
# the width, and every multiply-add needs a load of its own already.
TOGETHER = 4
_AHEAD = min(2, LATER)  # rows from the one that is computed to the one whose sums are asked for
_CHAINS = 8  # independent sums that hide the latency of a multiply-add: two units times four cycles
# Non-zeros in a row of a block from which on loading together, and a second set of sums, pay: sooner where the few sums
# of a narrow tile wait for each other.
_LONG_ROW, _LONG_NARROW_ROW = 20, 8
_OPERANDS = 3  # registers besides the sums: four values, one of them in all lanes, and one to spare


class CsrSums:
    """Sums ``bias[m] + sum_e value[e] * source[start + origin + offset[e] + shift]`` for every vector's shift.

    ``origin`` is that of the reduction block plus that of the row's group.

    Args:
        arrays: flat buffers of the arrays of the packed matrix, and of the bias.
        packed: the matrix, as packed by ``pack_csr``.
        shifts: where each vector of the tile lies in the source, relative to the tile's first position.
        lanes: float32 elements per vector.
        registers: vector registers that the processor has.
        groups: equal groups of rows, the convolution's.
        group_stride: from one group's origin in the source to the next one's.
    """

    def __init__(
        self,
        arrays: Sequence,
        packed: BlockedCsr,
        shifts: Sequence[int],
        lanes: int,
        registers: int,
        groups: int = 1,
        group_stride: int = 0,
    ):
        self.values, self.offsets, self.pointers, *order, self.bias = arrays
        self.order = order[0] if order else None
        self.packed, self.rows, self.blocks = packed, packed.rows, packed.blocks
        self.group_rows, self.group_stride = packed.rows // groups, group_stride
        self.whole = packed.together % TOGETHER == 0
        self.shifts, self.lanes = tuple(shifts), lanes
        self.width = len(self.shifts) * lanes
        vectors = len(self.shifts)
        row_length = len(packed.values) / (packed.rows * packed.blocks)
        self.long_rows = row_length >= (_LONG_NARROW_ROW if vectors < _CHAINS else _LONG_ROW)
        self.second_set = self.long_rows and vectors < _CHAINS and 2 * vectors + _OPERANDS <= registers

    def over_blocks(
        self,
        first_row,
        count: int,
        source,
        start,
        fill: Callable | None = None,
        finish: Callable | None = None,
        beside: Callable | None = None,
        ahead: Callable | None = None,
        first_place=None,
    ):
        """Emit the sums of ``count`` rows over all blocks and return a [count, width] workspace of them.

        ``fill(block)`` emits what has to happen before a block, such as gathering its inputs in ``source``. With
        ``finish`` the complete sums of a row do not go to the workspace, but ``finish(sums, row)`` emits what becomes
        of them; there is no workspace then if there is one block only. ``beside(block, number)`` emits what else to do
        with each row of each block, such as asking for the next block's inputs.

        Where the packed matrix has an order of its own, ``first_place`` is the first place of a run of ``count``, and
        rows come in its order, counted from ``first_row`` on. No processor foresees it: ``ahead(row)`` asks for the
        memory that ``finish`` will need.
        """
        last = self.blocks - 1
        partial = workspace(count * self.width) if last or finish is None else None

        def emit(block, *, begins: bool, ends: bool) -> None:
            if fill is not None:
                fill(block)
            place = T.Bind(block * self.rows + (first_row if self.order is None else first_place))
            with T.serial(count) as number:
                row = self._row(place, number)
                base = T.Bind(row * self.width)
                if beside is not None:
                    beside(block, number)
                if self.order is not None:
                    later = self._row(place, number + _AHEAD)
                    if not begins:
                        self._ask_for(partial, later)
                    if ends and ahead is not None:
                        ahead(later)
                sums = registers(len(self.shifts), self.lanes, on_stack=True)
                if begins:
                    self._start(sums, first_row + row)
                else:
                    self._move(partial, base, sums, 0)
                self._accumulate(sums, first_row + row, place + number, block, source, start)
                if ends and finish is not None:
                    finish(sums, row)
                else:
                    self._move(sums, 0, partial, base)

        # The first and the last block stand outside of the loop: their rows then need not ask which block it is.
        emit(0, begins=True, ends=not last)
        if last > 1:
            with T.serial(last - 1) as middle:
                emit(T.Bind(middle + 1), begins=False, ends=False)
        if last:
            emit(last, begins=False, ends=True)
        return partial

    def _row(self, first_place, number):
        """Return which row of its run comes as the one with that number."""
        if self.order is None:
            return number
        return T.Bind(T.Cast("int32", self.order[first_place + number]))

    def _ask_for(self, partial, row) -> None:
        base = T.Bind(row * self.width)
        for line in range(0, self.width, LINE_FLOATS):
            prefetch(partial, base + line, near=True)

    def _start(self, sums, row) -> None:
        for v in range(len(self.shifts)):
            store(sums, v * self.lanes, splat(self.bias[row], self.lanes), self.lanes)

    def _move(self, source, source_base, target, target_base) -> None:
        for v in range(len(self.shifts)):
            offset = v * self.lanes
            store(target, target_base + offset, load(source, source_base + offset, self.lanes), self.lanes)

    def _accumulate(self, sums, row, place, block, source, start) -> None:
        first = T.Bind(self.pointers[place])
        reads_block_before = int(self.packed.together > 1)
        origin = start + (block - reads_block_before) * self.packed.block_stride
        if self.group_stride:
            origin = origin + row // self.group_rows * self.group_stride
        origin = T.Bind(origin)
        count = T.Bind(self.pointers[place + 1] - first)
        if self.long_rows or self.whole:
            self._accumulate_together(sums, first, count, source, origin)
        else:
            with T.serial(count) as e:
                self._accumulate_one(sums, first + e, source, origin)

    def _accumulate_together(self, sums, first, count, source, origin) -> None:
        """Emit the products of ``count`` non-zeros, ``TOGETHER`` at a time and then the rest of them."""
        others = self._second_sums()
        turns = [sums, sums if others is None else others]
        with T.serial(count // TOGETHER) as step:
            begin = T.Bind(first + step * TOGETHER)
            weights = T.Bind(self._values_together(begin))
            for i, offset in enumerate(load_integers(self.offsets, begin, TOGETHER)):
                weight = tirx.Shuffle([weights], [lane // TOGETHER * TOGETHER + i for lane in range(self.lanes)])
                self._add(turns[i % 2], T.Bind(weight), source, T.Bind(origin + offset))
        if not self.whole:
            rest = T.Bind(first + count // TOGETHER * TOGETHER)
            with T.serial(count % TOGETHER) as e:
                self._accumulate_one(sums, rest + e, source, origin)
        if others is not None:
            for start in range(0, self.width, self.lanes):
                store(sums, start, load(sums, start, self.lanes) + load(others, start, self.lanes), self.lanes)

    def _accumulate_one(self, sums, element, source, origin) -> None:
        weight = T.Bind(splat(self.values[element], self.lanes))
        self._add(sums, weight, source, T.Bind(origin + T.Cast("int32", self.offsets[element])))

    def _second_sums(self):
        """Emit zeroed registers for every other non-zero's products if one set of sums cannot hide their latency."""
        if not self.second_set:
            return None
        others = registers(len(self.shifts), self.lanes, on_stack=True)
        for start in range(0, self.width, self.lanes):
            store(others, start, splat(0.0, self.lanes), self.lanes)
        return others

    def _values_together(self, begin):
        """Return ``TOGETHER`` values from ``begin`` on, repeated to fill a vector, as the result of one load."""
        values, repeats = load(self.values, begin, TOGETHER), self.lanes // TOGETHER
        repeated = tirx.Shuffle([values] * repeats, list(range(TOGETHER)) * repeats)
        # Without the fence LLVM loads each value again to broadcast it.
        return tirx.op.call_llvm_pure_intrin(f"float32x{self.lanes}", "llvm.arithmetic.fence", repeated)

    def _add(self, sums, weight, source, position) -> None:
        for v, shift in enumerate(self.shifts):
            product = weight * load(source, position + shift, self.lanes)
            store(sums, v * self.lanes, load(sums, v * self.lanes, self.lanes) + product, self.lanes)
