"""What the converters share: access to the importer's values, constants, kernels and the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import fx
from tvm import relax

from graphprune.backend import Backend
from graphprune.backend.calls import EmittedCall
from graphprune.backend.expansions import Expansions
from graphprune.backend.kernels.plane_tiles import tiled_planes_shape
from graphprune.backend.kernels.token_tiles import tiled_shape
from graphprune.backend.layout_plan import Layout
from graphprune.errors import BackendError
from graphprune.kernel_calls import KernelCall
from graphprune.report import LayerReport

if TYPE_CHECKING:
    from graphprune.backend.kernels import Kernel
    from graphprune.backend.kernels.tiling import Tile
    from graphprune.backend.layer_plan import LayerPlan
    from graphprune.backend.target import CompileTarget
    from graphprune.backend.tuning import Tuner

_OPAQUE = 8  # relax::OpPatternKind::kOpaque: FuseOps leaves such a function alone
_NP_DTYPES = {torch.float32: np.float32, torch.float16: np.float16, torch.float64: np.float64}


class Lowering:
    """State of one lowering: the program, the backend, the importer at work, the report so far."""

    def __init__(
        self,
        program: torch.export.ExportedProgram,
        backend: Backend,
        target: CompileTarget,
        format_reasons: Mapping[str, str] | None = None,
        tuner: Tuner | None = None,
    ) -> None:
        """Start with an empty report; ``format_reasons`` says for a weight's path why it was marked sparse or dense.

        ``tuner`` chooses kernels by measurement; None leaves that to their cost models.

        ``plans`` holds how to compute layers, ``layout`` which values are to stay in tiles, ``expansions`` which
        convolutions are computed inside the depthwise one that follows.
        """
        self.backend = backend
        self.target = target
        self.tuner = tuner
        self.layers: list[LayerReport] = []
        self.calls: list[EmittedCall] = []
        self.plans: dict[fx.Node, LayerPlan] = {}
        self.layout = Layout()
        self.expansions = Expansions()
        self._tiled: dict[tuple[fx.Node, Tile], relax.Var] = {}
        self._held: dict[fx.Node, Tile] = {}
        self._untiled: dict[fx.Node, relax.Var] = {}
        self.format_reasons = dict(format_reasons or {})
        signature = program.graph_signature
        self._paths = dict(signature.inputs_to_parameters) | dict(signature.inputs_to_buffers)
        self._constants = dict(signature.inputs_to_lifted_tensor_constants)
        self._program = program
        self._importer: Any = None

    def attach(self, importer: Any, node: fx.Node) -> None:
        """Tell which importer converts which node; converters read its environment and block builder."""
        self._importer = importer
        self._node = node

    def value(self, node: fx.Node) -> relax.Expr:
        """Return the Relax value of ``node``, brought back from tiles if that is how it is held."""
        if node not in self._held:
            return self._importer.env[node]
        if node not in self._untiled:
            self._untiled[node] = self._from_tiles(node, self._held[node])
        return self._untiled[node]

    def in_tiles(self, node: fx.Node, tile: Tile) -> bool:
        """Say whether the value of ``node`` is already there in tiles."""
        return (node, tile) in self._tiled

    def tiles(self, node: fx.Node, tile: Tile) -> relax.Expr:
        """Return the value of ``node`` in tiles of [features, tokens], brought into them once if need be."""
        if (node, tile) not in self._tiled:
            kernel = self.backend.to_tiles(static_shape(node), tile)
            self._tiled[node, tile] = self.call(kernel, [self.value(node)], layer=node.name)
        return self._tiled[node, tile]

    def hold_tiles(self, node: fx.Node, value: relax.Var, tile: Tile) -> relax.Var:
        """Note that the value of ``node`` is there in tiles, and return it in the form that is held for all users."""
        self._tiled[node, tile] = value
        if node in self.layout.changed:
            return self._from_tiles(node, tile)
        self._held[node] = tile
        return value

    def _from_tiles(self, node: fx.Node, tile: Tile) -> relax.Var:
        planes = node in self.layout.convolutions
        change = self.backend.from_plane_tiles if planes else self.backend.from_tiles
        kernel = change(static_shape(node), tile)
        return self.call(kernel, [self._tiled[node, tile]], layer=node.name)

    def held_shape(self, node: fx.Node) -> Sequence[Any]:
        """Return the shape that the value of ``node`` has here, in tiles or as in the graph."""
        shape = node.meta["val"].shape
        if node not in self._held:
            return shape
        if node in self.layout.convolutions:
            return tiled_planes_shape(self._held[node], *shape[:2])
        return tiled_shape(self._held[node], shape[-1])

    def imported(self, node: fx.Node, operands: Mapping[fx.Node, relax.Expr]) -> relax.Var:
        """Return what TVM's importer makes of ``node`` with other values of its operands."""
        env = self._importer.env
        own = {operand: env[operand] for operand in operands}
        env.update(operands)
        try:
            return self._importer.create_convert_map()[node.target.__name__](node)
        finally:
            env.update(own)

    def emit(self, expression: relax.Expr) -> relax.Var:
        """Bind ``expression`` to a new variable."""
        return self._importer.block_builder.emit(expression)

    def path(self, node: fx.Node | None) -> str | None:
        """Return the parameter or buffer path that ``node`` reads, or None."""
        if node is None:
            return None
        return self._paths.get(node.name) or self._constants.get(node.name)

    def constant(self, node: fx.Node | None) -> np.ndarray | None:
        """Return the value of a parameter, buffer or constant as a contiguous array, or None for a computed value."""
        path = self.path(node)
        if path is None:
            return None
        program = self._program
        tensor = program.state_dict.get(path, program.constants.get(path))
        if not isinstance(tensor, torch.Tensor) or tensor.dtype not in _NP_DTYPES:
            return None
        return np.ascontiguousarray(tensor.detach().cpu().numpy())

    def call(
        self,
        kernel: Kernel,
        inputs: list[relax.Expr],
        *,
        layer: str | None = None,
        macs: int | None = None,
        density: float | None = None,
    ) -> relax.Var:
        """Add the kernel's function to the module, emit a call of it, and note what it computes for profiles.

        ``layer`` is the weight's path (None: the node's name), ``macs`` the multiply-accumulates with dense operands
        and ``density`` the weight's fraction of non-zeros.

        The packed weights are arguments, not constants inside the function: Relax merges functions of equal structure
        and would drop the second one's constants.
        """
        function = kernel.prim_func.with_attrs({"op_pattern": _OPAQUE, "tirx.is_scheduled": True})
        if "global_symbol" in function.attrs:  # a public name may occur once in a module, and a model has many layers
            function = function.without_attr("global_symbol")
        variable = self._importer.block_builder.add_func(function, kernel.name)
        constants = [relax.const(array) for array in kernel.constants]
        arguments = [*inputs, *constants]
        description = KernelCall(
            variable.name_hint, layer or self._node.name, kernel.name, tuple(kernel.output_shape), macs, density
        )
        self.calls.append(EmittedCall(description, tuple(constants)))
        result = relax.TensorType(kernel.output_shape, kernel.output_dtype)
        return self.emit(relax.call_tir(variable, arguments, result))

    def report(self, node: fx.Node, kind: str, shape: tuple[int, ...], kernel: str, **details: Any) -> None:
        """Add a row to the report."""
        name = details.pop("name", None) or node.name
        density, timing = details.pop("density", None), details.pop("timing", None)
        note, reason = details.pop("note", ""), details.pop("reason", "")
        self.layers.append(LayerReport(name, kind, shape, density, kernel, note, reason, timing))


def static_shape(node: fx.Node) -> tuple[int, ...]:
    """Return the shape of the node's value.

    Raises:
        BackendError: if a size is symbolic.
    """
    shape = node.meta["val"].shape
    if not all(isinstance(size, int) for size in shape):
        raise BackendError(f"shape {tuple(shape)} is symbolic, and our kernels need static ones", node=node)
    return tuple(shape)


def sum_in_float32(lowering: Lowering, x: relax.Expr, product: Callable[[str | None], relax.Expr]) -> relax.Expr:
    """Return ``product(out_dtype)`` in the dtype of ``x``; sums are in float32 even for float16, as in torch."""
    dtype = str(x.ty.dtype)
    if dtype != "float16":
        return product(None)
    return relax.op.astype(lowering.emit(product("float32")), dtype)
