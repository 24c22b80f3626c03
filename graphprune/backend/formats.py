"""Packed forms of weights, as plain numpy: what kernels read instead of a dense matrix."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class BlockedCsr:
    """CSR cut along the reduction axis, with each non-zero's column replaced by the offset its kernel reads at.

    Attributes:
        values: float32 [non-zeros], ordered by block, then row, then column.
        offsets: [non-zeros], offset into the kernel's input from the block's origin on; uint16 if all of them fit,
            else int32.
        pointers: int32 [blocks * rows + 1]; row m of block b starts at ``pointers[b * rows + m]``.
        rows: output rows.
        blocks: reduction blocks.
        block_stride: from one block's origin in the kernel's input to the next one's.
        together: what divides the number of non-zeros in every row of every block. If that is more than 1, a block may
            hold some of the block before, and its offsets count from the origin of that.

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

    @property
    def note(self) -> str:
        """How offsets are stored, for people."""
        return f"{8 * self.offsets.itemsize}-bit offsets"


def pack_csr(matrix: np.ndarray, block_offsets: np.ndarray, block_stride: int = 0) -> BlockedCsr:
    """Pack ``matrix`` [rows, columns] into blocks of ``len(block_offsets)`` columns.

    ``block_offsets`` says where the kernel reads the columns of a block, from the block's origin on, and
    ``block_stride`` how far the next block's origin is.

    Where offsets need more than 16 bits they take 32. Smaller forms are possible (steps from one non-zero to the next,
    multiples of a common divisor), but cost a kernel 2 to 4 %, and only layers with large planes need them, which have
    few weights.
    """
    rows, columns = matrix.shape
    block = len(block_offsets)
    blocks = max(1, -(-columns // block))
    row, column = np.nonzero(matrix)
    order = np.lexsort((column, row, column // block))
    row, column = row[order], column[order]
    counts = np.bincount(column // block * rows + row, minlength=blocks * rows)
    pointers = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    values = matrix[row, column].astype(np.float32)
    offsets = block_offsets[column % block]
    if not len(values):
        values, offsets = np.zeros(1, np.float32), np.zeros(1, np.int64)
    return BlockedCsr(values, _narrowest(offsets), pointers, rows, blocks, block_stride)


def pack_csr_together(matrix: np.ndarray, block_offsets: np.ndarray, block_stride: int, together: int) -> BlockedCsr:
    """Pack ``matrix`` as ``pack_csr`` does, with a multiple of ``together`` non-zeros in each row of each block.

    Those that are left over go to the next block. Zeros fill up a row of the last one, or of a block that has too few
    to go with what was left over.
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
    offsets = np.full(len(values), block_stride, np.int64)
    values[slot] = matrix[row, column]
    offsets[slot] = block_offsets[column % block] + (column // block - own + 1) * block_stride
    return BlockedCsr(values, _narrowest(offsets), pointers, rows, blocks, block_stride, together)


def _shares(counts: np.ndarray, together: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how many non-zeros of a row each block holds, of ``counts`` [rows, blocks], and with zeros added."""
    taken, filled = np.zeros_like(counts), np.zeros_like(counts)
    left = np.zeros(len(counts), counts.dtype)
    for block in range(counts.shape[1]):
        there = left + counts[:, block]
        up = left if block < counts.shape[1] - 1 else there  # what may not be left to yet another block
        filled[:, block] = np.maximum(there // together, -(-up // together)) * together
        taken[:, block] = np.minimum(filled[:, block], there)
        left = there - taken[:, block]
    return taken, filled


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
