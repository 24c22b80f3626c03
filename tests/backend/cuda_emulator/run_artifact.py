"""Runs an artifact under the emulated CUDA libraries: ``run_artifact.py ARTIFACT INPUTS.npz OUTPUTS.npz``.

A process of its own, with TVM's runtime only and without torch, because torch would bring NVIDIA's libraries along.
"""

from __future__ import annotations

import os
import sys

os.environ["TVM_USE_RUNTIME_LIB"] = "1"
sys.modules["torch"] = None  # type: ignore[assignment]

import numpy as np  # noqa: E402

from graphprune import runtime  # noqa: E402


def main(artifact: str, inputs_path: str, outputs_path: str) -> None:
    """Call the model with the arrays of ``inputs_path``, in the order of their names, and save what it returns."""
    inputs = np.load(inputs_path)
    result = runtime.load(artifact)(*[inputs[name] for name in sorted(inputs)])
    np.savez(outputs_path, *(result if isinstance(result, tuple | list) else [result]))


if __name__ == "__main__":
    main(*sys.argv[1:4])
