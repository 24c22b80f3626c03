"""Removes attention heads."""

from __future__ import annotations

from dataclasses import dataclass

from graphprune.passes.unit_pruning import UnitPruning
from graphprune.units.kinds import HEAD, KV_GROUP


@dataclass(frozen=True)
class PruneHeads(UnitPruning):
    """Remove the least important attention heads (with grouped queries: key-value groups) and shrink the graph.

    All options are those of :class:`UnitPruning`.
    """

    kinds: tuple[str, ...] = (HEAD, KV_GROUP)
