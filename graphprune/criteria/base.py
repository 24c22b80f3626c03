"""The contract of a criterion: how much the model would lose with each weight, and with each unit of several weights.

A criterion works in two steps, so that one class serves single weights, channels, heads and experts alike:

1. ``saliency`` gives each *element* of each parameter a number;
2. the numbers of all elements that go together are *summed* by the caller, over every parameter the unit touches, and
   ``finish`` turns the sum into the unit's score. For unstructured pruning the unit is one element.

========  ============================  ==========
name      saliency of an element        finish
========  ============================  ==========
L1        ``|w|``                       identity
L2        ``w²``                        square root
Taylor    ``w · g`` (signed)            absolute value
Gradient  ``|w · g|``                   identity
Fisher    ``½ · mean(g²) · w²``         identity
Wanda     ``|w| · ‖x‖``                 identity
BNScale   ``|gamma|``, else 0           identity
Random    uniform in [0, 1)             identity
Even      1; units by their positions   identity
========  ============================  ==========

Only parameters in ``scored`` say something; the others get zeros. A unit of which no parameter is scored has no
score at all under that criterion, which is not the same as the score zero: the caller must not prune it first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import fx

from graphprune.errors import PassError
from graphprune.graph import get_attribute

PIECE = 1 << 19
"""Weights are summed up in pieces of about this many elements, which stay in the cache between the sums."""


@dataclass(frozen=True)
class Criterion:
    """Base of all criteria. Higher means more worth keeping.

    Attributes:
        signed: True if ``saliency`` may be negative (``finish`` never is).
    """

    signed: ClassVar[bool] = False

    def saliency(self, gm: fx.GraphModule, parameters: Sequence[str]) -> dict[str, torch.Tensor]:
        """Return the saliency of each element: parameter path -> tensor of the parameter's shape, at least float32.

        ``gm`` is left exactly as it was. Parameters that are not ``scored`` get zeros.

        Raises:
            PassError: if a parameter has no values (meta device), or what the criterion says about its data.
        """
        raise NotImplementedError

    def in_pieces(self, gm: fx.GraphModule, parameters: Sequence[str]) -> Iterator[tuple[str, Iterator[torch.Tensor]]]:
        """Yield the path of each scored parameter with its saliencies, cut along the first axis.

        A piece is valid until the next one is taken, and pieces of one parameter until the next path is.
        """
        scored = self.scored(gm, parameters)
        saliency = self.saliency(gm, parameters)
        for path in parameters:
            if path in scored:
                yield path, iter(cut_in_pieces(saliency[path].detach()))

    def finish(self, total: torch.Tensor) -> torch.Tensor:
        """Turn sums of element saliencies, one for each unit, into scores ≥ 0 of the same shape."""
        return total

    def by_position(self, size: int) -> torch.Tensor | None:
        """Return float64 scores of ``size`` units that depend on their positions only; None: ask ``saliency``."""
        return None

    def scored(self, gm: fx.GraphModule, parameters: Sequence[str]) -> frozenset[str]:
        """Return those of ``parameters`` about which the criterion says something; by default the floating ones."""
        return frozenset(path for path in parameters if get_attribute(gm, path).is_floating_point())


@dataclass(frozen=True)
class DataCriterion(Criterion):
    """Base of criteria that run the model on data.

    Attributes:
        data: batches, of the forms that :mod:`graphprune.batches` lists; read anew by every call, so pass a list
            or a ``DataLoader`` rather than an iterator.
        batches: how many of them to use; None for all.
    """

    data: Iterable[Any] = field(repr=False, compare=False)
    batches: int | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class LossCriterion(DataCriterion):
    """Base of criteria that need the gradient of a loss.

    Attributes:
        loss: called as ``loss(output, batch)`` with the whole batch; returns a finite scalar tensor.
    """

    loss: Callable[[Any, Any], torch.Tensor] = field(repr=False, compare=False)


def parameter_values(gm: fx.GraphModule, parameters: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return the parameters' values by path, detached, in at least float32; zeros for integer ones.

    Raises:
        PassError: if one of them is on the meta device.
    """
    values = {}
    for path in parameters:
        value = get_attribute(gm, path).detach()
        require_values(path, value)
        if not value.is_floating_point():
            value = torch.zeros_like(value, dtype=torch.float32)
        values[path] = value.to(torch.promote_types(value.dtype, torch.float32))
    return values


def require_values(path: str, parameter: torch.Tensor) -> None:
    """Raise PassError if the parameter at ``path`` is on the meta device."""
    if parameter.is_meta:
        raise PassError(
            f"{path} is on the meta device and has no values",
            hint="load the weights before scoring, or plan with criterion=Even(), which needs none",
        )


def cut_in_pieces(tensor: torch.Tensor) -> Sequence[torch.Tensor]:
    """Cut ``tensor`` along its first axis into views of about ``PIECE`` elements."""
    if tensor.numel() <= PIECE:
        return (tensor,)
    return tensor.split(max(1, PIECE * len(tensor) // tensor.numel()))
