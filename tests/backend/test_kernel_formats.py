import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphprune.backend.formats import pack_csr, pack_panels


@given(st.integers(1, 9), st.integers(1, 20), st.integers(1, 25), st.floats(0, 1))
def test_csr_holds_every_non_zero_once_and_in_its_block(rows, columns, block, sparsity):
    generator = np.random.default_rng(rows * columns)
    matrix = generator.standard_normal((rows, columns)).astype(np.float32)
    matrix *= generator.random((rows, columns)) >= sparsity
    packed = pack_csr(matrix, np.arange(columns) * 3, block)
    assert packed.blocks == -(-columns // block)
    assert packed.pointers[-1] == np.count_nonzero(matrix)
    restored = np.zeros_like(matrix)
    for b in range(packed.blocks):
        for row in range(rows):
            start, stop = packed.pointers[b * rows + row : b * rows + row + 2]
            where = packed.offsets[start:stop] // 3
            assert np.all(where // block == b) and np.all(np.diff(where) > 0)
            restored[row, where] += packed.values[start:stop]
    np.testing.assert_array_equal(restored, matrix)


def test_csr_of_zeros_has_no_entries_but_no_empty_buffers_either():
    packed = pack_csr(np.zeros((3, 4), np.float32), np.arange(4), 2)
    assert packed.pointers.tolist() == [0] * 7
    assert packed.values.shape == packed.offsets.shape == (1,)


@pytest.mark.parametrize("rows, panel", [(6, 3), (7, 3), (3, 3), (5, 4)])
def test_panels_repeat_rows_rather_than_pad(rows, panel):
    matrix = np.arange(rows * 2, dtype=np.float32).reshape(rows, 2)
    panels = pack_panels(matrix, panel)
    assert panels.shape == (-(-rows // panel), 2, panel)
    for index in range(len(panels)):
        start = min(index * panel, rows - panel)
        np.testing.assert_array_equal(panels[index].T, matrix[start : start + panel])
