"""Emits parallel loops whose iterations threads take as they get to them, instead of a fixed part each.

Cores are not equally fast at a given time: other programs, other virtual machines on the same core, a thread that has
to wake up first, layers with more zeros here than there. A kernel is done when its last thread is, so a thread that is
done early takes over iterations of the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tvm import tirx
from tvm.tirx.script.builder import ir as T

from graphprune.backend.kernels.emit import store, workspace
from graphprune.backend.kernels.tiling import LINE_FLOATS

_LEAST_SHARES = 8  # so that code made on a small machine keeps as many threads of a larger one busy
_TAKEN_BY_A_CORE = 32  # pieces to cut a core's work into; each taking costs an atomic addition

# TIR has no atomic operations on a CPU, LLVM has.
_ATOMICS = """
define i32 @graphprune_take(ptr %counter) {
  %taken = atomicrmw add ptr %counter, i32 1 monotonic, align 4
  ret i32 %taken
}
define i32 @graphprune_taken(ptr %counter) {
  %taken = load atomic i32, ptr %counter monotonic, align 4
  ret i32 %taken
}
"""


@contextmanager
def shared_loop(count: int, cores: int) -> Iterator[Any]:
    """Emit a loop of ``count`` independent iterations for about ``cores`` threads, and yield its variable.

    The iterations are cut into shares, one or several neighbouring ones for each thread, which goes through them in
    order, and then through what is left of the shares after its own. What is emitted must do the same for an
    iteration whichever thread runs it; any number of threads, also one, is correct.
    """
    if count == 1:
        with T.serial(1) as only:
            yield only
        return
    together = max(1, count // (_TAKEN_BY_A_CORE * cores))
    pieces = -(-count // together)
    shares = min(pieces, max(cores, _LEAST_SHARES))
    # Each counter has a cache line for itself.
    counters = workspace(shares * LINE_FLOATS, "int32")
    with T.attr(0, "pragma_import_llvm", _ATOMICS):
        for share in range(shares):
            store(counters, share * LINE_FLOATS, T.int32(0), 1)
        with T.parallel(shares) as own, _unfinished(counters, own, pieces, shares), T.Then(), T.serial(shares) as step:
            share = T.Bind((own + step) % shares)
            first, size = T.Bind(share * pieces // shares), T.Bind(_size(share, pieces, shares))
            piece = T.alloc_buffer((1,), "int32", scope="local", layout=None)
            store(piece, 0, _take(counters, share), 1)
            with T.While(piece[0] < size):
                if together == 1:  # with limits that TVM can see, its index arithmetic becomes simpler
                    yield T.Bind(T.min(T.max(first + piece[0], 0), count - 1))
                else:
                    begin = T.Bind((first + piece[0]) * together)
                    with T.serial(T.min(together, count - begin)) as offset:
                        yield T.Bind(begin + offset)
                store(piece, 0, _take(counters, share), 1)


def _size(share: Any, pieces: int, shares: int) -> Any:
    """Return how many pieces a share has."""
    return (share + 1) * pieces // shares - share * pieces // shares


def _take(counters: tirx.Buffer, share: Any) -> Any:
    """Return how many pieces of a share were taken before, and take one more."""
    return T.call_extern("int32", "graphprune_take", _counter(counters, share))


def _unfinished(counters: tirx.Buffer, share: Any, pieces: int, shares: int) -> Any:
    """Return the frame of a condition: pieces of a share are left."""
    taken = T.call_extern("int32", "graphprune_taken", _counter(counters, share))
    return T.If(taken < _size(share, pieces, shares))


def _counter(counters: tirx.Buffer, share: Any) -> Any:
    return tirx.op.address_of(counters[share * LINE_FLOATS])
