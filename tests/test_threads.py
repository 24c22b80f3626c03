"""Compiled models start with all cores, unless the user said otherwise."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from graphprune.errors import BackendError
from graphprune.runtime import core_count, set_num_threads

SCRIPT = """
import os, numpy as np
from graphprune.runtime import set_num_threads
set_num_threads({count})
print(os.environ["TVM_NUM_THREADS"], len(os.listdir("/proc/self/task")))
"""


def _run(count: int, **environment: str) -> tuple[int, int]:
    clean = {key: value for key, value in os.environ.items() if key != "TVM_NUM_THREADS"}
    command = [sys.executable, "-c", SCRIPT.format(count=count)]
    result = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True)
    threads, tasks = result.stdout.split()
    return int(threads), int(tasks)


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads in /proc")
def test_the_pool_has_a_thread_for_each_core_or_what_the_user_said() -> None:
    offered, tasks = _run(1)
    assert offered == core_count()
    asked, more_tasks = _run(1, TVM_NUM_THREADS=str(core_count() + 3))
    assert asked == core_count() + 3
    assert more_tasks == tasks + 3


def test_zero_threads_are_refused() -> None:
    with pytest.raises(BackendError, match="at least 1"):
        set_num_threads(0)
