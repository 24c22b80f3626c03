"""Without TVM, everything but compiling and running still works, and those two say what to install."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys

sys.modules["tvm"] = sys.modules["tvm_ffi"] = None  # as Python marks what cannot be imported
import torch
import graphprune as gp
from graphprune.passes import PruneChannels

model, x = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)), torch.randn(3, 4)
small = gp.prune(model, PruneChannels(ratio=0.5), (x,))
print("pruned to", tuple(small.get_parameter("0.weight").shape))
for action in (lambda: gp.compile(small), lambda: gp.runtime.set_num_threads(1)):
    try:
        action()
    except gp.BackendError as error:
        print("BackendError:", error.message, "|", error.hint)
"""


def test_pruning_works_and_compiling_names_the_missing_package() -> None:
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    pruned, *refusals = result.stdout.splitlines()
    assert pruned == "pruned to (4, 4)"
    assert len(refusals) == 2
    for refusal in refusals:
        assert "TVM is not installed" in refusal
        assert "pip install apache-tvm==0.27.0.post1" in refusal
