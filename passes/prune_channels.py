"""Removes channels, filters and neurons."""

from __future__ import annotations

from dataclasses import dataclass

from graphprune.passes.unit_pruning import UnitPruning
from graphprune.units.kinds import CHANNEL, EMBEDDING, NEURON


@dataclass(frozen=True)
class PruneChannels(UnitPruning):
    """Remove the least important channels, filters and neurons, with everything tied to them, and shrink the graph.

    By default heads, head widths and small co-factors (channels within a group) stay: their fractions would multiply
    with those of the axis they are part of. Name them in ``kinds`` to prune them too. All options are those of
    :class:`UnitPruning`.
    """

    kinds: tuple[str, ...] = (CHANNEL, NEURON, EMBEDDING)
