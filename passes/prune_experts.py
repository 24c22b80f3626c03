"""Removes experts of mixtures."""

from __future__ import annotations

from dataclasses import dataclass

from graphprune.passes.unit_pruning import UnitPruning
from graphprune.units.kinds import EXPERT


@dataclass(frozen=True)
class PruneExperts(UnitPruning):
    """Remove the least important experts of mixtures of experts, and their rows of the router, and shrink the graph.

    The router chooses among the experts that stay, and never fewer stay than it chooses. All options are those of
    :class:`UnitPruning`.
    """

    kinds: tuple[str, ...] = (EXPERT,)
