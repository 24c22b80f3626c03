"""Runs an exported library under the emulated CUDA libraries: ``run_artifact.py LIBRARY INPUTS.npz OUTPUTS.npz``.

A process of its own, with TVM's runtime only and without torch, because torch would bring NVIDIA's libraries along.
"""

from __future__ import annotations

import os
import sys

os.environ["TVM_USE_RUNTIME_LIB"] = "1"
sys.modules["torch"] = None  # type: ignore[assignment]

import numpy as np  # noqa: E402
import tvm  # noqa: E402

from graphprune.backend.cuda.device import load_cuda_runtime  # noqa: E402

_POOLED_ALLOCATOR = 2


def main(library: str, inputs_path: str, outputs_path: str) -> None:
    """Run ``main`` of the library on the arrays of ``inputs_path``, in the order of their names."""
    load_cuda_runtime()
    module = tvm.runtime.load_module(library)["vm_load_executable"]()
    cuda, cpu = tvm.cuda(0), tvm.cpu(0)
    devices = [number for device in (cuda, cpu) for number in (device.dlpack_device_type(), 0, _POOLED_ALLOCATOR)]
    module["vm_initialization"](*devices)
    inputs = np.load(inputs_path)
    arguments = [tvm.runtime.tensor(inputs[name], device=cuda) for name in sorted(inputs)]
    result = module["main"](*arguments)
    results = [result] if isinstance(result, tvm.runtime.Tensor) else list(result)
    np.savez(outputs_path, *[array.numpy() for array in results])


if __name__ == "__main__":
    main(*sys.argv[1:4])
