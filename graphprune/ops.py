"""Custom ops that stand for a whole layer with its epilogue: what the backend lowers to one kernel.

Both compute ``activation(op(x, weight, bias) + residual)``. ``format`` says how the weight will be stored when lowered:
``dense`` or ``csr``. In the graph the weight stays an ordinary dense tensor, so that a marked graph runs, exports and
retraces like any other. Importing this module registers the ops.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from graphprune.errors import PassError

FORMATS = ("dense", "csr")

_ACTIVATIONS = {
    "none": lambda y: y,
    "relu": F.relu,
    "relu6": F.relu6,
    "hardswish": F.hardswish,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda y: F.gelu(y, approximate="tanh"),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}
ACTIVATIONS = tuple(_ACTIVATIONS)


def _epilogue(y: torch.Tensor, residual: torch.Tensor | None, activation: str, format: str) -> torch.Tensor:
    if activation not in _ACTIVATIONS:
        raise PassError(f"unknown activation {activation!r}", hint=f"one of {', '.join(ACTIVATIONS)}")
    if format not in FORMATS:
        raise PassError(f"unknown weight format {format!r}", hint=f"one of {', '.join(FORMATS)}")
    if residual is not None:
        y = y + residual
    return _ACTIVATIONS[activation](y)


@torch.library.custom_op(
    "graphprune::fused_linear",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor? bias, Tensor? residual, str activation, str format) -> Tensor",
)
def fused_linear(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    activation: str,
    format: str,
) -> torch.Tensor:
    """Return ``activation(x @ weight.T + bias + residual)``; x is [..., in], weight [out, in], residual [..., out]."""
    return _epilogue(F.linear(x, weight, bias), residual, activation, format)


@torch.library.custom_op(
    "graphprune::fused_conv2d",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor? bias, Tensor? residual, SymInt[2] stride, SymInt[2] padding, "
    "SymInt[2] dilation, int groups, str activation, str format) -> Tensor",
)
def fused_conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    residual: torch.Tensor | None,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    groups: int,
    activation: str,
    format: str,
) -> torch.Tensor:
    """Return ``activation(conv2d(x, weight) + bias + residual)``; x is NCHW, weight [out, in / groups, kh, kw]."""
    y = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    return _epilogue(y, residual, activation, format)


fused_linear.register_fake(fused_linear._init_fn)
fused_conv2d.register_fake(fused_conv2d._init_fn)

FUSED_LINEAR = torch.ops.graphprune.fused_linear.default
FUSED_CONV2D = torch.ops.graphprune.fused_conv2d.default


@torch.library.custom_op("graphprune::select_channels", mutates_args=(), schema="(Tensor x, int dim) -> Tensor")
def select_channels(x: torch.Tensor, dim: int) -> torch.Tensor:
    """Return a copy of ``x``. It marks an edge whose reader may take a subset of axis ``dim`` of its own."""
    return x.clone()


select_channels.register_fake(select_channels._init_fn)

SELECT_CHANNELS = torch.ops.graphprune.select_channels.default
