"""Runs passes one after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import fx
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from graphprune.errors import GraphPruneError, PassError, VerificationError
from graphprune.graph import graph_info
from graphprune.pass_base import Pass
from graphprune.propagation import propagate_fake


@dataclass(frozen=True, init=False)
class Sequential(Pass):
    """Runs ``passes`` in order, checking the graph after each: it is well formed and every shape is as the pass said.

    Each pass leaves its own record, with its time, in the graph's history. An error arrives as a ``PassError`` that
    names the pass and carries the node, axis, source line and hint of the original, which is its ``__cause__``.
    """

    passes: tuple[Pass, ...]

    def __init__(self, *passes: Pass) -> None:
        for pass_ in passes:
            if not isinstance(pass_, Pass):
                raise PassError(
                    f"Sequential takes passes, got {type(pass_).__name__}",
                    hint="write Sequential(PruneChannels(...), MarkSparse()), without a list",
                )
        object.__setattr__(self, "passes", passes)

    def __call__(self, gm: fx.GraphModule) -> fx.GraphModule:
        """Return the graph after all passes; ``gm`` itself stays as it is.

        Raises:
            PassError: if a pass fails.
        """
        graph_info(gm)
        for position, pass_ in enumerate(self.passes):
            where = f"pass {position + 1} of {len(self.passes)}, {pass_.spec()}"
            gm = _guarded(where, partial(_checked, pass_, gm))
        return gm

    def run(self, gm: fx.GraphModule) -> tuple[fx.GraphModule, dict[str, Any]]:
        """Run all passes; the summary is the list of their specs."""
        return self(gm), {"passes": [pass_.spec() for pass_ in self.passes]}

    def spec(self) -> str:
        """Return the specs of the passes, joined by commas."""
        return ",".join(pass_.spec() for pass_ in self.passes)


def _guarded(where: str, action: Callable[[], fx.GraphModule]) -> fx.GraphModule:
    try:
        return action()
    except GraphPruneError as error:
        raise PassError(
            f"{where}, failed: {type(error).__name__}: {error.message}",
            node=error.node,
            axis=error.axis,
            source=error.source,
            hint=error.hint,
        ) from error


def _checked(pass_: Pass, gm: fx.GraphModule) -> fx.GraphModule:
    result = pass_(gm)
    predicted = {node: _shape(node.meta.get("val")) for node in result.graph.nodes}
    try:
        propagate_fake(result)
    except Exception as error:  # whatever an op raises when its operands do not fit
        raise VerificationError(f"the graph no longer runs: {type(error).__name__}: {error}") from error
    for node in result.graph.nodes:
        actual = _shape(node.meta.get("val"))
        if predicted[node] is not None and actual is not None and predicted[node] != actual:
            raise VerificationError(f"predicted shape {predicted[node]}, but got {actual}", node=node)
    return result


def _shape(value: object) -> tuple[str, ...] | None:
    """Return a tensor's shape, symbols spelt out so that comparing them adds no guard, or None for anything else.

    A size that depends on data gets a new symbol each time it is computed: all of them are spelt alike.
    """
    if not isinstance(value, torch.Tensor):
        return None
    return tuple("data-dependent" if free_unbacked_symbols(size) else str(size) for size in value.shape)
