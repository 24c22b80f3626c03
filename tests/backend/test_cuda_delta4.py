"""The delta-4 packing: exact round trips, and the index walk of the kernel emulated in numpy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graphprune.backend.cuda import delta4
from graphprune.errors import BackendError

LANES = 32


def random_sparse(rows: int, columns: int, density: float, dtype: str, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    weight = generator.standard_normal((rows, columns))
    return (weight * (generator.random((rows, columns)) < density)).astype(dtype)


def kernel_walk(packed: delta4.Delta4, x: np.ndarray) -> np.ndarray:
    """Compute ``weight @ x`` in the order of the GPU kernel: lanes stride over groups, then a butterfly of sums."""
    padded = np.concatenate([x.astype(np.float32), np.zeros(delta4.GROUP - 1, np.float32)])
    result = np.zeros(packed.shape[0], np.float32)
    for row in range(packed.shape[0]):
        lane_sums = np.zeros(LANES, np.float32)
        for lane in range(LANES):
            for group in range(packed.row_groups[row] + lane, packed.row_groups[row + 1], LANES):
                column = int(packed.first[group])
                for slot in range(delta4.GROUP):
                    lane_sums[lane] += np.float32(packed.values[group, slot]) * padded[column]
                    column += ((int(packed.gaps[group]) >> (4 * slot)) & 15) + 1
        for distance in (16, 8, 4, 2, 1):
            lane_sums = lane_sums + lane_sums[np.arange(LANES) ^ distance]
        assert (lane_sums == lane_sums[0]).all()
        result[row] = lane_sums[0]
    return result


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 9),
    columns=st.integers(1, 300),
    density=st.sampled_from([0.0, 0.01, 0.05, 0.3, 0.7, 1.0]),
    dtype=st.sampled_from(delta4.DTYPES),
    seed=st.integers(0, 2**16),
)
def test_unpack_restores_the_matrix(rows, columns, density, dtype, seed):
    weight = random_sparse(rows, columns, density, dtype, seed)
    packed = delta4.pack(weight)
    np.testing.assert_array_equal(delta4.unpack(packed), weight)
    assert packed.nonzeros == np.count_nonzero(weight)
    assert packed.columns().max(initial=0) < columns + delta4.GROUP


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 700),
    density=st.sampled_from([0.0, 0.02, 0.2, 0.9]),
    seed=st.integers(0, 2**16),
)
def test_the_kernels_walk_computes_the_product(rows, columns, density, seed):
    weight = random_sparse(rows, columns, density, "float32", seed)
    x = np.random.default_rng(seed + 1).standard_normal(columns).astype(np.float32)
    np.testing.assert_allclose(kernel_walk(delta4.pack(weight), x), weight @ x, rtol=1e-4, atol=1e-4)


def test_wide_gaps_are_bridged_inside_a_group_only():
    weight = np.zeros((1, 100), np.float16)
    weight[0, [3, 19, 36, 99]] = [1, 2, 3, 4]
    packed = delta4.pack(weight)
    # 3 -> 19 is one step of 16, 19 -> 36 needs a bridge at 35, 36 -> 99 bridges at 52, 68 and 84: nine slots in all,
    # and the ninth opens a new group, which names its column and so needs no bridge.
    np.testing.assert_array_equal(packed.columns()[0], [3, 19, 35, 36, 52, 68, 84, 99])
    np.testing.assert_array_equal(packed.values[0], [1, 2, 0, 3, 0, 0, 0, 4])
    assert len(packed.values) == 1

    weight = np.zeros((1, 60000), np.float16)
    weight[0, [0, 50000]] = 1
    assert len(delta4.pack(weight).values) == 2


def test_empty_rows_own_no_group():
    weight = np.zeros((4, 40), np.float32)
    weight[2, 5] = 1.5
    packed = delta4.pack(weight)
    np.testing.assert_array_equal(packed.row_groups, [0, 0, 0, 1, 1])
    assert delta4.pack(np.zeros((3, 8), np.float32)).row_groups[-1] == 0


def test_bytes_of_a_half_full_float16_matrix():
    packed = delta4.pack(random_sparse(64, 4096, 0.5, "float16", 0))
    assert packed.nbytes / packed.nonzeros < 2.8
    assert packed.overhead < 1.02


@pytest.mark.parametrize("columns", [65535, 65536])
def test_the_widest_matrices(columns):
    weight = np.zeros((2, columns), np.float16)
    weight[0, [0, columns - 1]] = [1, 2]
    weight[1, columns - 9 :] = 3
    np.testing.assert_array_equal(delta4.unpack(delta4.pack(weight)), weight)


@pytest.mark.parametrize(
    "weight", [np.ones((1, 65537), np.float16), np.ones((2, 2)), np.ones(4, np.float32), np.ones((2, 2), np.int8)]
)
def test_what_does_not_fit_is_refused(weight):
    with pytest.raises(BackendError, match="delta-4"):
        delta4.pack(weight)
