"""Zeroes single weights, small blocks of them, or N of every M, and remembers which in ``weight_masks``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import fx

from graphprune.criteria import L1, Criterion
from graphprune.errors import PassError
from graphprune.graph import get_attribute, graph_info
from graphprune.pass_base import Pass
from graphprune.sparsity.patterns import Blocks, NOfM, parse_pattern
from graphprune.sparsity.selection import lowest, lowest_of_each_row
from graphprune.sparsity.weights import WeightUse, other_readers, readers, weight_uses
from graphprune.units.name_patterns import matches, require_matches

_MAGNITUDE = L1()
_SCOPES = ("global", "layer", "row")


@dataclass(frozen=True)
class PruneWeights(Pass):
    """Set the least important weights of linears and convolutions to zero; shapes stay as they are.

    The keep-masks go to ``graph_info(gm).weight_masks`` and add to what is there: a pruned weight stays pruned. Biases,
    norms and embeddings are not touched, and neither is a weight that an embedding shares, unless ``include`` names it.

    Attributes:
        sparsity: fraction of weights to be zero, from 0 up to but not including 1; what ``weight_masks`` holds already
            counts. The N:M pattern ignores it: its sparsity is ``1 - N / M``.
        pattern: ``unstructured``; ``N:M``, at most N non-zeros among every M consecutive inputs; or ``block:RxC``,
            blocks of R outputs by C inputs. A weight whose shape does not divide is left dense and reported.
        scope: what competes: all weights (``global``), the weights of one layer, or those of one output (``row``).
        criterion: scores the weights.
        include: patterns (``fnmatch``) of paths of parameters, or of modules around them, to prune; empty for all.
        ignore: patterns of paths to leave alone.
        layer_sparsity: path pattern -> sparsity, for layers that get their own instead of a share of ``sparsity``; the
            first pattern that matches counts.
    """

    sparsity: float = 0.9
    pattern: str = "unstructured"
    scope: Literal["global", "layer", "row"] = "global"
    criterion: Criterion = _MAGNITUDE
    include: Sequence[str] = ()
    ignore: Sequence[str] = ()
    layer_sparsity: Mapping[str, float] | Sequence[tuple[str, float]] = ()

    def run(self, gm: fx.GraphModule) -> tuple[fx.GraphModule, dict[str, Any]]:
        """Zero weights in ``gm`` and record their masks; the summary lists each layer, pruned or not and why."""
        masks, skipped = self.choose_masks(gm)
        info = graph_info(gm)
        for path, mask in masks.items():
            get_attribute(gm, path).masked_fill_(~mask, 0)
            info.weight_masks |= {str(node.target): mask for node in readers(gm, path)}
        return gm, _summary(masks, skipped)

    def with_sparsity(self, sparsity: float) -> PruneWeights:
        """Return these options at another ``sparsity``, as a gradual schedule asks for.

        The sparsities of ``layer_sparsity`` change in proportion.

        Raises:
            PassError: if the pattern is N:M, which has one sparsity only.
        """
        if isinstance(parse_pattern(self.pattern), NOfM):
            raise PassError(
                f"pattern {self.pattern} fixes the sparsity",
                hint="prune gradually with pattern='unstructured' or blocks",
            )
        factor = sparsity / self.sparsity if self.sparsity else 1.0
        layers = tuple((name, own * factor) for name, own in dict(self.layer_sparsity).items())
        return replace(self, sparsity=sparsity, layer_sparsity=layers)

    def choose_masks(self, gm: fx.GraphModule) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        """Return the keep-masks by parameter path, and for each weight left alone the reason; ``gm`` is not changed.

        Raises:
            PassError: if an option makes no sense, a name pattern matches no parameter, no weight can be pruned, or a
                score is not a number.
        """
        pattern = parse_pattern(self.pattern)
        self._check(gm, pattern)
        uses, skipped = self._select(gm, pattern)
        if not uses:
            reasons = "; ".join(f"{path}: {reason}" for path, reason in list(skipped.items())[:5])
            raise PassError(f"no weight to prune ({reasons or 'the graph has no linear or convolution'})")
        saliency = self.criterion.saliency(gm, [use.path for use in uses])
        earlier = {use.path: _earlier_mask(gm, use.path) for use in uses}
        if isinstance(pattern, NOfM):
            zeros = {}
            for use in uses:
                scores = self._finish(use.path, saliency[use.path]).masked_fill(~earlier[use.path], -torch.inf)
                zeros[use.path] = pattern.zeros(use, scores)
        else:
            zeros = self._lowest_blocks(uses, pattern, saliency, earlier)
        return {path: earlier[path] & ~dropped for path, dropped in zeros.items()}, skipped

    def _check(self, gm: fx.GraphModule, pattern: Blocks | NOfM) -> None:
        overrides = dict(self.layer_sparsity)
        for sparsity in (self.sparsity, *overrides.values()):
            if not 0 <= sparsity < 1:
                raise PassError(f"sparsity {sparsity} is not in [0, 1)", hint="0.9 makes nine weights of ten zero")
        if self.scope not in _SCOPES:
            raise PassError(f"unknown scope {self.scope!r}", hint=f"use one of {', '.join(_SCOPES)}")
        if isinstance(pattern, NOfM) and overrides:
            raise PassError(f"pattern {self.pattern} fixes the sparsity, so layer_sparsity cannot be met")
        paths = [name for name, _ in gm.named_parameters(remove_duplicate=False)]
        require_matches((*self.include, *self.ignore, *overrides), paths)

    def _select(self, gm: fx.GraphModule, pattern: Blocks | NOfM) -> tuple[list[WeightUse], dict[str, str]]:
        """Return the first use of each weight to prune, and the reasons for leaving the others."""
        selected: dict[int, WeightUse] = {}
        skipped: dict[str, str] = {}
        for use in weight_uses(gm):
            reason = self._reason_to_skip(gm, use, pattern)
            if reason is None:
                selected.setdefault(id(get_attribute(gm, use.path)), use)
            else:
                skipped[use.path] = reason
        uses = list(selected.values())
        scored = self.criterion.scored(gm, [use.path for use in uses])
        unscored = f"{type(self.criterion).__name__} does not score it"
        skipped |= {use.path: unscored for use in uses if use.path not in scored}
        return [use for use in uses if use.path in scored], skipped

    def _reason_to_skip(self, gm: fx.GraphModule, use: WeightUse, pattern: Blocks | NOfM) -> str | None:
        included = matches(use.path, self.include)
        if self.include and not included:
            return "not in include"
        if matches(use.path, self.ignore):
            return "in ignore"
        others = other_readers(gm, use.path)
        if others and not included:
            return f"also read by {others[0].name}"
        return pattern.obstacle(use, get_attribute(gm, use.path).shape)

    def _finish(self, path: str, sums: torch.Tensor) -> torch.Tensor:
        scores = self.criterion.finish(sums)
        if bool(scores.isnan().any()):
            raise PassError(
                f"{type(self.criterion).__name__} gives {path} scores that are not numbers",
                hint="look for NaN in the weights or in the data",
            )
        return scores

    def _lowest_blocks(
        self,
        uses: Sequence[WeightUse],
        pattern: Blocks,
        saliency: Mapping[str, torch.Tensor],
        earlier: Mapping[str, torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """Return, for each weight, True where a budget of blocks is spent."""
        scores: dict[str, torch.Tensor] = {}
        for use in uses:
            kept = earlier[use.path]
            blocks = self._finish(use.path, pattern.sums(use, saliency[use.path] * kept))
            gone = pattern.sums(use, kept.to(torch.float32)) == 0
            scores[use.path] = blocks.masked_fill(gone, -torch.inf)
        chosen = self._spend(scores)
        return {u.path: pattern.spread(u, chosen[u.path], saliency[u.path].shape) for u in uses}

    def _spend(self, scores: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        chosen: dict[str, torch.Tensor] = {}
        sharing: dict[str, torch.Tensor] = {}
        for path, matrix in scores.items():
            sparsity = self._own_sparsity(path)
            if sparsity is None and self.scope == "global":
                sharing[path] = matrix.flatten()
            elif self.scope == "row":
                wanted = self.sparsity if sparsity is None else sparsity
                chosen[path] = lowest_of_each_row(matrix, round(wanted * matrix.shape[1]))
            else:
                wanted = self.sparsity if sparsity is None else sparsity
                chosen[path] = lowest(matrix.flatten(), round(wanted * matrix.numel())).reshape(matrix.shape)
        if sharing:
            device = next(iter(sharing.values())).device
            together = torch.cat([vector.to(device) for vector in sharing.values()])
            drop = lowest(together, round(self.sparsity * together.numel()))
            parts = drop.split([vector.numel() for vector in sharing.values()])
            for path, part in zip(sharing, parts, strict=True):
                chosen[path] = part.reshape(scores[path].shape).to(scores[path].device)
        return {path: chosen[path] for path in scores}

    def _own_sparsity(self, path: str) -> float | None:
        overrides = dict(self.layer_sparsity).items()
        return next((sparsity for name, sparsity in overrides if matches(path, (name,))), None)


def _earlier_mask(gm: fx.GraphModule, path: str) -> torch.Tensor:
    parameter = get_attribute(gm, path)
    mask = graph_info(gm).weight_masks.get(path)
    if mask is None:
        return torch.ones(parameter.shape, dtype=torch.bool, device=parameter.device)
    return mask.to(parameter.device)


def _summary(masks: Mapping[str, torch.Tensor], skipped: Mapping[str, str]) -> dict[str, Any]:
    layers = [
        {
            "path": path,
            "shape": list(mask.shape),
            "weights": mask.numel(),
            "zeros": (zeros := mask.numel() - int(mask.sum())),
            "sparsity": zeros / mask.numel(),
        }
        for path, mask in masks.items()
    ]
    total, zeros = sum(layer["weights"] for layer in layers), sum(layer["zeros"] for layer in layers)
    return {
        "sparsity": zeros / total,
        "weights": total,
        "zeros": zeros,
        "layers": layers,
        "skipped": [{"path": path, "reason": reason} for path, reason in skipped.items()],
    }
