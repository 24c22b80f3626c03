"""The passes that users compose, one in each file. Each is a frozen dataclass; its fields are its options."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphprune.passes.fold_batch_norm import FoldBatchNorm
    from graphprune.passes.fold_constants import FoldConstants
    from graphprune.passes.free_selections import FreeSelections
    from graphprune.passes.fuse_epilogues import FuseEpilogues
    from graphprune.passes.mark_sparse import MarkSparse
    from graphprune.passes.prune_channels import PruneChannels
    from graphprune.passes.prune_experts import PruneExperts
    from graphprune.passes.prune_heads import PruneHeads
    from graphprune.passes.prune_layers import PruneLayers
    from graphprune.passes.prune_weights import PruneWeights
    from graphprune.passes.remove_dead_channels import RemoveDeadChannels
    from graphprune.passes.sequential import Sequential

_HOMES = {
    "FoldBatchNorm": "fold_batch_norm",
    "FoldConstants": "fold_constants",
    "FreeSelections": "free_selections",
    "FuseEpilogues": "fuse_epilogues",
    "MarkSparse": "mark_sparse",
    "PruneChannels": "prune_channels",
    "PruneExperts": "prune_experts",
    "PruneHeads": "prune_heads",
    "PruneLayers": "prune_layers",
    "PruneWeights": "prune_weights",
    "RemoveDeadChannels": "remove_dead_channels",
    "Sequential": "sequential",
}

__all__ = [
    "FoldBatchNorm",
    "FoldConstants",
    "FreeSelections",
    "FuseEpilogues",
    "MarkSparse",
    "PruneChannels",
    "PruneExperts",
    "PruneHeads",
    "PruneLayers",
    "PruneWeights",
    "RemoveDeadChannels",
    "Sequential",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'graphprune.passes' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"graphprune.passes.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
