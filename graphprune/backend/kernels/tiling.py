"""Rectangles of output positions held in vector registers, and how many work items to make for the threads.

A grid of ``rows x columns`` positions is covered by equal tiles. Where the sizes do not divide, the last tile of a row
or column is moved back so that it ends at the edge: some positions are computed twice, with equal results, and no
kernel needs a guard. The same trick covers the columns of a tile by full vectors.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm.tirx.script.builder import ir as T

LINE_FLOATS = 16  # float32 elements in a cache line
_CHUNK_COST = 0.03  # of one more chunk of rows, as a share of the whole
_LINE_COST = 0.05  # of touching one more cache line, in vector operations


@dataclass(frozen=True)
class Tile:
    """A tile of ``rows x columns`` positions in a grid of ``grid_rows x grid_columns``, for vectors of ``lanes``."""

    grid_rows: int
    grid_columns: int
    rows: int
    columns: int
    lanes: int

    @property
    def tiles_down(self) -> int:
        """Tiles along the rows of the grid."""
        return -(-self.grid_rows // self.rows)

    @property
    def tiles_across(self) -> int:
        """Tiles along the columns of the grid."""
        return -(-self.grid_columns // self.columns)

    @property
    def count(self) -> int:
        """Tiles in the grid."""
        return self.tiles_down * self.tiles_across

    @property
    def starts(self) -> tuple[int, ...]:
        """First column, within the tile, of each vector of a row."""
        last = max(self.columns - self.lanes, 0)
        return tuple(min(start, last) for start in range(0, self.columns, self.lanes))

    @property
    def pitch(self) -> int:
        """Positions of a row of the tile in whole vectors; more than ``columns`` where these do not divide."""
        return len(self.starts) * self.lanes

    @property
    def vectors(self) -> list[tuple[int, int]]:
        """(row, first column) of each vector of the tile, relative to the tile."""
        return [(row, start) for row in range(self.rows) for start in self.starts]

    def origin(self, index):
        """Emit and return the first (row, column) of tile ``index``."""
        down, across = index // self.tiles_across, index % self.tiles_across
        row = T.Bind(T.min(down * self.rows, self.grid_rows - self.rows))
        return row, T.Bind(T.min(across * self.columns, self.grid_columns - self.columns))

    @property
    def stored_lanes(self) -> int:
        """Lanes of each vector that are real positions; fewer than ``lanes`` only where the whole grid is narrower."""
        return min(self.lanes, self.columns)


def choose_tile(
    grid_rows: int,
    grid_columns: int,
    lanes: int,
    most_vectors: int,
    overhead: float,
    reach: int = 0,
    partial_rows: float = 1.0,
) -> Tile:
    """Return the tile of at most ``most_vectors`` that walks the grid at least cost.

    One step over a tile costs its vectors plus ``overhead``, in units of one vector operation, plus a little for every
    cache line of input it touches; a k x k convolution reads ``reach`` more rows of input than the tile has. Tiles of
    less than whole rows, which do not lie together in memory, cost ``partial_rows`` times as much.
    """
    best: tuple[float, Tile] | None = None
    for across in range(1, max(1, grid_columns // lanes) + 1):
        columns = -(-grid_columns // across)
        columns = min(grid_columns, -(-columns // lanes) * lanes)
        per_row = -(-columns // lanes)
        for rows in range(1, min(grid_rows, most_vectors // per_row) + 1):
            tile = Tile(grid_rows, grid_columns, rows, columns, lanes)
            lines = (rows + reach) * (columns / LINE_FLOATS + 1)
            cost = tile.count * (len(tile.vectors) + overhead + _LINE_COST * lines)
            cost *= partial_rows if across > 1 else 1.0
            if best is None or cost < best[0]:
                best = cost, tile
    if best is None:
        best = 0.0, Tile(grid_rows, grid_columns, 1, min(grid_columns, lanes), lanes)
    return best[1]


def row_chunks(rows: int, tiles: int, cores: int, granule: int = 1, least: int = 1) -> int:
    """Return into how many chunks to cut ``rows`` output rows so that ``tiles`` position tiles share out to ``cores``.

    Threads get equal numbers of (tile, chunk) pairs, or nearly so; every chunk costs a little, as it reads the tile's
    input again. A chunk has at least ``granule`` rows. There are at least ``least`` chunks if the rows suffice.
    """

    def cost(chunks: int) -> float:
        items = tiles * chunks
        busiest = -(-items // cores)
        return busiest * cores / items * (1 + _CHUNK_COST * chunks)

    least = min(least, max(1, rows // granule))
    most = max(least, min(rows // granule, 4 * cores))
    return min(range(least, most + 1), key=cost)
