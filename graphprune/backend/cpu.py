"""The CPU backend: our TensorIR kernels and the generic schedule, compiled by LLVM."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax

from graphprune.backend import Target, kernels
from graphprune.backend.cpu_passes import cpu_passes
from graphprune.backend.kernels import Choice, ConvShape, Epilogue, Kernel
from graphprune.backend.pool_kernels import max_pool2d_kernel
from graphprune.backend.row_kernels import layer_norm_kernel, softmax_kernel
from graphprune.backend.schedules import schedule_for_cpu
from graphprune.backend.target import CompileTarget, parse_target
from graphprune.errors import BackendError


class CpuBackend:
    """Compiles for ``llvm`` targets; see :class:`graphprune.backend.Backend`."""

    kind = "llvm"

    def target(self, target: Target) -> CompileTarget:
        """Return the normalised target."""
        return parse_target(target)

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
    ) -> Kernel:
        """Return the kernel of a linear layer."""
        _require_float32(weight)
        return kernels.linear(weight, bias, x_shape, epilogue, target, sparse=sparse, choice=choice)

    def conv2d(
        self,
        weight: np.ndarray,
        bias: np.ndarray | None,
        shape: ConvShape,
        epilogue: Epilogue,
        target: CompileTarget,
        *,
        sparse: bool,
        choice: Choice | None = None,
    ) -> Kernel:
        """Return the kernel of a convolution."""
        _require_float32(weight)
        return kernels.conv2d(weight, bias, shape, epilogue, target, sparse=sparse, choice=choice)

    def matmul(
        self, a_shape: tuple[int, ...], b_shape: tuple[int, ...], target: CompileTarget, *, transpose_b: bool = False
    ) -> Kernel:
        """Return the kernel of a batched product."""
        return kernels.matmul(a_shape, b_shape, target, transpose_b=transpose_b)

    def attention(
        self,
        q_shape: tuple[int, ...],
        k_shape: tuple[int, ...],
        v_shape: tuple[int, ...],
        mask_shape: tuple[int, ...] | None,
        target: CompileTarget,
        *,
        scale: float,
        causal: bool = False,
    ) -> Kernel:
        """Return the kernel of a whole attention."""
        return kernels.attention(q_shape, k_shape, v_shape, mask_shape, target, scale=scale, causal=causal)

    def softmax(
        self,
        shape: tuple[int, ...],
        mask_shape: tuple[int, ...] | None,
        target: CompileTarget,
        *,
        scale: float = 1.0,
        causal: bool = False,
    ) -> Kernel:
        """Return the kernel of a softmax over the last axis."""
        return softmax_kernel(shape, mask_shape, target, scale=scale, causal=causal)

    def layer_norm(self, shape: tuple[int, ...], width: int, epsilon: float, target: CompileTarget) -> Kernel:
        """Return the kernel of a layer norm."""
        return layer_norm_kernel(shape, width, epsilon, target)

    def max_pool2d(
        self,
        shape: tuple[int, ...],
        out_shape: tuple[int, ...],
        window: tuple[int, int],
        stride: tuple[int, int],
        padding: tuple[int, int],
        target: CompileTarget,
    ) -> Kernel:
        """Return the kernel of a max pooling."""
        return max_pool2d_kernel(shape, out_shape, window, stride, padding, target)

    def schedule(self, module: tvm.IRModule, target: CompileTarget) -> tuple[tvm.IRModule, dict[str, str]]:
        """Apply the generic CPU schedule."""
        return schedule_for_cpu(module, target)

    def build(self, module: tvm.IRModule, target: CompileTarget) -> tvm.runtime.Executable:
        """Compile with LLVM."""
        with cpu_passes():
            return relax.build(module, target.tvm, relax_pipeline=None)

    def device(self) -> tvm.runtime.Device:
        """Return the CPU."""
        return tvm.cpu()


def _require_float32(weight: np.ndarray) -> None:
    if weight.dtype != np.float32:
        raise BackendError(f"CPU kernels are for float32 weights, not {weight.dtype}")
