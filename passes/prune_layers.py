"""Removes whole layers: residual branches, or repeated blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from torch import fx

from graphprune.analysis import analyze
from graphprune.batches import example_batch
from graphprune.errors import PassError
from graphprune.pass_base import Pass
from graphprune.plans import Plan
from graphprune.sections.blocks import find_blocks
from graphprune.sections.bypass import bypass
from graphprune.sections.planned import plan_without
from graphprune.sections.residuals import Section, find_branches
from graphprune.sections.scores import influences, loss_increases, output_changes
from graphprune.units.name_patterns import matches, require_matches

_CRITERIA = ("similarity", "loss", "output")
_FINDERS = {"block": find_blocks, "branch": find_branches}


@dataclass(frozen=True)
class PruneLayers(Pass):
    """Remove the least important layers: whole repeated blocks, or single residual branches.

    A layer can go where a residual stream runs past it: ``x + f(x)`` becomes ``x``, for a branch; a block (an encoder
    layer with both its branches, an inverted residual, a Mamba block) is bypassed from where the stream enters it to
    where it leaves. All layers are scored once, in the whole model, and at least one stays.

    Attributes:
        count: how many layers to remove; None: ``ratio`` of them.
        ratio: fraction of the layers to remove, rounded down; ignored if ``count`` is given.
        criterion: ``similarity`` removes the layers whose output is most like their input (the block influence of
            ShortGPT), ``loss`` those without which the loss grows least, ``output`` those without which the model's
            outputs change least.
        granularity: ``block`` or ``branch``.
        include: name patterns (``fnmatch``); only layers that match one are removed. Empty: all. A layer matches if the
            pattern fits its title, the path of its module, or that of a module around it.
        ignore: name patterns; layers that match one stay.
        data: calibration batches, of the forms that :mod:`graphprune.batches` lists; None: the example inputs the model
            was traced with, which say little.
        loss: for the criterion ``loss``: called as ``loss(output, batch)``, returns a scalar tensor.
        batches: how many batches to use; None for all.
    """

    count: int | None = None
    ratio: float = 0.25
    criterion: Literal["similarity", "loss", "output"] = "similarity"
    granularity: Literal["block", "branch"] = "block"
    include: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    data: Iterable[Any] | None = field(default=None, repr=False, compare=False)
    loss: Callable[[Any, Any], torch.Tensor] | None = field(default=None, repr=False, compare=False)
    batches: int | None = None

    def run(self, gm: fx.GraphModule) -> tuple[fx.GraphModule, dict[str, Any]]:
        """Score, choose and bypass; the summary has the costs, and the scores of what went and of what stayed."""
        scores, chosen = self._choose(gm)
        before = analyze(gm).cost()
        result = bypass(gm, chosen, share=True)
        after = analyze(result).cost()
        removed = {section.title for section in chosen}
        summary = {
            "removed": {title: score for title, score in scores.items() if title in removed},
            "kept": {title: score for title, score in scores.items() if title not in removed},
            "cost": {name: [value, after[name]] for name, value in before.items()},
            "criterion": self.criterion,
        }
        return result, summary

    def plan(self, gm: fx.GraphModule) -> Plan:
        """Return which layers this pass would leave out of ``gm``, without leaving them out.

        Raises:
            PassError: as :meth:`layers`, or what the criterion says about its data.
        """
        with torch.no_grad():
            _, chosen = self._choose(gm)
            before, after = analyze(gm).cost(), analyze(bypass(gm, chosen, share=True)).cost()
        return plan_without(gm, chosen, {name: (value, after[name]) for name, value in before.items()})

    def layers(self, gm: fx.GraphModule) -> list[Section]:
        """Return the layers of a traced graph that this pass may remove, in graph order.

        Raises:
            PassError: if an option makes no sense, the graph has no such layers, or a pattern matches nothing.
        """
        self._check_options()
        found = _FINDERS[self.granularity](gm)
        if not found:
            other = "branch" if self.granularity == "block" else "block"
            raise PassError(
                f"the graph has no {self.granularity} that can be left out",
                hint=f"layers need a residual stream past them; try granularity={other!r}",
            )
        paths = [section.module for section in found]
        require_matches((*self.include, *self.ignore), paths, [section.title for section in found])
        return [s for s in found if (not self.include or _fits(s, self.include)) and not _fits(s, self.ignore)]

    def scores(self, gm: fx.GraphModule) -> dict[str, float]:
        """Return the score of each layer this pass may remove, by title: the lowest go first.

        Raises:
            PassError: as :meth:`layers`, or what the criterion says about its data.
        """
        return self._score(gm, self.layers(gm))

    # ------------------------------------------------------------------------------------------------ private

    def _choose(self, gm: fx.GraphModule) -> tuple[dict[str, float], list[Section]]:
        layers = self.layers(gm)
        wanted = int(len(layers) * self.ratio + 1e-9) if self.count is None else self.count
        total = len(_FINDERS[self.granularity](gm))
        if wanted > len(layers) or wanted >= total:
            raise PassError(
                f"cannot remove {wanted} layers: {len(layers)} may go, and one of all {total} must stay",
                hint="lower count or ratio, or widen include",
            )
        scores = self._score(gm, layers)
        lowest = set(sorted(scores, key=scores.__getitem__)[:wanted])
        return scores, [section for section in layers if section.title in lowest]

    def _score(self, gm: fx.GraphModule, layers: list[Section]) -> dict[str, float]:
        if any(value.is_meta for value in gm.state_dict().values()):
            raise PassError("weights on the meta device have no values", hint="load the weights first")
        data = [example_batch(gm)] if self.data is None else self.data
        if self.criterion == "loss":
            assert self.loss is not None
            return loss_increases(gm, layers, data, self.loss, batches=self.batches)
        if self.criterion == "output":
            return output_changes(gm, layers, data, batches=self.batches)
        return influences(analyze(gm), layers, data, batches=self.batches)

    def _check_options(self) -> None:
        if not 0 <= self.ratio < 1:
            raise PassError(f"ratio {self.ratio} is not in [0, 1)", hint="0.25 removes a quarter of the layers")
        if self.count is not None and self.count < 0:
            raise PassError(f"count {self.count} is negative")
        if self.criterion not in _CRITERIA:
            raise PassError(f"unknown criterion {self.criterion!r}", hint=f"use one of {', '.join(_CRITERIA)}")
        if self.granularity not in _FINDERS:
            raise PassError(f"unknown granularity {self.granularity!r}", hint=f"use one of {', '.join(_FINDERS)}")
        if self.criterion == "loss" and (self.data is None or self.loss is None):
            raise PassError(
                "the criterion 'loss' needs data and a loss",
                hint="write PruneLayers(criterion='loss', data=batches, loss=lambda output, batch: ...)",
            )


def _fits(section: Section, patterns: tuple[str, ...]) -> bool:
    is_named = any(section.title == pattern or fnmatchcase(section.title, pattern) for pattern in patterns)
    return is_named or matches(section.module, patterns)
