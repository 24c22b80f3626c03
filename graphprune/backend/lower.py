"""Lowers a marked fx graph to a Relax module: our kernels for layers and attention, Relax's ops for the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import tvm
from torch import fx
from tvm import relax
from tvm.relax.frontend.torch.exported_program_translator import ExportedProgramImporter

from graphprune.backend import Backend, token_layout
from graphprune.backend.attention import lower_attention, lower_product
from graphprune.backend.calls import EmittedCall
from graphprune.backend.convolution import lower_convolution
from graphprune.backend.decompositions import extra_decompositions
from graphprune.backend.importing import guarded
from graphprune.backend.indexing import lower_index, lower_index_select, lower_select
from graphprune.backend.layer_plan import layer_tiles, plan_expansions, plane_tiles
from graphprune.backend.layers import lower_conv2d, lower_linear
from graphprune.backend.layout_plan import plan_layout
from graphprune.backend.lowering import Lowering
from graphprune.backend.recurrence import lower_recurrence
from graphprune.backend.resize import lower_avg_pool2d, lower_grid_sample, lower_linear_resize, lower_nearest
from graphprune.backend.rows import (
    lower_embedding,
    lower_extremum,
    lower_group_norm,
    lower_layer_norm,
    lower_max_pool2d,
    lower_softmax,
)
from graphprune.backend.signature import ResultBuilder, flat_example_inputs, flatten_graph
from graphprune.backend.target import CompileTarget
from graphprune.backend.tuning import Tuner
from graphprune.errors import BackendError, UnsupportedOpError
from graphprune.graph import graph_info
from graphprune.ops import FUSED_CONV2D, FUSED_LINEAR, RECURRENCE, recurrence
from graphprune.report import LayerReport
from graphprune.signature import Signature

aten = torch.ops.aten

Converter = Callable[[fx.Node, Any], relax.Expr | None]

# Ops that stay whole, because a converter of ours knows a better way than their decomposition.
_KEPT_WHOLE = (
    aten.scaled_dot_product_attention.default,
    aten.layer_norm.default,
    aten.group_norm.default,
    aten.max_pool2d.default,
    aten.softmax.int,
    aten.matmul.default,
)

_CONVERTERS: dict[str, Callable[[Lowering, fx.Node], relax.Expr | None]] = {
    "fused_linear.default": lower_linear,
    "fused_conv2d.default": lower_conv2d,
    "scaled_dot_product_attention.default": lower_attention,
    "layer_norm.default": lower_layer_norm,
    "group_norm.default": lower_group_norm,
    "embedding.default": lower_embedding,
    "max_pool2d.default": lower_max_pool2d,
    "amax.default": lower_extremum,
    "amin.default": lower_extremum,
    "softmax.int": lower_softmax,
    "_softmax.default": lower_softmax,
    "matmul.default": lower_product,
    "bmm.default": lower_product,
    "mm.default": lower_product,
    "select.int": lower_select,
    "index.Tensor": lower_index,
    "index_select.default": lower_index_select,
    "upsample_nearest2d.vec": lower_nearest,
    "upsample_bilinear2d.vec": lower_linear_resize,
    "_upsample_bilinear2d_aa.default": lower_linear_resize,
    "avg_pool2d.default": lower_avg_pool2d,
    "grid_sampler_2d.default": lower_grid_sample,
    "convolution.default": lower_convolution,
    "recurrence.default": lower_recurrence,
    **token_layout.converters(),
}


@dataclass
class LoweredGraph:
    """A Relax module whose ``main`` takes and returns flat tensors, with its signature and the report by layer."""

    module: tvm.IRModule
    signature: Signature
    build_result: ResultBuilder
    layers: list[LayerReport] = field(default_factory=list)
    calls: list[EmittedCall] = field(default_factory=list)


def lower(gm: fx.GraphModule, backend: Backend, target: CompileTarget, tuner: Tuner | None = None) -> LoweredGraph:
    """Lower a graph that ``FuseEpilogues`` and ``MarkSparse`` have prepared; ``tuner`` may choose layers' kernels.

    Raises:
        UnsupportedOpError: if an op has neither a kernel of ours nor a Relax op.
        BackendError: if a shape is symbolic where only static ones are supported, or TVM rejects the graph.
    """
    flat, signature, build_result = flatten_graph(gm)
    program = _export(flat, flat_example_inputs(gm, signature), signature, backend)
    lowering = Lowering(program, backend, target, _format_reasons(gm), tuner)
    if tuner is not None:
        tuner.begin(sum(node.target in (FUSED_LINEAR, FUSED_CONV2D) for node in program.graph.nodes))
    try:
        lowering.expansions = plan_expansions(lowering, program.graph)
        tiles, convolutions = layer_tiles(lowering, program.graph), plane_tiles(lowering, program.graph)
        lowering.layout = plan_layout(program.graph, tiles, convolutions)
        module = _import(program, lowering)
    finally:
        if tuner is not None:
            tuner.end()
    return LoweredGraph(module, signature, build_result, lowering.layers, lowering.calls)


def _format_reasons(gm: fx.GraphModule) -> dict[str, str]:
    """Return, by path of the weight, why the last ``MarkSparse`` marked a layer sparse or dense."""
    for record in reversed(graph_info(gm).history):
        if record.spec.startswith("mark-sparse"):
            return {layer["weight"]: layer["reason"] for layer in record.summary["layers"].values()}
    return {}


def _export(
    flat: fx.GraphModule, inputs: tuple[torch.Tensor, ...], signature: Signature, backend: Backend
) -> torch.export.ExportedProgram:
    for spec in signature.inputs:
        if any(isinstance(size, str) for size in spec.shape):
            raise BackendError(
                f"input {spec.name!r} has a symbolic shape {spec.shape}, and compiled kernels need static shapes",
                hint="compile without dynamic_shapes, once for each shape you need",
            )
    decompositions = torch.export.default_decompositions()
    for op in _KEPT_WHOLE:
        decompositions.pop(op, None)
    for op, function in extra_decompositions().items():
        decompositions[op] = function
    if backend.kind != "llvm":  # without a kernel, recurrent layers are one step after another
        decompositions[RECURRENCE] = recurrence._init_fn
    try:
        program = torch.export.export(flat, inputs, strict=False)
        return program.run_decompositions(decompositions)
    except Exception as error:
        raise BackendError(
            f"the graph could not be exported again for lowering: {type(error).__name__}: {error}"
        ) from error


def _import(program: torch.export.ExportedProgram, lowering: Lowering) -> tvm.IRModule:
    _require_supported(program)
    converters = guarded(
        {name: _bind(lowering, lower_node) for name, lower_node in _CONVERTERS.items()}, lowering.held_shape
    )
    try:
        return relax.frontend.torch.from_exported_program(
            program, custom_convert_map=converters, run_ep_decomposition=False
        )
    except (BackendError, UnsupportedOpError):
        raise
    except Exception as error:  # the importer asserts and raises whatever Relax's type inference raises
        message = str(error).strip().splitlines()
        raise BackendError(
            f"TVM could not import the graph: {type(error).__name__}: {message[-1] if message else ''}"
        ) from error


def _bind(lowering: Lowering, lower_node: Callable[[Lowering, fx.Node], relax.Expr | None]) -> Converter:
    def convert(node: fx.Node, importer: Any) -> relax.Expr | None:
        lowering.attach(importer, node)
        return lower_node(lowering, node)

    return convert


def _require_supported(program: torch.export.ExportedProgram) -> None:
    known = ExportedProgramImporter().create_convert_map().keys() | _CONVERTERS.keys()
    for node in program.graph.nodes:
        if node.op == "call_function" and node.target.__name__ not in known:
            raise UnsupportedOpError(
                f"no lowering to TVM for {node.target.__name__}",
                node=node,
                hint="write the model with other ops, or compile the part before and after it",
            )
