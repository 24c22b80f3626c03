"""The CUDA backend: delta-4 kernels for sparse linear layers, dlight's schedules for the rest, cubins for one arch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import tvm
from tvm import relax

from graphprune.backend import Target
from graphprune.backend.cuda.compiler import available_compiler
from graphprune.backend.cuda.device import cuda_device
from graphprune.backend.cuda.embedding import DeviceCode, collecting_device_code, embed
from graphprune.backend.cuda.schedule import schedule_for_cuda
from graphprune.backend.kernels.contract import Choice, Epilogue, Kernel
from graphprune.backend.kernels.cuda_sparse_linear import cuda_sparse_linear
from graphprune.backend.target import CompileTarget, parse_target
from graphprune.errors import BackendError

_GENERIC = "on CUDA it is TVM's op with the generic GPU schedule"


class CudaBackend:
    """Compiles for ``cuda`` targets, on any machine; see :class:`graphprune.backend.Backend`."""

    kind = "cuda"

    def target(self, target: Target) -> CompileTarget:
        """Return the normalised target, after checking that a CUDA compiler is installed."""
        parsed = parse_target(target)
        available_compiler()
        return parsed

    def linear(
        self,
        weight: np.ndarray,
        bias: np.ndarray | None,
        x_shape: tuple[int, ...],
        epilogue: Epilogue,
        target: CompileTarget,
        *,
        sparse: bool,
        choice: Choice | None = None,
        tiled: None = None,
    ) -> Kernel:
        """Return the delta-4 kernel of a sparse linear layer."""
        if not sparse:
            raise BackendError(_GENERIC)
        return cuda_sparse_linear(weight, bias, x_shape, epilogue)

    def conv2d(self, weight: np.ndarray, *arguments: Any, sparse: bool, **options: Any) -> NoReturn:
        """Decline: convolutions are dense."""
        raise BackendError("convolutions have no sparse CUDA kernel" if sparse else _GENERIC)

    def _decline(self, *arguments: Any, **options: Any) -> NoReturn:
        """Decline: the op is TVM's own."""
        raise BackendError(_GENERIC)

    def token_tile(self, *arguments: Any) -> None:
        """Return None: the kernels read activations as they are."""

    plane_tile = token_tile
    to_tiles = from_tiles = from_plane_tiles = matmul = attention = softmax = layer_norm = max_pool2d = _decline
    recurrence = expanded_depthwise = _decline

    def schedule(self, module: tvm.IRModule, target: CompileTarget) -> tuple[tvm.IRModule, dict[str, str]]:
        """Bind every function's loops to GPU threads."""
        return schedule_for_cuda(module, target)

    def build(self, module: tvm.IRModule, target: CompileTarget) -> CudaExecutable:
        """Compile the host code with LLVM and the device code to cubins."""
        with collecting_device_code(str(target.spec["arch"])) as code:
            executable = relax.build(module, target.tvm, relax_pipeline=None)
        return CudaExecutable(executable.mod, code)

    def device(self) -> tvm.runtime.Device:
        """Return the first CUDA device."""
        return cuda_device()


class CudaExecutable(relax.VMExecutable):
    """An executable that exports with its cubins inside; runs in this process only where its device is.

    Attributes:
        device_code: the CUDA source and cubins.
    """

    def __init__(self, module: tvm.runtime.Module, device_code: DeviceCode) -> None:
        """Join what TVM built with the device code that was compiled for it."""
        super().__init__(module)
        self.device_code = device_code

    def export_library(self, file_name: str, **options: Any) -> None:
        """Write a shared library that TVM's runtime loads without a compiler; ``options`` are TVM's."""
        super().export_library(file_name, **options)
        embed(Path(file_name), self.device_code)
