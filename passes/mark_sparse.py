"""Decides which layers get a sparse kernel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import fx

from graphprune.break_even import BREAK_EVEN, layer_kind, suits_winograd
from graphprune.errors import PassError
from graphprune.graph import bind_arguments, get_attribute
from graphprune.ops import FUSED_CONV2D, FUSED_LINEAR
from graphprune.pass_base import Pass


@dataclass(frozen=True)
class MarkSparse(Pass):
    """Sets ``format="csr"`` on the fused layers whose weight has enough zeros for a sparse kernel to pay.

    Attributes:
        min_sparsity: the fraction of zeros from which on a layer is sparse. None takes the measured break-even of the
            layer's kind (``graphprune.break_even``).
        target_kind: "llvm" or "cuda", whose break-even counts.
        winograd: whether dense convolutions may be computed by Winograd's algorithm, with which sparse ones compete.

    Run ``FuseEpilogues`` first: plain convolutions and linear layers carry no format.
    """

    min_sparsity: float | None = None
    target_kind: str = "llvm"
    winograd: bool = True

    def __post_init__(self) -> None:
        if self.min_sparsity is not None and not 0 <= self.min_sparsity <= 1:
            raise PassError(f"min_sparsity must be between 0 and 1, got {self.min_sparsity}")
        if self.target_kind not in BREAK_EVEN:
            known = ", ".join(BREAK_EVEN)
            raise PassError(f"no break-even for target kind {self.target_kind!r}", hint=f"one of {known}")

    def run(self, gm: fx.GraphModule) -> tuple[fx.GraphModule, dict[str, Any]]:
        """Mark; the summary gives each fused layer's kind, sparsity, format and the reason."""
        layers: dict[str, dict[str, Any]] = {}
        for node in gm.graph.nodes:
            if node.target in (FUSED_LINEAR, FUSED_CONV2D):
                layers[node.name] = self._mark(gm, node)
        return gm, {"layers": layers}

    def _mark(self, gm: fx.GraphModule, node: fx.Node) -> dict[str, Any]:
        bound = bind_arguments(node)
        weight = get_attribute(gm, str(bound["weight"].target))
        sparsity = 1 - float((weight != 0).sum()) / max(1, weight.numel())
        winograd = self.winograd and _suits_winograd(bound, tuple(weight.shape))
        kind = layer_kind(tuple(weight.shape), _input_rows(bound), self.target_kind, winograd=winograd)
        break_even = BREAK_EVEN[self.target_kind].get(kind)
        threshold = break_even if self.min_sparsity is None else self.min_sparsity
        if bound.get("groups", 1) > 1 and weight.shape[1] == 1:
            format, reason = "dense", "depthwise convolutions have no sparse kernel: a row has too few weights"
        elif break_even is None or threshold is None:
            format, reason = "dense", f"{kind} has no sparse kernel on {self.target_kind}"
        elif sparsity < threshold:
            format, reason = "dense", f"sparsity {sparsity:.0%} is below {threshold:.0%}, the break-even for {kind}"
        else:
            format, reason = "csr", f"sparsity {sparsity:.0%} reaches {threshold:.0%}, the break-even for {kind}"
        if self.min_sparsity is not None:
            reason = reason.replace("the break-even", "the threshold set")
        node.args = (*node.args[:-1], format)  # the format is the last argument of both ops
        return {
            "weight": str(bound["weight"].target),
            "kind": kind,
            "sparsity": sparsity,
            "format": format,
            "reason": reason,
        }


def _input_rows(bound: dict[str, Any]) -> int | None:
    shape = bound["x"].meta["val"].shape[:-1]
    return math.prod(shape) if all(isinstance(size, int) for size in shape) else None


def _suits_winograd(bound: dict[str, Any], weight_shape: tuple[int, ...]) -> bool:
    if "stride" not in bound:
        return False
    sizes = bound["x"].meta["val"].shape[2:]
    plane = math.prod(sizes) if all(isinstance(size, int) for size in sizes) else None
    return suits_winograd(weight_shape, plane, bound["stride"], bound["dilation"], bound["groups"])
