"""Packed forms of weights, as plain numpy: what kernels read instead of a dense matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LATER = 8  # places beyond the last one that kernels may look at, so that they can ask for memory ahead


@dataclass(frozen=True)
class BlockedCsr:
    """CSR cut along the reduction axis, with each non-zero's column replaced by the offset its kernel reads at.

    Attributes:
        values: float32 [non-zeros], ordered by block, then place of the row, then column.
        offsets: [non-zeros], offset into the kernel's input from the block's origin on; uint16 if all of them fit,
            else int32.
        pointers: int32 [blocks * rows + 1]; the row at place i of block b starts at ``pointers[b * rows + i]``.
        rows: places for the rows of a block; more than there are output rows if two runs overlap.
        blocks: reduction blocks.
        block_stride: from one block's origin in the kernel's input to the next one's.
        together: what divides the number of non-zeros in every row of every block. If that is more than 1, a block may
            hold some of the block before, and its offsets count from the origin of that.
        order: which row is at each place, counted from its run's first one on: [blocks * rows + ``LATER``], with zeros
            at the end; uint16 if all of them fit, else int32. None if rows are at their own places.
        run: places of a run; 0 without an order.

    ``values`` and ``offsets`` hold one unused zero if there are no non-zeros at all, since kernels cannot take empty
    buffers.
    """

    values: np.ndarray
    offsets: np.ndarray
    pointers: np.ndarray
    rows: int
    blocks: int
    block_stride: int = 0
    together: int = 1
    order: np.ndarray | None = None
    run: int = 0

    @property
    def note(self) -> str:
        """How offsets are stored, for people."""
        return f"{8 * self.offsets.itemsize}-bit offsets"

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """Values, offsets, pointers, and the order if there is one."""
        return (self.values, self.offsets, self.pointers, *([] if self.order is None else [self.order]))


def pack_csr(
    matrix: np.ndarray, block_offsets: np.ndarray, block_stride: int = 0, run: int | None = None
) -> BlockedCsr:
    """Pack ``matrix`` [rows, columns] into blocks of ``len(block_offsets)`` columns.

    ``block_offsets`` says where the kernel reads the columns of a block, from the block's origin on, and
    ``block_stride`` how far the next block's origin is.

    With ``run`` the rows are cut into runs, the last moved back if they do not divide, and in each block the rows of a
    run are put in order of their non-zeros: where neighbours are equally long, a processor foresees when loops over
    them end. Without, they stay as they are.

    Where offsets need more than 16 bits they take 32. Smaller forms are possible (steps from one non-zero to the next,
    multiples of a common divisor), but cost a kernel 2 to 4 %, and only layers with large planes need them, which have
    few weights.
    """
    if run is not None:
        matrix = matrix[(tile_starts(len(matrix), run)[:, None] + np.arange(run)).ravel()]
    rows, columns = matrix.shape
    block = len(block_offsets)
    blocks = max(1, -(-columns // block))
    row, column = np.nonzero(matrix)
    counts = np.bincount(column // block * rows + row, minlength=blocks * rows)
    order, place = None, row
    if run is not None:
        by_run = counts.reshape(-1, run)
        by_length = np.argsort(-by_run, axis=1, kind="stable")
        counts = np.take_along_axis(by_run, by_length, 1).ravel()
        order = _narrowest(np.pad(by_length.ravel(), (0, LATER)))
        place = np.argsort(by_length, axis=1).reshape(blocks, rows)[column // block, row] + row // run * run
    sequence = np.lexsort((column, place, column // block))
    row, column = row[sequence], column[sequence]
    pointers = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    values = matrix[row, column].astype(np.float32)
    offsets = block_offsets[column % block]
    if not len(values):
        values, offsets = np.zeros(1, np.float32), np.zeros(1, np.int64)
    offsets = _narrowest(offsets)
    return BlockedCsr(values, offsets, pointers, rows, blocks, block_stride, order=order, run=run or 0)


def pack_csr_together(matrix: np.ndarray, block_offsets: np.ndarray, block_stride: int, together: int) -> BlockedCsr:
    """Pack ``matrix`` as ``pack_csr`` does, with a multiple of ``together`` non-zeros in each row of each block.

    Those that are left over go to the next block. Where a row of the last one, or of a block that has too few to go
    with what was left over, has to be filled up, its last non-zero is stored in parts: a zero would multiply an input
    too, and make an infinity there a NaN in a row that does not depend on it.
    """
    rows, columns = matrix.shape
    block = len(block_offsets)
    blocks = -(-columns // block)
    row, column = np.nonzero(matrix)
    counts = np.bincount(row * blocks + column // block, minlength=rows * blocks).reshape(rows, blocks)
    taken, filled = _shares(counts, together)
    ends = np.cumsum(taken, axis=1)
    in_row = np.arange(len(row)) - np.searchsorted(row, np.arange(rows))[row]
    own = np.zeros(len(row), np.int64)
    for end in ends.T:
        own += in_row >= end[row]
    pointers = np.concatenate([[0], np.cumsum(filled.T.ravel())]).astype(np.int32)
    slot = pointers[own * rows + row] + in_row - (ends - taken)[row, own]
    values = np.zeros(max(1, pointers[-1]), np.float32)
    offsets = np.zeros(len(values), np.int64)
    values[slot] = matrix[row, column]
    offsets[slot] = block_offsets[column % block] + (column // block - own + 1) * block_stride
    for missing in range(1, together):
        places = np.flatnonzero((filled - taken).T.ravel() == missing)
        last = pointers[places + 1] - 1 - missing
        parts = last[:, None] + np.arange(missing + 1)
        offsets[parts] = offsets[last][:, None]
        values[parts] = values[last][:, None] * _powers_of_two(missing + 1)
    return BlockedCsr(values, _narrowest(offsets), pointers, rows, blocks, block_stride, together)


def _shares(counts: np.ndarray, together: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how many non-zeros of ``counts`` [rows, blocks] each block holds, and how many when it is filled up."""
    taken, filled = np.zeros_like(counts), np.zeros_like(counts)
    left = np.zeros(len(counts), counts.dtype)
    for block in range(counts.shape[1]):
        there = left + counts[:, block]
        up = left if block < counts.shape[1] - 1 else there  # what may not be left to yet another block
        filled[:, block] = np.maximum(there // together, -(-up // together)) * together
        taken[:, block] = np.minimum(filled[:, block], there)
        left = there - taken[:, block]
    return taken, filled


def _powers_of_two(count: int) -> np.ndarray:
    """Return ``count`` powers of two, as equal as they can be, whose sum is 1: products with them are exact."""
    halved = 1 << (count - 1).bit_length()
    return np.array([2.0] * (halved - count) + [1.0] * (2 * count - halved), np.float32) / halved


def _narrowest(offsets: np.ndarray) -> np.ndarray:
    return offsets.astype(np.uint16 if offsets.max() <= np.iinfo(np.uint16).max else np.int32)


def tile_starts(extent: int, tile: int) -> np.ndarray:
    """Return where tiles of ``tile`` start that cover ``extent``; the last one is moved back to end at the edge."""
    return np.minimum(np.arange(0, extent, tile), extent - tile)


def pack_panels(matrix: np.ndarray, panel: int) -> np.ndarray:
    """Pack ``matrix`` [rows, columns] into float32 panels [ceil(rows / panel), columns, panel] of ``panel`` rows each.

    Where ``panel`` does not divide the rows, the last panel is moved back and repeats some rows of the one before.
    """
    rows = tile_starts(matrix.shape[0], panel)[:, None] + np.arange(panel)
    return np.ascontiguousarray(matrix[rows].transpose(0, 2, 1), dtype=np.float32)


def pack_blocked_panels(matrix: np.ndarray, panel: int, length: int) -> np.ndarray:
    """Pack ``matrix`` into panels as ``pack_panels`` does, ``length`` columns of all panels before the next columns."""
    panels = pack_panels(matrix, panel)
    return np.concatenate([panels[:, k : k + length].ravel() for k in range(0, matrix.shape[1], length)])
