import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphprune.backend.formats import LATER, pack_csr, pack_csr_together, pack_panels


@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 20),
    block=st.integers(1, 25),
    sparsity=st.floats(0, 1),
    scale=st.sampled_from([3, 70000]),
)
def test_csr_holds_every_non_zero_once_and_in_its_block(rows, columns, block, sparsity, scale):
    generator = np.random.default_rng(rows * columns)
    matrix = generator.standard_normal((rows, columns)).astype(np.float32)
    matrix *= generator.random((rows, columns)) >= sparsity
    packed = pack_csr(matrix, np.arange(block) * scale, 7)
    assert packed.blocks == -(-columns // block) and packed.block_stride == 7
    assert packed.pointers[-1] == np.count_nonzero(matrix)
    restored = np.zeros_like(matrix)
    for b in range(packed.blocks):
        for row in range(rows):
            start, stop = packed.pointers[b * rows + row : b * rows + row + 2]
            where = packed.offsets[start:stop].astype(np.int64) // scale
            assert np.all(where < block) and np.all(np.diff(where) > 0)
            restored[row, b * block + where] += packed.values[start:stop]
    np.testing.assert_array_equal(restored, matrix)


@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 60),
    block=st.integers(1, 25),
    sparsity=st.sampled_from([0, 0.3, 0.8, 0.97, 1]),
    together=st.sampled_from([2, 4]),
)
def test_csr_in_whole_steps_holds_every_non_zero_once_and_at_most_a_block_late(
    rows, columns, block, sparsity, together
):
    generator = np.random.default_rng(rows * columns)
    matrix = generator.standard_normal((rows, columns)).astype(np.float32)
    matrix *= generator.random((rows, columns)) >= sparsity
    packed = pack_csr_together(matrix, np.arange(block), block, together)
    lengths = np.diff(packed.pointers).reshape(packed.blocks, rows)
    assert not np.any(lengths % together)
    assert lengths.sum() < np.count_nonzero(matrix) + together * rows * packed.blocks
    restored = np.zeros((rows, columns + 2 * block), np.float32)
    for b in range(packed.blocks):
        for row in range(rows):
            start, stop = packed.pointers[b * rows + row : b * rows + row + 2]
            where = packed.offsets[start:stop].astype(np.int64)
            assert np.all(where < 2 * block) and (b or np.all(where >= block))
            np.add.at(restored[row], (b - 1) * block + where, packed.values[start:stop])
            assert packed.values[start:stop].all()  # a zero would read an input of other rows
    np.testing.assert_array_equal(restored[:, :columns], matrix)
    assert not restored[:, columns:].any()


@given(rows=st.integers(1, 13), run=st.integers(1, 13), sparsity=st.sampled_from([0, 0.6, 1]))
def test_rows_of_a_run_come_in_order_of_length(rows, run, sparsity):
    run = min(run, rows)
    generator = np.random.default_rng(rows * run)
    matrix = generator.standard_normal((rows, 11)).astype(np.float32)
    matrix *= generator.random((rows, 11)) >= sparsity
    packed = pack_csr(matrix, np.arange(4), run=run)
    starts = [min(start, rows - run) for start in range(0, rows, run)]
    assert packed.run == run and packed.rows == len(starts) * run and packed.blocks == 3
    assert packed.order is not None and not packed.order[-LATER:].any()
    places = iter(range(packed.blocks * packed.rows))
    for block in range(packed.blocks):
        for start in starts:
            lengths, seen = [], set()
            for place in (next(places) for _ in range(run)):
                row = start + int(packed.order[place])
                first, last = packed.pointers[place : place + 2]
                restored = np.zeros(12, np.float32)
                restored[block * 4 + packed.offsets[first:last]] = packed.values[first:last]
                np.testing.assert_array_equal(restored[block * 4 : block * 4 + 4][: 11 - block * 4],
                                              matrix[row, block * 4 : block * 4 + 4])  # fmt: skip
                lengths.append(last - first)
                seen.add(row)
            assert lengths == sorted(lengths, reverse=True) and len(seen) == run


@pytest.mark.parametrize("largest, dtype", [(65535, np.uint16), (65536, np.int32)])
def test_offsets_take_16_bits_if_all_of_the_layer_fit(largest, dtype):
    matrix = np.ones((2, 3), np.float32)
    packed = pack_csr(matrix, np.array([0, 1, largest]))
    assert packed.offsets.dtype == dtype and packed.offsets.tolist() == [0, 1, largest] * 2
    assert packed.note == f"{8 * np.dtype(dtype).itemsize}-bit offsets"
    # What counts is the block, and what is read in it.
    assert pack_csr(np.ones((2, 30), np.float32), np.array([0, 65535]), 70000).offsets.dtype == np.uint16
    assert pack_csr(np.array([[1, 1, 0]], np.float32), np.array([0, 1, 70000])).offsets.dtype == np.uint16


def test_csr_of_zeros_has_no_entries_but_no_empty_buffers_either():
    packed = pack_csr(np.zeros((3, 4), np.float32), np.arange(2))
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
