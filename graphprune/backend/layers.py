"""Lowers fused linear and convolution layers: as measured, else to the sparse or dense kernel or Relax's own op."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import fx
from tvm import relax

from graphprune.backend.fused_layer import FusedLayer
from graphprune.backend.lowering import Lowering, static_shape, sum_in_float32
from graphprune.errors import BackendError
from graphprune.graph import bind_arguments
from graphprune.report import LayerTiming

if TYPE_CHECKING:
    from graphprune.backend.kernels import ConvShape, Kernel


def lower_linear(lowering: Lowering, node: fx.Node) -> relax.Expr:
    """Lower ``graphprune::fused_linear``."""
    bound = bind_arguments(node)

    def fallback() -> relax.Expr:
        transposed = lowering.emit(relax.op.permute_dims(lowering.value(bound["weight"])))
        x = lowering.value(bound["x"])
        return sum_in_float32(lowering, x, lambda dtype: relax.op.matmul(x, transposed, out_dtype=dtype))

    return _lower(lowering, node, "linear", fallback)


def lower_conv2d(lowering: Lowering, node: fx.Node) -> relax.Expr:
    """Lower ``graphprune::fused_conv2d``."""
    bound = bind_arguments(node)

    def fallback() -> relax.Expr:
        x, w = lowering.value(bound["x"]), lowering.value(bound["weight"])
        stride, padding, dilation, groups = _geometry(bound)
        geometry = {"strides": stride, "padding": padding, "dilation": dilation, "groups": groups}
        return sum_in_float32(lowering, x, lambda dtype: relax.op.nn.conv2d(x, w, **geometry, out_dtype=dtype))

    return _lower(lowering, node, "conv2d", fallback)


def _geometry(bound: dict[str, Any]) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], int]:
    stride, padding, dilation = (_pair(bound[name]) for name in ("stride", "padding", "dilation"))
    return stride, padding, dilation, bound["groups"]


def _pair(values: Any) -> tuple[int, int]:
    return (int(values[0]), int(values[-1]))


def _fused_layer(lowering: Lowering, bound: dict[str, Any]) -> FusedLayer:
    """Return the layer with its constants; raises ``BackendError`` if no kernel can take it."""
    from graphprune.backend.kernels import ConvShape, Epilogue

    weight, bias = lowering.constant(bound["weight"]), lowering.constant(bound["bias"])
    if weight is None or (bias is None and bound["bias"] is not None):
        raise BackendError("the weight is not a float constant")
    x_shape = static_shape(bound["x"])
    epilogue = Epilogue(bound["bias"] is not None, bound["residual"] is not None, bound["activation"])
    conv = ConvShape(x_shape, *_geometry(bound)) if "stride" in bound else None
    if conv is not None and _sees_whole_planes(conv, weight.shape):
        return FusedLayer(weight.reshape(len(weight), -1), bias, (x_shape[0], math.prod(x_shape[1:])), epilogue)
    return FusedLayer(weight, bias, x_shape, epilogue, conv)


def _sees_whole_planes(conv: ConvShape, weight_shape: tuple[int, ...]) -> bool:
    """Say whether each output is a product of the whole sample, as in a linear layer."""
    plain = conv.groups == 1 and conv.padding == (0, 0) and conv.dilation == (1, 1)
    return plain and conv.x_shape[2:] == tuple(weight_shape[2:])


def _lower(lowering: Lowering, node: fx.Node, kind: str, fallback: Callable[[], relax.Expr]) -> relax.Expr:
    bound = bind_arguments(node)
    name = lowering.path(bound["weight"])
    shape = static_shape(bound["weight"])
    reasons = [lowering.format_reasons[name]] if name in lowering.format_reasons else []
    density = None
    try:
        layer = _fused_layer(lowering, bound)
        density = layer.density
        tuned = _tuned(lowering, name or node.name, layer, bound["format"] == "csr")
        if tuned.timing is not None:
            reasons = [f"measured: {tuned.timing.choice}"]
        kernel = tuned.kernel or _default_kernel(lowering, layer, bound["format"] == "csr", reasons)
    except BackendError as error:
        reasons.append(f"no dense kernel: {error.message}")
        lowering.report(node, kind, shape, "relax", name=name, density=density, reason="; ".join(reasons))
        return _with_epilogue(lowering, bound, lowering.emit(fallback()), channel_axis=1 if kind == "conv2d" else -1)
    inputs = [_shaped(lowering, lowering.value(bound["x"]), layer.x_shape)]
    if bound["residual"] is not None:
        inputs.append(_shaped(lowering, lowering.value(bound["residual"]), kernel.output_shape))
    macs = math.prod(kernel.output_shape) * math.prod(shape[1:])
    result = lowering.call(kernel, inputs, layer=name, macs=macs, density=density)
    result = _shaped(lowering, result, static_shape(node))
    details = {"name": name, "density": density, "note": kernel.note, "reason": "; ".join(reasons)}
    lowering.report(node, kind, shape, kernel.name, timing=tuned.timing, **details)
    return result


def _shaped(lowering: Lowering, value: relax.Expr, shape: tuple[int, ...]) -> relax.Expr:
    """Return ``value`` in another shape, if it has another one: some layers are computed as simpler ones."""
    if tuple(int(size) for size in value.ty.shape) == tuple(shape):
        return value
    return lowering.emit(relax.op.reshape(value, shape))


def _default_kernel(lowering: Lowering, layer: FusedLayer, sparse: bool, reasons: list[str]) -> Kernel:
    """Return the kernel that the cost models choose, dense where there is no sparse one; add why to ``reasons``."""
    if sparse:
        try:
            return layer.kernel(lowering.backend, lowering.target, sparse=True)
        except BackendError as error:
            reasons.append(f"no sparse kernel: {error.message}")
    return layer.kernel(lowering.backend, lowering.target, sparse=False)


@dataclass(frozen=True)
class _Tuned:
    """The kernel that measuring chose, and its times; neither if nothing was measured."""

    kernel: Kernel | None = None
    timing: LayerTiming | None = None


def _tuned(lowering: Lowering, name: str, layer: FusedLayer, sparse: bool) -> _Tuned:
    found = None if lowering.tuner is None else lowering.tuner.decide(name, layer, sparse=sparse)
    if found is None:
        return _Tuned()
    decision, origin = found
    way = decision.candidate
    try:
        kernel = layer.kernel(lowering.backend, lowering.target, sparse=way.sparse, choice=way.choice)
    except BackendError:  # measured with kernels that have changed since: the cost models choose
        return _Tuned()
    return _Tuned(kernel, LayerTiming(str(way), decision.seconds, decision.default_seconds, origin))


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
