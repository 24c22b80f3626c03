"""Lowers ``graphprune::recurrence`` to one kernel."""

from __future__ import annotations

from torch import fx
from tvm import relax

from graphprune.backend.lowering import Lowering, static_shape
from graphprune.errors import BackendError
from graphprune.graph import bind_arguments


def lower_recurrence(lowering: Lowering, node: fx.Node) -> relax.Expr:
    """Lower ``graphprune::recurrence``, whose weight is a constant.

    Raises:
        BackendError: if the weight is computed, or the backend has no such kernel.
    """
    bound = bind_arguments(node)
    weight, bias = lowering.constant(bound["weight"]), lowering.constant(bound["bias"])
    if weight is None or (bias is None and bound["bias"] is not None):
        raise BackendError("the weight of a recurrent layer is not a float constant", node=node)
    options = {name: bound[name] for name in ("kind", "batch_first", "reverse", "with_cell")}
    shape = static_shape(bound["gates"])
    kernel = lowering.backend.recurrence(weight, bias, shape, lowering.target, **options)
    name = lowering.path(bound["weight"])
    density = float((weight != 0).mean())
    reason = "recurrent products have no sparse kernel: each step reads a hidden state that lies in the cache"
    lowering.report(
        node, bound["kind"], weight.shape, kernel.name, name=name, density=density, note=kernel.note, reason=reason
    )
    operands = [lowering.value(operand) for operand in (bound["gates"], *bound["states"])]
    macs = weight.size * shape[0] * shape[1]
    return lowering.call(kernel, operands, layer=name, macs=macs, density=density)
