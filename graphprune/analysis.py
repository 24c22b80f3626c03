"""Everything graphprune knows of one graph: its typed axes, its dimensions, its pins, and explanations of them."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch import fx

from graphprune.axes import Axis, Fibre, KeepMasks, Size, leaves, pin_of, project, resolve, size_of
from graphprune.cost import total_costs
from graphprune.edges import gather_note
from graphprune.errors import EmptyAxisError, MaskError, PinnedAxisError
from graphprune.explain import explain_axis
from graphprune.fibres import Unevenness, find_fibres
from graphprune.fingerprint import fingerprint
from graphprune.graph import graph_info
from graphprune.inference import Typing, infer_axes
from graphprune.plans import DimensionChoice, Plan
from graphprune.rules.context import flatten
from graphprune.units.dimensions import Dimension, find_dimensions, parameter_axes


@dataclass(frozen=True)
class Analysis:
    """The result of :func:`analyze`.

    Attributes:
        gm: the graph, not modified.
        typing: the type of every axis.
        dimensions: what can be pruned, in graph order.
        fingerprint: of the graph.
    """

    gm: fx.GraphModule
    typing: Typing
    dimensions: tuple[Dimension, ...]
    fingerprint: str

    @property
    def unknown_ops(self) -> dict[str, list[str]]:
        """Ops without a rule, with the names of their nodes; the axes they touch are pinned."""
        return self.typing.unknown

    @property
    def pins(self) -> list[tuple[str, int, str]]:
        """(parameter path, axis, reason) for every parameter axis of which nothing can be removed."""
        found = []
        for path, d, axis in parameter_axes(self.typing):
            pin = pin_of(axis)
            if pin is not None:
                found.append((path, d, pin.reason))
        return found

    @cached_property
    def unevenness(self) -> dict[str, Unevenness]:
        """For each dimension by name: may its choice differ between elements of another dimension, and if not, why."""
        return find_fibres(self.typing, self.dimensions)

    def __str__(self) -> str:
        lines = [f"{len(self.dimensions)} dimensions"]
        width = max((len(d.title) for d in self.dimensions), default=0)
        for d in self.dimensions:
            statistics = ", renormalised" if d.statistics else ""
            lines.append(f"  {d.title:<{width}}  {d.kind:<10}  {len(d.members)} parameter axes{statistics}, {d.name}")
        for reason, count in Counter(reason for _, _, reason in self.pins).most_common():
            lines.append(f"  pinned: {count} parameter axes: {reason}")
        for op, nodes in self.unknown_ops.items():
            lines.append(f"  no rule: {op} ({len(nodes)} nodes, first {nodes[0]})")
        return "\n".join(lines)

    def explain(self, parameter: str, axis: int) -> str:
        """Say what goes with an axis of a parameter, or why it cannot go.

        Raises:
            MaskError: if there is no such parameter or axis.
        """
        present = {leaf.identity for leaf in leaves(self.parameter_axis(parameter, axis))}
        parameter = self._canonical(parameter)
        lines = [explain_axis(self.gm, self.typing, self.dimensions, parameter, axis)]
        for dimension in self.dimensions:
            if dimension.leaf in present and len(present) > 1:
                uneven = self.unevenness[dimension.name]
                may = f"may differ between elements of {uneven.outer}" if uneven.outer else f"is one: {uneven.reason}"
                lines.append(f"  the choice of {dimension.name} {may}")
        return "\n".join(lines)

    def parameter_axis(self, parameter: str, axis: int) -> Axis:
        """Return the type of one axis of a parameter or buffer.

        Raises:
            MaskError: if there is no such parameter or axis.
        """
        axes = self.typing.attributes.get(self._canonical(parameter))
        if axes is None:
            close = fnmatch.filter(self.typing.attributes, f"*{parameter.split('.')[-1]}*")[:3]
            hint = f"parameters with similar names: {', '.join(close)}" if close else "see Analysis.dimensions"
            raise MaskError(f"the graph has no parameter {parameter!r}", hint=hint)
        if not -len(axes) <= axis < len(axes):
            raise MaskError(f"parameter {parameter!r} has {len(axes)} axes", axis=axis, hint="count from 0")
        return axes[axis]

    def _canonical(self, parameter: str) -> str:
        """Return the name under which the graph reads a parameter that may be tied to another."""
        return graph_info(self.gm).aliases.get(parameter, parameter)

    def cost(self, masks: KeepMasks | None = None) -> dict[str, int]:
        """Return ``{"parameters": ..., "macs": ...}``, of the whole graph or under ``masks``."""
        return total_costs(self.gm, self.typing, [masks or KeepMasks({})])[0]

    # ------------------------------------------------------------------------------------------------ plans

    def masks(self, plan: Plan) -> KeepMasks:
        """Return the keep-masks that ``plan`` puts on this graph's axes.

        Raises:
            MaskError: if the plan is for another graph or a mask does not fit its dimension.
            EmptyAxisError: if an axis would lose all its elements.
        """
        if plan.fingerprint != self.fingerprint:
            raise MaskError(
                f"the plan was made for graph {plan.fingerprint[:12]}, this is {self.fingerprint[:12]}",
                hint="make a plan for this graph, or apply the plan to the graph it was made for",
            )
        if plan.layers:
            raise MaskError(
                f"the plan leaves out {len(plan.layers)} layers, which are no axes",
                hint="apply it with graphprune.prune",
            )
        sizes = {dimension.name: dimension.size for dimension in self.dimensions}
        for choice in plan.choices:
            if sizes.get(choice.name) != choice.size:
                raise MaskError(f"the graph has no dimension {choice.name!r} of size {choice.size}")
            outer = self.unevenness[choice.name].outer if choice.outer else ""
            if choice.keep.ndim != (2 if outer else 1) or choice.outer != outer:
                raise MaskError(f"{choice.name!r} cannot be chosen by {choice.outer!r}")
        masks = self.keep_masks({choice.name: _mask_from_positions(choice) for choice in plan.choices})
        for edge in self.typing.subsets:
            if edge.missing(masks).any():
                raise MaskError(f"{edge.node} selects channels that are removed", hint="make plans with Analysis.plan")
        self.check_not_empty(masks)
        return masks

    def united(self, keep: Mapping[str, NDArray[np.bool_]]) -> dict[str, NDArray[np.bool_]]:
        """Return masks that also keep, of every shared value, the union of what free selections take from it."""
        result = dict(keep)
        names = {dimension.leaf: dimension.name for dimension in self.dimensions}
        changed = bool(self.typing.subsets)
        while changed:
            changed = False
            masks = self.keep_masks(result)
            for edge in self.typing.subsets:
                missing = edge.missing(masks)
                for leaf, needed in project(edge.whole, missing, np.any):
                    name = names.get(leaf.identity)
                    if name in result and bool((needed & ~result[name]).any()):
                        result[name] = result[name] | needed if result[name].ndim == 1 else np.ones_like(result[name])
                        changed = True
        return result

    def keep_masks(self, keep: Mapping[str, NDArray[np.bool_]]) -> KeepMasks:
        """Return masks on axes from masks on dimensions, as :meth:`plan` takes them; emptiness is not checked.

        Raises:
            MaskError: for an unknown dimension, or one that cannot be chosen unevenly and is; see ``unevenness``.
        """
        by_name = {dimension.name: dimension for dimension in self.dimensions}
        by_leaf: dict[int, NDArray[np.bool_]] = {}
        fibres: dict[int, Fibre] = {}
        for name, mask in keep.items():
            dimension = by_name.get(name)
            if dimension is None:
                raise MaskError(f"the graph has no dimension {name!r}", hint="see Analysis.dimensions for the names")
            if mask.ndim < 2:
                by_leaf[dimension.leaf] = mask
                continue
            uneven = self.unevenness[name]
            if uneven.outer is None:
                raise MaskError(f"{name} must keep the same units everywhere: {uneven.reason}")
            outer = by_name[uneven.outer]
            if mask.shape[0] != outer.size:
                raise MaskError(f"{name} needs one row for each of {outer.size} {outer.name}, got {mask.shape[0]}")
            fibres[dimension.leaf] = Fibre(outer.leaf, mask)
        return KeepMasks(by_leaf, fibres)

    def check_not_empty(self, masks: KeepMasks) -> None:
        """Raise EmptyAxisError if any axis of any value would lose all its elements."""
        empty = self.first_empty(masks)
        if empty is not None:
            node, axis = empty
            raise EmptyAxisError(
                "the removal leaves an axis without elements",
                node=node,
                axis=f"size {size_of(axis)}",
                hint="keep at least one unit of every dimension the axis consists of",
            )

        self._check_minimums(masks)

    def _check_minimums(self, masks: KeepMasks) -> None:
        for name, axis, least in self.typing.minimums:
            kept, size = masks.count(axis), size_of(axis)
            if isinstance(kept, int) and kept < least:
                node = next(node for node in self.gm.graph.nodes if node.name == name)
                raise EmptyAxisError(
                    f"the removal leaves {kept} elements of an axis of which {name} chooses {least}",
                    node=node,
                    axis=f"size {size}",
                    hint=f"keep at least {least} of the {size}: lower the ratio, or set min_keep={least / size:.3g}",
                )

    def first_empty(self, masks: KeepMasks) -> tuple[fx.Node, Axis] | None:
        """Return the first (node, axis) that ``masks`` would empty, or None."""
        seen: set[int] = set()
        for node, typed in self.typing.types.items():
            for axis in map(resolve, flatten(typed)):
                if axis.identity not in seen:
                    seen.add(axis.identity)
                    if isinstance(axis.size, int) and axis.size != 0 and masks.count(axis) == 0:
                        return node, axis
        return None

    def plan(self, keep: Mapping[str, NDArray[np.bool_]], requested: Mapping[str, int] | None = None) -> Plan:
        """Return the plan that keeps these units.

        Args:
            keep: dimension name -> boolean array of the dimension's size, True where a unit is kept; or an array
                ``[outer size, size]`` with equally many True in each row, for an uneven choice, see ``unevenness``.
            requested: dimension name -> number of units the caller set out to remove; default: what is removed.

        Raises:
            MaskError: for an unknown dimension, or a mask of the wrong length or dtype.
            EmptyAxisError: if an axis would lose all its elements.
        """
        by_name = {dimension.name: dimension for dimension in self.dimensions}
        keep = {name: np.asarray(mask) for name, mask in keep.items()}
        for name in keep.keys() & by_name.keys():
            _check_mask(keep[name], by_name[name].size, name)
        keep = self.united(keep)
        masks = self.keep_masks(keep)
        choices = []
        for name, mask in keep.items():
            dimension = by_name[name]
            kept = int(mask.sum()) // (len(mask) if mask.ndim == 2 else 1)
            wanted = dimension.size - kept if requested is None else requested.get(name, dimension.size - kept)
            if kept < dimension.size or wanted:
                members = tuple(f"{path}:{d}" for path, d in dimension.members)
                outer = self.unevenness[name].outer if mask.ndim == 2 else None
                positions = mask.nonzero()[-1].astype(np.int64).reshape(*mask.shape[:-1], kept)
                choices.append(
                    DimensionChoice(
                        name, dimension.size, dimension.kind, positions, wanted, members, dimension.title, outer or ""
                    )
                )
        self.check_not_empty(masks)
        before, after = total_costs(self.gm, self.typing, [KeepMasks({}), masks])
        renormalised = {s for c in choices for s in by_name[c.name].statistics}
        notes = (f"{len(renormalised)} nodes normalise over kept channels only",) if renormalised else ()
        notes += gather_note(self.typing, masks)
        cost = {key: (before[key], after[key]) for key in before}
        return Plan(self.fingerprint, tuple(choices), cost=cost, notes=notes, explainer=self.explain)

    def plan_from_axes(self, masks: Mapping[tuple[str, int], NDArray[np.bool_]]) -> Plan:
        """Return the plan that removes given elements of parameter axes, and whatever goes with them.

        Args:
            masks: (parameter path, axis index) -> boolean array of the axis's size, True where an element is kept.

        Raises:
            MaskError: if a mask has the wrong length, or tears apart a product (keeps a head in one place only).
            PinnedAxisError: if an element that cannot go would be removed, with the reason.
            EmptyAxisError: if an axis would lose all its elements.
        """
        by_leaf: dict[int, NDArray[np.bool_]] = {}
        for (path, d), mask in masks.items():
            axis = self.parameter_axis(path, d)
            path = self._canonical(path)
            mask = np.asarray(mask)
            _check_mask(mask, size_of(axis), f"axis {d} of {path}")
            _distribute(self, path, d, axis, mask, by_leaf)
            evaluated = KeepMasks(by_leaf).mask(axis)
            if not np.array_equal(np.ones_like(mask) if evaluated is None else evaluated, mask):
                raise MaskError(
                    "the mask does not respect the structure of the axis",
                    axis=f"{path}:{d} = {resolve(axis)}",
                    hint="an axis viewed as a product (heads, groups) loses whole rows or columns of that product",
                )
        names = {dimension.leaf: dimension.name for dimension in self.dimensions}
        return self.plan({names[leaf]: mask for leaf, mask in by_leaf.items()})


def analyze(gm: fx.GraphModule) -> Analysis:
    """Infer the axes and dimensions of a traced graph."""
    typing = infer_axes(gm)
    return Analysis(gm, typing, tuple(find_dimensions(typing)), fingerprint(gm))


def _mask_from_positions(choice: DimensionChoice) -> NDArray[np.bool_]:
    positions = choice.keep
    if positions.size and (positions.min() < 0 or positions.max() >= choice.size):
        raise MaskError(f"positions of {choice.name!r} exceed its size {choice.size}")
    mask = np.zeros((*positions.shape[:-1], choice.size), bool)
    np.put_along_axis(mask, positions, True, axis=-1)
    return mask


def _check_mask(mask: NDArray[np.bool_], size: Size, name: str) -> None:
    if mask.dtype != np.bool_ or mask.ndim not in (1, 2) or mask.shape[-1] != size:
        raise MaskError(
            f"the keep-mask of {name} must be a boolean array of length {size}, got {mask.dtype} of shape {mask.shape}"
        )
    if not mask.any():
        raise EmptyAxisError(f"the keep-mask of {name} removes all {size} elements", hint="keep at least one")


def _distribute(
    analysis: Analysis, path: str, d: int, axis: Axis, mask: NDArray[np.bool_], by_leaf: dict[int, NDArray[np.bool_]]
) -> None:
    """Project an axis's mask onto its leaves: an element of a leaf goes if everything it stands for goes."""
    prunable = {dimension.leaf for dimension in analysis.dimensions}
    for leaf, kept in project(axis, mask, np.any, absent=True):
        if kept.all():
            continue
        if leaf.identity not in prunable:
            raise PinnedAxisError(
                f"axis {d} of {path} cannot lose elements: {leaf.pin.reason if leaf.pin else 'no parameter behind it'}",
                axis=f"{path}:{d}",
                hint=analysis.explain(path, d),
            )
        earlier = by_leaf.get(leaf.identity)
        by_leaf[leaf.identity] = kept if earlier is None else earlier & kept
