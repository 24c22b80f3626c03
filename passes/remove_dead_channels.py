"""Removes channels that contribute nothing, without changing the function the graph computes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from graphprune.analysis import Analysis, analyze
from graphprune.axes import KeepMasks
from graphprune.constants import constant_elements
from graphprune.dead_units import DeadUnits, Reader, find_dead_units
from graphprune.errors import PassError, VerificationError
from graphprune.graph import bind_arguments, get_attribute, graph_info, set_attribute
from graphprune.pass_base import Pass
from graphprune.plans import Plan
from graphprune.propagation import propagate_fake
from graphprune.shrink import shrink


@dataclass(frozen=True)
class RemoveDeadChannels(Pass):
    """Remove channels that are constant (zero weights, zero batch-norm scales) or that nobody reads, losslessly.

    Use it after ``torch.nn.utils.prune``, or after training with a sparsity penalty. A constant other than zero that a
    removed channel emitted is folded into the bias of the layers that read it. The result is compared with the original
    on the example inputs.

    Attributes:
        tolerance: largest accepted difference of outputs, relative to the largest output, in that comparison.
    """

    tolerance: float = 1e-4

    def run(self, gm: fx.GraphModule) -> tuple[fx.GraphModule, dict[str, Any]]:
        """Find dead units, shrink, fold constants, compare; the summary lists sizes and what was not considered."""
        analysis, dead = self._find(gm)
        plan = analysis.plan(dead.keep)
        result = shrink(gm, plan, analysis=analysis)
        folded = _fold_constants(analysis, dead.readers, analysis.masks(plan), result)
        self._compare(gm, result)
        summary = {
            "cost": {name: list(values) for name, values in plan.cost.items()},
            "dimensions": {c.name: [c.size, c.kept] for c in plan.choices},
            "folded_into_bias": folded,
            "skipped": dead.skipped,
        }
        return result, summary

    def plan(self, gm: fx.GraphModule) -> Plan:
        """Return which units of a traced graph are dead. The plan alone does not fold constants: call the pass."""
        with torch.no_grad():
            analysis, dead = self._find(gm)
        return analysis.plan(dead.keep)

    def _find(self, gm: fx.GraphModule) -> tuple[Analysis, DeadUnits]:
        if any(value.is_meta for value in gm.state_dict().values()):
            raise PassError("weights on the meta device have no values", hint="load the weights first")
        analysis = analyze(gm)
        return analysis, find_dead_units(analysis, constant_elements(gm))

    def _compare(self, before: fx.GraphModule, after: fx.GraphModule) -> None:
        info = graph_info(before)
        outputs = [pytree.tree_leaves(gm(*info.example_args, **info.example_kwargs)) for gm in (before, after)]
        for old, new in zip(*outputs, strict=True):
            if not isinstance(old, torch.Tensor):
                continue
            difference = (old - new).abs().max() if old.is_floating_point() else (old != new).any()
            if difference > self.tolerance * max(1.0, float(old.abs().max())):
                raise VerificationError(
                    f"removing dead channels changed an output by {float(difference):.2e}",
                    hint="this is a bug in graphprune: please report the model",
                )


def _fold_constants(analysis: Analysis, readers: list[Reader], masks: KeepMasks, result: fx.GraphModule) -> list[str]:
    """Add what removed constants contributed to the biases of ``result``; return the names of the changed layers."""
    nodes = {node.name: node for node in result.graph.nodes}
    changed = []
    for reader in readers:
        mask = masks.mask(reader.axis)
        if mask is None:
            continue
        removed = torch.from_numpy(~mask) & ~reader.ignored
        constants = torch.where(removed, reader.constants, torch.zeros_like(reader.constants))
        if not constants.any():
            continue
        delta = _contribution(analysis.gm, reader.node, constants)
        arguments = bind_arguments(reader.node)
        outputs = masks.mask(analysis.typing.attributes[str(arguments["weight"].target)][0])
        if outputs is not None:
            delta = delta[torch.from_numpy(outputs)]
        _add_to_bias(result, nodes[reader.node.name], delta)
        changed.append(reader.node.name)
    if changed:
        result.recompile()
        propagate_fake(result)
    return changed


def _contribution(gm: fx.GraphModule, node: fx.Node, constants: torch.Tensor) -> torch.Tensor:
    """Return what ``constants`` on the read axis add to each output channel."""
    arguments = bind_arguments(node)
    weight = get_attribute(gm, str(arguments["weight"].target)).detach()
    groups = arguments.get("groups", 1)
    taps = weight.flatten(2).sum(2) if weight.dim() > 2 else weight
    per_group = taps.view(groups, -1, weight.shape[1]) @ constants.view(groups, weight.shape[1], 1)
    return per_group.flatten()


def _add_to_bias(result: fx.GraphModule, node: fx.Node, delta: torch.Tensor) -> None:
    bias = bind_arguments(node)["bias"]
    weight_path = str(bind_arguments(node)["weight"].target)
    old = get_attribute(result, str(bias.target)).detach() if bias is not None else torch.zeros_like(delta)
    path = weight_path.rsplit(".", 1)[0] + ".bias" if "." in weight_path else f"{weight_path}_bias"
    shared = bias is not None and len(bias.users) > 1
    if bias is not None and not shared:
        path = str(bias.target)
    elif shared or _exists(result, path):
        path = f"{node.name}_bias"
    set_attribute(result, path, nn.Parameter(old + delta))
    with result.graph.inserting_before(node):
        new_bias = result.graph.get_attr(path)
    new_bias.meta["val"] = get_attribute(result, path)
    position = [a.name for a in node.target._schema.arguments].index("bias")  # type: ignore[union-attr]
    arguments = list(node.args) + [None] * (position + 1 - len(node.args))
    arguments[position] = new_bias
    node.args = tuple(arguments)
    node.kwargs = {name: value for name, value in node.kwargs.items() if name != "bias"}
    if bias is not None and not bias.users:
        result.graph.erase_node(bias)


def _exists(module: nn.Module, path: str) -> bool:
    try:
        get_attribute(module, path)
    except AttributeError:
        return False
    return True
