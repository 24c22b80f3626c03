"""Lowers fused linear and convolution layers: the sparse kernel, else the dense one, else Relax's own op."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import fx
from tvm import relax

from graphprune.backend.lowering import Lowering, static_shape, sum_in_float32
from graphprune.errors import BackendError
from graphprune.graph import bind_arguments

if TYPE_CHECKING:
    from graphprune.backend.kernels import Epilogue, Kernel

MakeKernel = Callable[[bool], "Kernel"]


def lower_linear(lowering: Lowering, node: fx.Node) -> relax.Expr:
    """Lower ``graphprune::fused_linear``."""
    bound = bind_arguments(node)
    weight, bias = lowering.constant(bound["weight"]), lowering.constant(bound["bias"])

    def make(sparse: bool) -> Kernel:
        constants = _require_constants(bound, weight, bias)
        epilogue = _epilogue(bound)
        shape = static_shape(bound["x"])
        return lowering.backend.linear(*constants, shape, epilogue, lowering.target, sparse=sparse)

    def fallback() -> relax.Expr:
        transposed = lowering.emit(relax.op.permute_dims(lowering.value(bound["weight"])))
        x = lowering.value(bound["x"])
        return sum_in_float32(lowering, x, lambda dtype: relax.op.matmul(x, transposed, out_dtype=dtype))

    return _lower(lowering, node, "linear", weight, make, fallback)


def lower_conv2d(lowering: Lowering, node: fx.Node) -> relax.Expr:
    """Lower ``graphprune::fused_conv2d``."""
    bound = bind_arguments(node)
    weight, bias = lowering.constant(bound["weight"]), lowering.constant(bound["bias"])
    stride, padding, dilation = (_pair(bound[name]) for name in ("stride", "padding", "dilation"))
    groups = bound["groups"]

    def make(sparse: bool) -> Kernel:
        constants = _require_constants(bound, weight, bias)
        shape = static_shape(bound["x"])
        return lowering.backend.conv2d(
            *constants, shape, stride, padding, dilation, groups, _epilogue(bound), lowering.target, sparse=sparse
        )

    def fallback() -> relax.Expr:
        x, w = lowering.value(bound["x"]), lowering.value(bound["weight"])
        geometry = {"strides": stride, "padding": padding, "dilation": dilation, "groups": groups}
        return sum_in_float32(lowering, x, lambda dtype: relax.op.nn.conv2d(x, w, **geometry, out_dtype=dtype))

    return _lower(lowering, node, "conv2d", weight, make, fallback)


def _pair(values: Any) -> tuple[int, int]:
    return (int(values[0]), int(values[-1]))


def _require_constants(
    bound: dict[str, Any], weight: np.ndarray | None, bias: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    if weight is None or (bias is None and bound["bias"] is not None):
        raise BackendError("the weight is not a float constant")
    return weight, bias


def _epilogue(bound: dict[str, Any]) -> Epilogue:
    from graphprune.backend.kernels import Epilogue

    return Epilogue(bound["bias"] is not None, bound["residual"] is not None, bound["activation"])


def _lower(
    lowering: Lowering,
    node: fx.Node,
    kind: str,
    weight: np.ndarray | None,
    make: MakeKernel,
    fallback: Callable[[], relax.Expr],
) -> relax.Expr:
    bound = bind_arguments(node)
    name = lowering.path(bound["weight"])
    density = None if weight is None else float(np.count_nonzero(weight) / max(1, weight.size))
    shape = static_shape(bound["weight"])
    reasons = [lowering.format_reasons[name]] if bound["format"] == "dense" and name in lowering.format_reasons else []
    for sparse in (True, False) if bound["format"] == "csr" else (False,):
        try:
            kernel = make(sparse)
        except BackendError as error:
            reasons.append(f"no {'sparse' if sparse else 'dense'} kernel: {error.message}")
            continue
        inputs = [lowering.value(bound["x"])]
        if bound["residual"] is not None:
            inputs.append(lowering.value(bound["residual"]))
        macs = math.prod(kernel.output_shape) * math.prod(shape[1:])
        result = lowering.call(kernel, inputs, layer=name, macs=macs, density=density)
        lowering.report(
            node, kind, shape, kernel.name, name=name, density=density, note=kernel.note, reason="; ".join(reasons)
        )
        return result
    lowering.report(node, kind, shape, "relax", name=name, density=density, reason="; ".join(reasons))
    return _with_epilogue(lowering, bound, lowering.emit(fallback()), channel_axis=1 if kind == "conv2d" else -1)


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
