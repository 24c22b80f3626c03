"""Layers in plans: which sections a plan leaves out, and the graph without them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import fx

from graphprune.errors import MaskError
from graphprune.fingerprint import fingerprint
from graphprune.plans import Plan, RemovedLayer
from graphprune.sections.bypass import bypass
from graphprune.sections.residuals import Section, needed_only_by, parameters_of


def plan_without(gm: fx.GraphModule, sections: Iterable[Section], cost: Mapping[str, tuple[int, int]]) -> Plan:
    """Return the plan that leaves ``sections`` of ``gm`` out; ``cost`` is that of the graph before and after."""
    layers = tuple(RemovedLayer(s.title, s.module, s.entry.name, s.exit.name) for s in sections)
    return Plan(fingerprint(gm), cost=cost, layers=layers)


def planned_sections(gm: fx.GraphModule, plan: Plan) -> list[Section]:
    """Return the sections of ``gm`` that ``plan`` leaves out.

    Raises:
        MaskError: if the plan is for another graph, or removes units or weights too.
    """
    found = fingerprint(gm)
    if plan.fingerprint != found:
        raise MaskError(
            f"the plan was made for graph {plan.fingerprint[:12]}, this is {found[:12]}",
            hint="make a plan for this graph, or apply the plan to the graph it was made for",
        )
    if plan.choices or plan.weight_masks:
        raise MaskError(
            "a plan leaves out layers or removes units, not both", hint="make two plans, one after the other"
        )
    nodes = {node.name: node for node in gm.graph.nodes}
    sections = []
    for layer in plan.layers:
        entry, exit_node = nodes.get(layer.entry), nodes.get(layer.exit)
        if entry is None or exit_node is None:
            raise MaskError(f"the graph has no layer from {layer.entry!r} to {layer.exit!r}", hint="make the plan anew")
        inside = needed_only_by(exit_node, entry)
        sections.append(Section(layer.title, layer.module, entry, exit_node, inside, parameters_of(inside)))
    return sections


def without_layers(gm: fx.GraphModule, plan: Plan) -> fx.GraphModule:
    """Return a copy of ``gm`` without the layers of ``plan``.

    Raises:
        MaskError: as :func:`planned_sections`.
        VerificationError: if a node has another shape afterwards (a bug in graphprune).
    """
    return bypass(gm, planned_sections(gm, plan))
