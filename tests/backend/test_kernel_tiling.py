import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphprune.backend.kernels.tiling import choose_tile, row_chunks


@given(st.integers(1, 60), st.integers(1, 300), st.sampled_from([4, 8, 16]), st.integers(1, 12), st.integers(0, 3))
def test_tiles_cover_the_grid_within_their_registers(rows, columns, lanes, most_vectors, reach):
    tile = choose_tile(rows, columns, lanes, most_vectors, overhead=3.0, reach=reach)
    assert len(tile.vectors) <= most_vectors
    assert tile.rows <= rows and tile.columns <= columns
    assert tile.tiles_down * tile.rows >= rows and tile.tiles_across * tile.columns >= columns
    covered = {(row, start + lane) for row, start in tile.vectors for lane in range(tile.stored_lanes)}
    assert covered == {(row, column) for row in range(tile.rows) for column in range(tile.columns)}


@pytest.mark.parametrize("tiles, cores", [(1, 2), (3, 2), (9, 2), (1, 4), (7, 4), (64, 4), (5, 1)])
def test_chunks_keep_threads_equally_busy(tiles, cores):
    chunks = row_chunks(512, tiles, cores, granule=16)
    busiest = -(-tiles * chunks // cores)
    assert busiest * cores <= 1.1 * tiles * chunks
    if tiles % cores == 0:
        assert chunks == 1


def test_chunks_keep_their_least_size():
    assert row_chunks(rows=20, tiles=1, cores=8, granule=16) == 1


def test_chunks_are_as_many_as_caches_ask_for():
    assert row_chunks(rows=3072, tiles=4, cores=1, granule=32, least=3) == 3
    assert row_chunks(rows=64, tiles=4, cores=1, granule=32, least=9) == 2
