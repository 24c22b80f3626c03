"""Transposition of square blocks in registers, by shuffles."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.tirx.script.builder import ir as T


def transposed(vectors: Sequence) -> list:
    """Emit the transpose of n vectors of n lanes each, n a power of two: lane j of result i is lane i of vector j."""
    size = len(vectors)
    rows = [T.Bind(vector) for vector in vectors]
    if size == 1:
        return rows
    distance = 1
    while distance < size:
        # Swap the off-diagonal halves of every 2x2 arrangement of distance x distance blocks.
        keep = [lane if not lane & distance else size + (lane ^ distance) for lane in range(size)]
        swap = [lane | distance if not lane & distance else size + lane for lane in range(size)]
        for i in range(size):
            if not i & distance:
                pair = [rows[i], rows[i | distance]]
                rows[i] = T.Bind(tirx.Shuffle(pair, keep))
                rows[i | distance] = T.Bind(tirx.Shuffle(pair, swap))
        distance *= 2
    return rows
