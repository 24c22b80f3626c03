"""Copies the inputs of consecutive output positions together, tap after tap, so that a product reads them in a row.

Output positions of a sample are numbered row by row. Where a run of them crosses rows of the planes it consists of
pieces; each piece is copied in whole vectors, and what that writes too much is overwritten by the next piece or tap.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from tvm.tirx.script.builder import ir as T

from graphprune.backend.kernels.emit import load, prefetch, store, widths
from graphprune.backend.kernels.geometry import ConvGeometry
from graphprune.backend.kernels.tiling import LINE_FLOATS


class PositionCopy:
    """How to copy runs of ``width`` positions, numbered through one sample.

    Attributes:
        table: int32 [runs, pieces, 2]: where a piece starts in the planes of tap 0, and where it goes in its run.
        slack: floats that the copy may read beyond the end of the planes and write before and beyond its target.
    """

    def __init__(self, geometry: ConvGeometry, starts: np.ndarray, width: int) -> None:
        """Prepare runs of ``width`` positions, at most a plane, that begin at positions ``starts``.

        The last run may reach beyond the plane; what is copied there has no meaning.
        """
        self.width = width
        y, x = np.divmod(np.arange(geometry.out_height * geometry.out_width), geometry.out_width)
        source = y * geometry.pitch + x
        runs = [_pieces(source[start : start + width]) for start in starts]
        count = max(len(run) for run in runs)
        self._vectors = _vectors(max(length for run in runs for _, _, length in run), width, geometry)
        self.slack = width + geometry.lanes
        beyond = int(starts[-1]) + width - len(source)
        if geometry.direct and beyond > 0:
            # The input ends where the plane does, so the last run is copied from an earlier position on.
            runs[-1] = [(int(source[-1]) + 1 - width, -beyond, width)]
        padded = [run + [run[-1]] * (count - len(run)) for run in runs]
        self.table = np.array([[piece[:2] for piece in run] for run in padded], np.int32)

    def emit(self, planes, origin, table, run, taps, first, count, target, base=0) -> None:
        """Emit the copy of taps ``first`` to ``first + count`` of run number ``run`` to ``target[base:]``.

        The copy is [count, width]. ``origin`` is where the sample's planes start, ``taps`` the buffer of the taps'
        offsets, ``table`` that of ``self.table``.
        """
        sources, places = self._pieces(table, run, origin)
        with T.serial(count) as k:
            tap, slot = T.Bind(taps[first + k]), T.Bind(base + k * self.width)
            for source, place in zip(sources, places, strict=True):
                for start, lanes in self._vectors:
                    store(target, slot + place + start, load(planes, source + tap + start, lanes), lanes)

    def fetch(self, planes, origin, table, run, taps, first, count) -> None:
        """Emit prefetches of what ``emit`` with the same arguments reads."""
        sources, _ = self._pieces(table, run, origin)
        last = self._vectors[-1][0] + self._vectors[-1][1] - 1
        with T.serial(count) as k:
            tap = T.Bind(taps[first + k])
            for source in sources:
                for start in range(0, last + LINE_FLOATS, LINE_FLOATS):
                    prefetch(planes, source + tap + min(start, last), near=True)

    def _pieces(self, table, run, origin) -> tuple[list, list]:
        pieces = self.table.shape[1]
        entry = T.Bind(run * (2 * pieces))
        sources = [T.Bind(origin + table[entry + 2 * i]) for i in range(pieces)]
        return sources, [T.Bind(table[entry + 2 * i + 1]) for i in range(pieces)]


def _pieces(source: np.ndarray) -> list[tuple[int, int, int]]:
    """Return (first source, place in the run, length) of each stretch of consecutive sources."""
    places = [0, *(np.flatnonzero(np.diff(source) != 1) + 1).tolist(), len(source)]
    return [(int(source[start]), start, end - start) for start, end in pairwise(places)]


def _vectors(longest: int, width: int, geometry: ConvGeometry) -> list[tuple[int, int]]:
    """Return (start, lanes) of the vectors that copy a piece; only planes of our own may be read beyond their end."""
    if geometry.direct:
        return widths(width, geometry.lanes)
    return [(start, geometry.lanes) for start in range(0, longest, geometry.lanes)]
