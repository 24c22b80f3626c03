import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphprune.backend.column_gaps import MOST_COLUMNS, ROWS, STEPS, pack_gaps


def unpack(packed, shape):
    """Walk the records as a kernel does, lane by lane."""
    matrix = np.zeros(shape, np.float32)
    for group, rows in enumerate(packed.rows):
        computed = np.zeros((ROWS, shape[1]), np.float32)
        columns = np.zeros(ROWS, int)
        for record in packed.records[packed.starts[group] : packed.starts[group + 1]]:
            gaps, values = record[: STEPS * 2].view(np.uint8), record[STEPS * 2 :].view(np.float32)
            for step in range(STEPS):
                columns += gaps[step * 8 : step * 8 + 8].reshape(4, 2).T.ravel()
                computed[np.arange(ROWS), columns] += values[step * ROWS :][:ROWS]
        matrix[rows] = computed
    return matrix


@given(
    rows=st.integers(1, 40),
    columns=st.sampled_from([1, 7, 255, 256, 257, 1500]),
    sparsity=st.sampled_from([0.0, 0.5, 0.9, 0.999, 1.0]),
    shares=st.integers(1, 9),
    ragged=st.booleans(),
)
def test_records_hold_the_matrix(rows, columns, sparsity, shares, ragged):
    generator = np.random.default_rng(rows * columns)
    matrix = generator.standard_normal((rows, columns)).astype(np.float32)
    matrix *= generator.random((rows, columns)) >= sparsity
    if ragged:
        matrix[::3] = 0
    packed = pack_gaps(matrix, shares)
    np.testing.assert_array_equal(unpack(packed, matrix.shape), matrix)
    assert sorted(set(packed.rows.ravel())) == list(range(rows))
    assert packed.shares == min(shares, len(packed.rows))


def test_shares_have_about_equal_work_and_padding_is_small():
    generator = np.random.default_rng(0)
    matrix = generator.standard_normal((512, 300)).astype(np.float32)
    matrix *= generator.random((512, 300)) >= np.linspace(0.5, 1, 512)[:, None]
    packed = pack_gaps(matrix, 4)
    work = np.diff(packed.starts).reshape(4, -1)
    assert work.sum(axis=1).max() < 1.1 * work.sum() / 4
    assert np.all(np.diff(work, axis=1) <= 0)
    assert 5 * np.count_nonzero(matrix) < packed.nbytes < 5.5 * np.count_nonzero(matrix)


def test_most_columns():
    matrix = np.zeros((9, MOST_COLUMNS), np.float32)
    matrix[:, -1] = np.arange(9)
    np.testing.assert_array_equal(unpack(pack_gaps(matrix, 2), matrix.shape), matrix)
    with pytest.raises(ValueError, match="16 bits"):
        pack_gaps(np.zeros((1, MOST_COLUMNS + 1), np.float32), 1)
