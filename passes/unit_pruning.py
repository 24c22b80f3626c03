"""What PruneChannels and PruneHeads share: score the units of some dimensions, meet a budget, shrink."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import fx

from graphprune.analysis import Analysis, analyze
from graphprune.axes import KeepMasks
from graphprune.cost import mac_count, parameter_count
from graphprune.criteria import L2, Criterion
from graphprune.edges import read_by_selection_only
from graphprune.errors import PassError
from graphprune.pass_base import Pass
from graphprune.plans import Plan
from graphprune.shrink import shrink
from graphprune.units.budget import BoolArray, FloatArray, global_masks, smallest_ratio, uniform_masks
from graphprune.units.dimensions import Dimension
from graphprune.units.importance import unit_scores
from graphprune.units.kinds import KINDS, SYNONYMS
from graphprune.units.name_patterns import require_matches

_MAGNITUDE = L2()
MAX_LISTED = 6
"""How many dimensions a note of a plan names."""


@dataclass(frozen=True)
class UnitPruning(Pass):
    """Remove the least important units of the dimensions of some kinds and shrink the graph.

    Attributes:
        ratio: fraction of units to remove, from 0 up to but not including 1. Ignored if a budget is given.
        parameters: budget: most parameters the result may have; a float up to 1 is a fraction of today's count.
        macs: budget: most multiply-accumulates at the traced input shape; a float up to 1 is a fraction.
        scope: ``uniform`` removes the same fraction of every dimension, ``global`` the least important units anywhere.
        criterion: scores elements; a unit's score is the sum over everything that leaves with it.
        round_to: numbers of kept units are multiples of this (8 suits most hardware).
        min_keep: least fraction of each dimension to keep.
        kinds: which kinds of dimensions to prune, see :class:`graphprune.units.dimensions.Dimension`.
        include: name patterns (``fnmatch``); only dimensions that match one are pruned. Empty: all. A dimension matches
            if the pattern fits its title or name, or the path of a parameter it touches or of a module around that.
        ignore: name patterns; dimensions that match one are left alone.
        dimension_ratio: name pattern -> ratio for dimensions that match, instead of ``ratio`` (uniform scope only); the
            first pattern that matches counts.
        uneven: let each head keep head dimensions of its own, each group of a convolution channels of its own, equally
            many each, wherever ``Analysis.unevenness`` allows it. The cost is the same; the choice is freer.
    """

    ratio: float = 0.5
    parameters: float | int | None = None
    macs: float | int | None = None
    scope: Literal["uniform", "global"] = "uniform"
    criterion: Criterion = _MAGNITUDE
    round_to: int = 1
    min_keep: float = 0.0
    kinds: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    dimension_ratio: Mapping[str, float] | Sequence[tuple[str, float]] = ()
    uneven: bool = False

    def run(self, gm: fx.GraphModule) -> tuple[fx.GraphModule, dict[str, Any]]:
        """Plan and shrink; the summary has the costs and each dimension's size before and after."""
        analysis = analyze(gm)
        plan = self.plan(gm, analysis=analysis)
        untouched = [d.name for d in self.targets(analysis) if plan.choice(d.name) is None]
        summary = {
            "cost": {name: list(values) for name, values in plan.cost.items()},
            "dimensions": {c.name: [c.size, c.kept] for c in plan.choices},
            "untouched": untouched,
            "notes": list(plan.notes),
        }
        return shrink(gm, plan, analysis=analysis), summary

    def plan(self, gm: fx.GraphModule, *, analysis: Analysis | None = None) -> Plan:
        """Return what would be removed from a traced graph, without removing it.

        Raises:
            PassError: if an option makes no sense, a pattern matches nothing, or a budget cannot be met.
        """
        self._check_options()
        analysis = analysis or analyze(gm)
        targets = self.targets(analysis)
        if not targets:
            return replace(analysis.plan({}), notes=self._notes(analysis, targets))
        with torch.no_grad():
            scores = unit_scores(analysis, self.criterion, targets, self._blocks(analysis, targets))
        masks = self._within_budget(analysis, targets, scores)
        requested = {
            d.name: int(d.size * self._ratio_of(d) + 1e-9)
            for d in targets
            if self.scope == "uniform" and d.name in masks
        }
        budgeted = self.parameters is not None or self.macs is not None
        plan = analysis.plan(masks, None if budgeted or self.scope == "global" else requested)
        return replace(plan, notes=(*plan.notes, *self._notes(analysis, targets)))

    def targets(self, analysis: Analysis) -> list[Dimension]:
        """Return the dimensions this pass may prune.

        Raises:
            PassError: if a name pattern matches no parameter, module or dimension at all.
        """
        patterns = (*self.include, *self.ignore, *dict(self.dimension_ratio))
        titles = [name for dimension in analysis.dimensions for name in dimension.names]
        require_matches(patterns, sorted(analysis.typing.parameters), titles)
        return [
            dimension
            for dimension in self._of_kind(analysis)
            if (not self.include or dimension.matches(self.include)) and not dimension.matches(self.ignore)
        ]

    # ------------------------------------------------------------------------------------------------ private

    def _of_kind(self, analysis: Analysis) -> list[Dimension]:
        wanted = {SYNONYMS.get(kind, kind) for kind in self.kinds}
        return [dimension for dimension in analysis.dimensions if dimension.kind in wanted]

    def _notes(self, analysis: Analysis, targets: list[Dimension]) -> tuple[str, ...]:
        """Say what the name patterns did: whose ratio is another one, and what is left alone."""
        notes = []
        for pattern, ratio in dict(self.dimension_ratio).items():
            titles = [d.title for d in targets if self._pattern_of(d) == pattern]
            notes.append(f"ratio {ratio:g} for {pattern}: {_listing(titles)}")
        chosen = {dimension.leaf for dimension in targets}
        left = [dimension.title for dimension in self._of_kind(analysis) if dimension.leaf not in chosen]
        if left:
            notes.append(f"left alone by include and ignore: {_listing(left)}")
        return tuple(notes)

    def _blocks(self, analysis: Analysis, targets: list[Dimension]) -> dict[str, str]:
        """Return the dimensions to choose unevenly, each with its outer dimension, which is then chosen evenly."""
        if not self.uneven:
            return {}
        allowed = {d.name: analysis.unevenness[d.name].outer for d in targets}
        blocks = {inner: outer for inner, outer in allowed.items() if outer is not None}
        return {inner: outer for inner, outer in blocks.items() if inner not in blocks.values()}

    def _check_options(self) -> None:
        unknown = [kind for kind in self.kinds if SYNONYMS.get(kind, kind) not in KINDS]
        if unknown or not self.kinds:
            raise PassError(
                f"unknown kinds {unknown}" if unknown else "kinds is empty",
                hint=f"choose from {', '.join([*KINDS, *SYNONYMS])}",
            )
        for ratio in (self.ratio, *dict(self.dimension_ratio).values()):
            if not 0 <= ratio < 1:
                raise PassError(f"ratio {ratio} is not in [0, 1)", hint="0.5 removes half of the units")
        if not 0 <= self.min_keep <= 1 or self.round_to < 1:
            raise PassError(f"min_keep {self.min_keep} must be in [0, 1] and round_to {self.round_to} at least 1")
        if self.scope not in ("uniform", "global"):
            raise PassError(f"unknown scope {self.scope!r}", hint="use 'uniform' or 'global'")
        if self.scope == "global" and self.dimension_ratio:
            raise PassError("dimension_ratio needs scope='uniform'")
        if self.dimension_ratio and (self.parameters is not None or self.macs is not None):
            raise PassError("dimension_ratio and a budget exclude each other", hint="a budget finds the ratio itself")
        if self.parameters is not None and self.macs is not None:
            raise PassError("give a budget of parameters or of macs, not both")

    def _pattern_of(self, dimension: Dimension) -> str | None:
        return next((pattern for pattern in dict(self.dimension_ratio) if dimension.matches((pattern,))), None)

    def _ratio_of(self, dimension: Dimension) -> float:
        pattern = self._pattern_of(dimension)
        return self.ratio if pattern is None else dict(self.dimension_ratio)[pattern]

    def _within_budget(
        self, analysis: Analysis, targets: list[Dimension], scores: dict[str, FloatArray]
    ) -> dict[str, BoolArray]:
        least = {d.name: d.least for d in targets}
        if self.parameters is None and self.macs is None:
            own = {d.name: self._ratio_of(d) for d in targets}
            return self._masks(analysis, scores, own, least)
        count, limit, name = (
            (parameter_count, self.parameters, "parameters")
            if self.parameters is not None
            else (mac_count, self.macs, "MACs")
        )
        assert limit is not None
        budget = (
            int(limit * count(analysis.gm, analysis.typing, KeepMasks({})))
            if isinstance(limit, float) and limit <= 1
            else int(limit)
        )

        def cost(ratio: float) -> int:
            masks = self._masks(analysis, scores, dict.fromkeys(scores, ratio), least)
            return count(analysis.gm, analysis.typing, analysis.keep_masks(masks))

        ratio = smallest_ratio(cost, budget, name)
        return self._masks(analysis, scores, dict.fromkeys(scores, ratio), least)

    def _masks(
        self, analysis: Analysis, scores: dict[str, FloatArray], ratios: dict[str, float], least: dict[str, int]
    ) -> dict[str, BoolArray]:
        if self.scope == "global":
            masks = global_masks(scores, max(ratios.values(), default=0.0), self.round_to, self.min_keep, least)
        else:
            masks = uniform_masks(scores, lambda name: ratios[name], self.round_to, self.min_keep, least)
        if not analysis.typing.subsets:
            return masks
        selected = read_by_selection_only(analysis.typing)
        chosen = {d.name for d in analysis.dimensions if d.leaf in selected and masks.get(d.name, np.ones(1)).ndim == 1}
        return analysis.united({name: mask & (name not in chosen) for name, mask in masks.items()})


def _listing(titles: list[str]) -> str:
    more = f" and {len(titles) - MAX_LISTED} more" if len(titles) > MAX_LISTED else ""
    return (", ".join(titles[:MAX_LISTED]) or "no dimension") + more
