"""The reference for removed layers: the original graph, run with branches times zero or blocks bypassed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx
from torch.utils._pytree import tree_leaves

from graphprune.batches import placeholder_values
from graphprune.graph import bind_arguments
from graphprune.sections.residuals import Section


class WithoutSections(fx.Interpreter):
    """Runs every node of the original graph; where a section ends, its result is put aside.

    A residual branch is multiplied by zero before it is added; a block's exit gets the value of its entry.
    """

    def __init__(self, gm: fx.GraphModule, sections: Sequence[Section]) -> None:
        super().__init__(gm, garbage_collect_values=False)
        self._sections = {section.exit.name: section for section in sections}

    def run_node(self, n: fx.Node) -> Any:
        section = self._sections.get(n.name)
        value = super().run_node(n)
        if section is None:
            return value
        entry = self.env[section.entry]
        if not section.title.endswith("residual branch"):
            return entry.to(value.dtype)
        arguments = bind_arguments(n)
        branch = arguments["other"] if arguments["self"] is section.entry else arguments["self"]
        return entry + 0 * self.env[branch]


def run_without(gm: fx.GraphModule, sections: Sequence[Section], batch: Any) -> list[torch.Tensor]:
    """Return the output tensors of ``gm`` for a batch, the sections' contributions left out."""
    with torch.no_grad():
        outputs = WithoutSections(gm, sections).run(*placeholder_values(gm, batch), enable_io_processing=False)
    return [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]
