"""Loops that threads share: every iteration runs once, whatever their number and that of the threads."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm.tirx.script.builder import ir as T

from graphprune.backend.kernels.emit import building, load, store
from graphprune.backend.kernels.sharing import shared_loop
from graphprune.backend.target import parse_target
from graphprune.runtime import set_num_threads, thread_count

_COUNTS = (1, 2, 7, 16, 100, 1001)


def _counter(count: int, cores: int):
    """Return the function that adds one to each of ``count`` numbers, in a loop that threads share."""
    with building("count") as emitter:
        visits = T.arg("visits", T.buffer((count,), "float32", layout=None))
        with shared_loop(count, cores) as i:
            store(visits, i, load(visits, i, 1) + T.float32(1), 1)
    return emitter.function.with_attr("global_symbol", f"count_{count}").with_attr("tirx.is_scheduled", True)


@pytest.mark.parametrize("cores", [1, 2, 12])
def test_every_iteration_runs_once(cores: int) -> None:
    module = tvm.compile(
        tvm.IRModule({f"count_{n}": _counter(n, cores) for n in _COUNTS}), target=parse_target("llvm").tvm
    )
    before = thread_count()
    try:
        for threads in (1, 2):
            set_num_threads(threads)
            for count in _COUNTS:
                visits = tvm.runtime.tensor(np.zeros(count, np.float32))
                for _ in range(20):
                    module[f"count_{count}"](visits)
                np.testing.assert_array_equal(visits.numpy(), 20)
    finally:
        set_num_threads(before)
