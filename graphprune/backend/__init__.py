"""Lowers a marked fx graph to TVM and builds it; the only folder, with ``graphprune.runtime``, that imports tvm.

A :class:`Backend` serves one TVM target kind (``llvm``, ``cuda``). Everything that is the same for all of them,
walking the graph, falling back, recording why, packing weights as constants, exporting, lives in ``lower``, ``build``
and ``artifact``; a backend supplies what differs:

1. ``target`` parses the user's target string or dict with ``backend/target.py`` and raises ``BackendError`` if this
   installation cannot compile for it. Nothing may need the device itself: cross-compiling works.
2. ``linear``, ``conv2d``, ``matmul``, ``attention``, ``softmax``, ``layer_norm`` return a ``Kernel``
   (``backend/kernels/__init__.py``): a TensorIR ``PrimFunc`` with the packed weights beside it. They raise
   ``BackendError`` with the reason for a layer they cannot do. ``lower`` then retries with ``sparse=False``, and
   after that uses Relax's own op, which ``schedule`` makes fast; the reasons go into the report. Weights arrive as
   contiguous numpy arrays in the layer's dtype (float32, or float16 on cuda). ``lower`` marks the function as
   scheduled and opaque, so it need not carry those attributes.
3. ``schedule(module, target)`` receives the legalised and fused IRModule (Relax ``main`` plus PrimFuncs) and
   returns it with every PrimFunc scheduled, and ``{function name: reason}`` for those left as they were. Functions
   with the attribute ``tirx.is_scheduled`` are finished already.
4. ``build(module, target)`` compiles the scheduled module to an executable with ``export_library``.
5. ``device()`` is where it runs, or raises ``BackendError`` if it is not there; ``prepare_runtime`` in
   ``graphprune.runtime`` loads what the runtime needs for a device before a module is loaded.

Register a backend by target kind in ``_BACKENDS`` as ``"module:Class"``: it is imported on first use only.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from graphprune.errors import BackendError

if TYPE_CHECKING:
    import numpy as np
    import tvm

    from graphprune.backend.kernels import Choice, Convolution, ConvShape, Epilogue, Kernel, Tiled
    from graphprune.backend.kernels.contract import PlaneTile
    from graphprune.backend.kernels.tiling import Tile
    from graphprune.backend.target import CompileTarget

Target = str | Mapping[str, Any]

_BACKENDS = {
    "llvm": "graphprune.backend.cpu:CpuBackend",
    "cuda": "graphprune.backend.cuda.backend:CudaBackend",
}


class Backend(Protocol):
    """What ``lower`` and ``build`` need to know of a target kind; see the module's docstring."""

    kind: str

    def target(self, target: Target) -> CompileTarget:
        """Return the normalised target, after checking that this installation can compile for it."""
        ...

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
        """Return the kernel for ``activation(x @ weight.T + bias + residual)``; weight is [out, in].

        Operands are ``tiled`` only if ``token_tile`` names a tile for the layer.
        """
        ...

    def token_tile(self, x_shape: tuple[int, ...], target: CompileTarget, choice: Choice | None) -> Tile | None:
        """Return the tile of [features, tokens] that a sparse linear layer takes and gives; None if it knows none."""
        ...

    def to_tiles(self, shape: tuple[int, ...], tile: Tile) -> Kernel:
        """Return the kernel that brings a tensor [..., features] into tiles."""
        ...

    def from_tiles(self, shape: tuple[int, ...], tile: Tile) -> Kernel:
        """Return the kernel that brings a tensor [..., features] back from tiles."""
        ...

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
        """Return the kernel for an NCHW convolution with epilogue; weight is [out, in / groups, kh, kw].

        Operands are ``tiled`` only as ``plane_tile`` says.
        """
        ...

    def plane_tile(
        self, weight_shape: tuple[int, ...], shape: ConvShape, target: CompileTarget, choice: Choice | None
    ) -> PlaneTile | None:
        """Return the tiles of [channels, positions] that a sparse convolution may take and give; None for none."""
        ...

    def from_plane_tiles(self, shape: tuple[int, ...], tile: Tile) -> Kernel:
        """Return the kernel that brings a tensor [batch, channels, height, width] back from tiles."""
        ...

    def expanded_depthwise(self, expansion: Convolution, depthwise: Convolution, target: CompileTarget) -> Kernel:
        """Return the kernel for a sparse 1x1 convolution and the depthwise one that alone reads its result.

        Its buffers are the input of ``expansion``, the residual of ``depthwise`` if it has one, constants, output. It
        raises ``BackendError`` where two kernels are as good.
        """
        ...

    def matmul(
        self,
        a_shape: tuple[int, ...],
        b_shape: tuple[int, ...],
        target: CompileTarget,
        *,
        transpose_b: bool = False,
    ) -> Kernel:
        """Return the kernel for a batched product of two activations."""
        ...

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
        """Return the kernel for ``softmax(q @ k.T * scale + mask) @ v``; its buffers are q, k, v, the mask, out."""
        ...

    def softmax(
        self,
        shape: tuple[int, ...],
        mask_shape: tuple[int, ...] | None,
        target: CompileTarget,
        *,
        scale: float = 1.0,
        causal: bool = False,
    ) -> Kernel:
        """Return the kernel for ``softmax(x * scale + mask)`` over the last axis; a mask is its second buffer."""
        ...

    def layer_norm(
        self, shape: tuple[int, ...], width: int, epsilon: float, target: CompileTarget, tile: Tile | None = None
    ) -> Kernel:
        """Return the kernel that normalises the last ``width`` elements; its buffers are x, scale, shift, out.

        With a ``tile``, x and out are in tiles of [features, tokens].
        """
        ...

    def max_pool2d(
        self,
        shape: tuple[int, ...],
        out_shape: tuple[int, ...],
        window: tuple[int, int],
        stride: tuple[int, int],
        padding: tuple[int, int],
        target: CompileTarget,
    ) -> Kernel:
        """Return the kernel for max pooling of NCHW planes."""
        ...

    def recurrence(
        self,
        weight: np.ndarray,
        bias: np.ndarray | None,
        gates_shape: tuple[int, ...],
        target: CompileTarget,
        *,
        kind: str,
        batch_first: bool,
        reverse: bool,
        with_cell: bool,
    ) -> Kernel:
        """Return the kernel of ``graphprune::recurrence``; its buffers are gates, first states, constants, out."""
        ...

    def schedule(self, module: tvm.IRModule, target: CompileTarget) -> tuple[tvm.IRModule, dict[str, str]]:
        """Schedule every function that is not yet; return the module and the reasons for those left unscheduled."""
        ...

    def build(self, module: tvm.IRModule, target: CompileTarget) -> tvm.runtime.Executable:
        """Compile to an executable."""
        ...

    def device(self) -> tvm.runtime.Device:
        """Return the device that the executable runs on."""
        ...


def target_kind(target: Target) -> str:
    """Return ``llvm`` for ``"llvm -mcpu=native"`` or ``{"kind": "llvm", ...}``."""
    if isinstance(target, str):
        words = target.split()
        return words[0] if words else ""
    return str(target.get("kind", ""))


def get_backend(target: Target) -> Backend:
    """Return the backend for a target.

    Raises:
        BackendError: if the target's kind is unknown, or tvm is not installed.
    """
    kind = target_kind(target)
    if kind not in _BACKENDS:
        raise BackendError(
            f"unknown target {target!r}: no backend for kind {kind!r}",
            hint=f"known kinds: {', '.join(_BACKENDS)}; for example target='llvm -mcpu=native'",
        )
    module_name, class_name = _BACKENDS[kind].split(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] in ("tvm", "tvm_ffi"):
            raise BackendError(
                "TVM is not installed, so nothing can be compiled",
                hint="pip install apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.14.post1",
            ) from error
        raise
    backend: Backend = getattr(module, class_name)()
    return backend
