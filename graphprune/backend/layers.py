"""Lowers fused linear and convolution layers: as measured, else to the sparse or dense kernel or Relax's own op."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import fx
from tvm import relax

from graphprune.backend.layer_plan import LayerPlan, conv_geometry, planned
from graphprune.backend.lowering import Lowering, static_shape, sum_in_float32
from graphprune.backend.plane_layout import tiled_planes
from graphprune.backend.token_layout import tiled_operands
from graphprune.errors import BackendError
from graphprune.graph import bind_arguments

if TYPE_CHECKING:
    from graphprune.backend.fused_layer import FusedLayer
    from graphprune.backend.kernels import Kernel


def lower_linear(lowering: Lowering, node: fx.Node) -> relax.Expr:
    """Lower ``graphprune::fused_linear``."""
    bound = bind_arguments(node)

    def fallback() -> relax.Expr:
        transposed = lowering.emit(relax.op.permute_dims(lowering.value(bound["weight"])))
        x = lowering.value(bound["x"])
        return sum_in_float32(lowering, x, lambda dtype: relax.op.matmul(x, transposed, out_dtype=dtype))

    return _lower(lowering, node, "linear", fallback)


def lower_conv2d(lowering: Lowering, node: fx.Node) -> relax.Expr | None:
    """Lower ``graphprune::fused_conv2d``, with the 1x1 convolution before it where one kernel computes both."""
    if node in lowering.expansions.kernels:
        return _lower_expanded(lowering, node, lowering.expansions.kernels[node])
    if node in lowering.expansions.inside:
        return None  # nothing but that kernel reads it
    bound = bind_arguments(node)

    def fallback() -> relax.Expr:
        x, w = lowering.value(bound["x"]), lowering.value(bound["weight"])
        stride, padding, dilation, groups = conv_geometry(bound)
        geometry = {"strides": stride, "padding": padding, "dilation": dilation, "groups": groups}
        return sum_in_float32(lowering, x, lambda dtype: relax.op.nn.conv2d(x, w, **geometry, out_dtype=dtype))

    return _lower(lowering, node, "conv2d", fallback)


def _lower(lowering: Lowering, node: fx.Node, kind: str, fallback: Callable[[], relax.Expr]) -> relax.Expr:
    bound = bind_arguments(node)
    name = lowering.path(bound["weight"])
    shape = static_shape(bound["weight"])
    reasons = [lowering.format_reasons[name]] if name in lowering.format_reasons else []
    density = None
    try:
        plan = planned(lowering, node)
        density = plan.layer.density
        if plan.timing is not None:
            reasons = [f"measured: {plan.timing.choice}"]
        kernel = _kernel(lowering, node, plan, reasons)
    except BackendError as error:
        reasons.append(f"no dense kernel: {error.message}")
        lowering.report(node, kind, shape, "relax", name=name, density=density, reason="; ".join(reasons))
        return _with_epilogue(lowering, bound, lowering.emit(fallback()), channel_axis=1 if kind == "conv2d" else -1)
    details = {"name": name, "density": density, "note": kernel.note, "reason": "; ".join(reasons)}
    lowering.report(node, kind, shape, kernel.name, timing=plan.timing, **details)
    macs = math.prod(static_shape(node)) * math.prod(shape[1:])
    operands = _operands(lowering, node, plan.layer, kernel)
    result = lowering.call(kernel, operands, layer=name, macs=macs, density=density)
    if kernel.tiled.out:
        return lowering.hold_tiles(node, result, lowering.layout.kept[node])
    return _shaped(lowering, result, static_shape(node))


def _lower_expanded(lowering: Lowering, node: fx.Node, kernel: Kernel) -> relax.Expr:
    """Lower a depthwise convolution and the 1x1 one before it to one kernel."""
    nodes = (bind_arguments(node)["x"], node)
    bounds = [bind_arguments(part) for part in nodes]
    names = [lowering.path(bound["weight"]) or part.name for bound, part in zip(bounds, nodes, strict=True)]
    total, nonzero = 0, 0.0
    for part, bound, name, other in zip(nodes, bounds, names, reversed(names), strict=True):
        shape, density = static_shape(bound["weight"]), planned(lowering, part).layer.density
        note, reason = f"in one kernel with {other}: {kernel.note}", lowering.format_reasons.get(name, "")
        lowering.report(part, "conv2d", shape, kernel.name, name=name, density=density, note=note, reason=reason)
        macs = math.prod(static_shape(part)) * math.prod(shape[1:])
        total, nonzero = total + macs, nonzero + macs * density
    operands = [lowering.value(value) for value in (bounds[0]["x"], bounds[1]["residual"]) if value is not None]
    return lowering.call(kernel, operands, layer=" + ".join(names), macs=total, density=nonzero / total)


def _kernel(lowering: Lowering, node: fx.Node, plan: LayerPlan, reasons: list[str]) -> Kernel:
    """Return the planned kernel, dense where there is no sparse one; add why to ``reasons``."""
    if plan.sparse:
        tiled = (tiled_operands if plan.layer.conv is None else tiled_planes)(lowering, node)
        try:
            return plan.layer.kernel(lowering.backend, lowering.target, sparse=True, choice=plan.choice, tiled=tiled)
        except BackendError as error:
            reasons.append(f"no sparse kernel: {error.message}")
    choice = None if plan.sparse else plan.choice
    return plan.layer.kernel(lowering.backend, lowering.target, sparse=False, choice=choice)


def _operands(lowering: Lowering, node: fx.Node, layer: FusedLayer, kernel: Kernel) -> list[relax.Expr]:
    """Return the input, and the residual if there is one, in the forms that the kernel takes."""
    bound = bind_arguments(node)
    result = static_shape(node) if kernel.tiled.out else kernel.output_shape
    shapes = {"x": layer.x_shape, "residual": result}
    in_tiles = {"x": kernel.tiled.x, "residual": kernel.tiled.residual}
    return [
        lowering.tiles(bound[name], lowering.layout.tile(node))
        if in_tiles[name]
        else _shaped(lowering, lowering.value(bound[name]), shapes[name])
        for name in shapes
        if bound[name] is not None
    ]


def _shaped(lowering: Lowering, value: relax.Expr, shape: tuple[int, ...]) -> relax.Expr:
    """Return ``value`` in another shape, if it has another one: some layers are computed as simpler ones."""
    if tuple(int(size) for size in value.ty.shape) == tuple(shape):
        return value
    return lowering.emit(relax.op.reshape(value, shape))


def _with_epilogue(lowering: Lowering, bound: dict[str, Any], y: relax.Expr, channel_axis: int) -> relax.Expr:
    if bound["bias"] is not None:
        bias = lowering.value(bound["bias"])
        if channel_axis == 1:
            bias = lowering.emit(relax.op.reshape(bias, (1, -1, 1, 1)))
        y = lowering.emit(relax.op.add(y, bias))
    if bound["residual"] is not None:
        y = lowering.emit(relax.op.add(y, lowering.value(bound["residual"])))
    return lowering.emit(_activate(y, bound["activation"]))


def _activate(y: relax.Expr, activation: str) -> relax.Expr:
    if activation == "none":
        return y
    if activation == "hardswish":
        dtype = str(y.ty.dtype)
        gate = relax.op.clip(relax.op.add(y, relax.const(3.0, dtype)), 0.0, 6.0)
        return relax.op.divide(relax.op.multiply(y, gate), relax.const(6.0, dtype))
    functions = {
        "relu": relax.op.nn.relu,
        "relu6": relax.op.nn.relu6,
        "silu": relax.op.nn.silu,
        "gelu": relax.op.nn.gelu,
        "gelu_tanh": relax.op.nn.gelu_tanh,
        "sigmoid": relax.op.sigmoid,
        "tanh": relax.op.tanh,
    }
    return functions[activation](y)
