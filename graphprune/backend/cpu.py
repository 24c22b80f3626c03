"""The CPU backend: our TensorIR kernels and the generic schedule, compiled by LLVM."""

from __future__ import annotations

from math import prod

import numpy as np
import tvm
from tvm import relax

from graphprune.backend import Target, kernels
from graphprune.backend.cpu_passes import cpu_passes
from graphprune.backend.kernels import Choice, Convolution, ConvShape, Epilogue, Kernel, Tiled
from graphprune.backend.kernels.contract import PlaneTile
from graphprune.backend.kernels.geometry import conv_geometry
from graphprune.backend.kernels.plane_tiles import from_plane_tiles
from graphprune.backend.kernels.recurrence import recurrence_kernel
from graphprune.backend.kernels.sparse_conv2d import plane_tile
from graphprune.backend.kernels.tiling import Tile
from graphprune.backend.kernels.token_tiles import from_tiles, to_tiles, token_tile
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
        tiled: Tiled | None = None,
    ) -> Kernel:
        """Return the kernel of a linear layer."""
        _require_float32(weight)
        return kernels.linear(weight, bias, x_shape, epilogue, target, sparse=sparse, choice=choice, tiled=tiled)

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
        tiled: Tiled | None = None,
    ) -> Kernel:
        """Return the kernel of a convolution."""
        _require_float32(weight)
        return kernels.conv2d(weight, bias, shape, epilogue, target, sparse=sparse, choice=choice, tiled=tiled)

    def expanded_depthwise(self, expansion: Convolution, depthwise: Convolution, target: CompileTarget) -> Kernel:
        """Return the kernel of a sparse 1x1 convolution and the depthwise one after it."""
        _require_float32(expansion.weight)
        _require_float32(depthwise.weight)
        return kernels.expanded_depthwise(expansion, depthwise, target)

    @staticmethod
    def token_tile(x_shape: tuple[int, ...], target: CompileTarget, choice: Choice | None) -> Tile | None:
        """Return the tile in which the sparse linear layer takes and gives activations of several tokens."""
        if prod(x_shape[:-1]) == 1:
            return None
        return token_tile(x_shape, target, None if choice is None else choice.vectors)

    @staticmethod
    def plane_tile(
        weight_shape: tuple[int, ...], shape: ConvShape, target: CompileTarget, choice: Choice | None
    ) -> PlaneTile | None:
        """Return the tiles of [channels, positions] that the sparse convolution may take and give."""
        geometry = conv_geometry(weight_shape, shape, target.lanes)
        return plane_tile(geometry, shape.groups, target, None if choice is None else choice.vectors)

    to_tiles = staticmethod(to_tiles)
    from_tiles = staticmethod(from_tiles)
    from_plane_tiles = staticmethod(from_plane_tiles)
    matmul = staticmethod(kernels.matmul)
    attention = staticmethod(kernels.attention)
    softmax = staticmethod(softmax_kernel)
    layer_norm = staticmethod(layer_norm_kernel)
    max_pool2d = staticmethod(max_pool2d_kernel)
    recurrence = staticmethod(recurrence_kernel)

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
