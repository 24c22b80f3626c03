"""Lowers the convolutions that no kernel of ours takes, in the dtypes for which TVM's importer assumes float32."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from tvm import relax

from graphprune.backend.lowering import Lowering
from graphprune.errors import BackendError
from graphprune.graph import bind_arguments

aten = torch.ops.aten

_PLAIN = {1: relax.op.nn.conv1d, 2: relax.op.nn.conv2d, 3: relax.op.nn.conv3d}


def sum_half_in_float32(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *geometry: Any, **named: Any
) -> Any:
    """Decompose a convolution in half precision to one in float32, as torch's own kernels sum; else say no."""
    if x.dtype not in (torch.float16, torch.bfloat16):
        return NotImplemented
    wide = (x.float(), weight.float(), None if bias is None else bias.float())
    return aten.convolution.default(*wide, *geometry, **named).to(x.dtype)


def lower_convolution(lowering: Lowering, node: fx.Node) -> relax.Expr:
    """Lower ``convolution`` in float64; what TVM's importer does well returns ``NotImplemented``.

    Raises:
        BackendError: for a transposed convolution in float64, which Relax cannot sum in float64.
    """
    dtype = node.meta["val"].dtype
    if dtype == torch.float32:
        return NotImplemented
    bound = bind_arguments(node)
    rank = bound["weight"].meta["val"].dim() - 2
    if bound["transposed"] or bound["input"].meta["val"].dim() != rank + 2:
        problem = f"no lowering to TVM for this convolution in {dtype}"
        raise BackendError(problem, node=node, hint="convert the model to float32 first: model.float()")
    y = lowering.emit(
        _PLAIN[rank](
            lowering.value(bound["input"]),
            lowering.value(bound["weight"]),
            strides=list(bound["stride"]),
            padding=list(bound["padding"]),
            dilation=list(bound["dilation"]),
            groups=bound["groups"],
            out_dtype=str(dtype).removeprefix("torch."),
        )
    )
    if bound["bias"] is None:
        return y
    bias = lowering.emit(relax.op.reshape(lowering.value(bound["bias"]), (1, -1, *[1] * rank)))
    return lowering.emit(relax.op.add(y, bias))
