"""Compares the graph of a module whose sizes were changed with the shrunk graph it should equal."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import fx

from graphprune.eager.trial import Fault
from graphprune.errors import HardCodedSizeError
from graphprune.graph import attribute_tensors, bind_arguments, op_name
from graphprune.propagation import is_symbolic

HINT = (
    "compute the size or constant from an attribute of the module or from a tensor's shape at run time; or leave those "
    "units alone (`ignore=`), or use the graph that graphprune.prune returns"
)


def hard_coded(fault: Fault, hint: str = HINT) -> HardCodedSizeError:
    """Return the error that reports a fault which no choice of sizes cures."""
    where = f" (in module {fault.suspects[0] or 'at the root'})" if fault.suspects else ""
    return HardCodedSizeError(
        f"the module's code does not follow the plan{where}: {fault.message}", source=fault.source, hint=hint
    )


def check_same_graph(actual: fx.GraphModule, small: fx.GraphModule) -> None:
    """Require the same parameters of the same shapes, the same shapes of values, and the same constants.

    Raises:
        HardCodedSizeError: naming the first node that differs, and the line of code that made it.
    """
    _check_parameters(actual, small)
    ops = [[node for node in gm.graph.nodes if node.op == "call_function"] for gm in (actual, small)]
    if [op_name(node) for node in ops[0]] != [op_name(node) for node in ops[1]]:
        return  # the code took another way to the results, which were compared
    for mine, theirs in zip(*ops):
        difference = _difference(mine, theirs)
        if difference is not None:
            raise HardCodedSizeError(
                f"the module's code does otherwise than the shrunk graph: {difference}", node=mine, hint=HINT
            )


def _check_parameters(actual: fx.GraphModule, small: fx.GraphModule) -> None:
    mine, theirs = (
        {
            path: list(value.shape)
            for path, value in attribute_tensors(gm).items()
            if isinstance(value, torch.nn.Parameter)
        }
        for gm in (actual, small)
    )
    for path in dict.fromkeys([*theirs, *mine]):
        if mine.get(path) != theirs.get(path):
            raise HardCodedSizeError(
                f"parameter {path} of the module has shape {mine.get(path)}, the shrunk graph's {theirs.get(path)}",
                hint=HINT,
            )


def _difference(mine: fx.Node, theirs: fx.Node) -> str | None:
    a, b = mine.meta.get("val"), theirs.meta.get("val")
    if (
        isinstance(a, torch.Tensor)
        and isinstance(b, torch.Tensor)
        and not (is_symbolic(a) or is_symbolic(b))
        and a.shape != b.shape
    ):
        return f"{op_name(mine)} makes a tensor of shape {list(a.shape)}, expected {list(b.shape)}"
    if mine.target is not theirs.target:
        return None
    before, after = _constants(theirs), _constants(mine)
    for name, value in before.items():
        if name in after and not math.isclose(after[name], value, rel_tol=1e-6):
            return f"{name} of {op_name(mine)} is {after[name]:g}, expected {value:g}"
    return None


def _constants(node: fx.Node) -> dict[str, float]:
    """Return the floating-point arguments of a node, and its numbers of groups."""
    found: dict[str, float] = {}
    for name, value in bind_arguments(node).items():
        if isinstance(value, float) or (name in ("groups", "num_groups") and isinstance(value, int)):
            found[name] = value
    query: Any = node.args[0].meta.get("val") if node.args and isinstance(node.args[0], fx.Node) else None
    if op_name(node) == "scaled_dot_product_attention" and "scale" not in found and query is not None:
        found["scale"] = 1 / math.sqrt(float(query.shape[-1]))
    return found
