"""Which share of a model's parameters some dimension reaches, and why the rest stays."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from graphprune.analysis import Analysis
from graphprune.axes import leaves
from graphprune.graph import attribute_tensors


@dataclass(frozen=True)
class Reach:
    """Parameter elements with at least one axis that can shrink, of all; reasons -> elements for the others."""

    reached: int
    total: int
    reasons: tuple[tuple[str, int], ...]

    @property
    def share(self) -> float:
        """Reached elements as a fraction of all."""
        return self.reached / self.total if self.total else 1.0


def reach_of(analysis: Analysis) -> Reach:
    """Count the elements of parameters (tied ones once) of which at least one axis holds a dimension."""
    prunable = {dimension.leaf for dimension in analysis.dimensions}
    tensors = attribute_tensors(analysis.gm)
    distinct = {id(tensors[path]): path for path in reversed(tensors) if path in analysis.typing.parameters}
    reached = total = 0
    reasons: Counter[str] = Counter()
    for path in distinct.values():
        axes = analysis.typing.attributes[path]
        count = tensors[path].numel()
        total += count
        inner = [leaf for axis in axes for leaf in leaves(axis)]
        if any(leaf.identity in prunable for leaf in inner):
            reached += count
        else:
            pins = dict.fromkeys(leaf.pin.reason if leaf.pin else "size is dynamic" for leaf in inner)
            reasons["; ".join(pins) or "scalar"] += count
    return Reach(reached, total, tuple(reasons.most_common()))
