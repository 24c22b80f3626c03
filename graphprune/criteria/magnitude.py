"""Criteria that look at one weight at a time, scored in pieces that never need more memory than one of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import fx

from graphprune.criteria.base import PIECE, Criterion, cut_in_pieces, parameter_values, require_values
from graphprune.graph import get_attribute


@dataclass(frozen=True)
class Magnitude(Criterion):
    """Base of criteria that look at one element's value at a time, so that large weights can be scored in pieces."""

    def of_values(self, values: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """Return the saliencies of ``values``, which are of at least float32; of the same shape, written to ``out``."""
        raise NotImplementedError

    def saliency(self, gm: fx.GraphModule, parameters: Sequence[str]) -> dict[str, torch.Tensor]:
        """Return the saliency of each element, see :meth:`Criterion.saliency`."""
        return {path: self.of_values(value) for path, value in parameter_values(gm, parameters).items()}

    def in_pieces(self, gm: fx.GraphModule, parameters: Sequence[str]) -> Iterator[tuple[str, Iterator[torch.Tensor]]]:
        """Yield saliencies piece by piece, see :meth:`Criterion.in_pieces`, all in the same memory.

        Raises:
            PassError: if a parameter is on the meta device.
        """
        scored = self.scored(gm, parameters)
        scratch = _Scratch()
        for path in parameters:
            if path in scored:
                values = get_attribute(gm, path).detach()
                require_values(path, values)
                yield path, (scratch.saliency(self, piece) for piece in cut_in_pieces(values))


class _Scratch:
    """Memory for saliencies that is used again and again: fresh memory costs more time than computing them."""

    def __init__(self) -> None:
        self._memory = torch.empty(0)

    def saliency(self, criterion: Magnitude, values: torch.Tensor) -> torch.Tensor:
        """Return the saliencies of ``values``, in at least float32, until the next call."""
        dtype = torch.promote_types(values.dtype, torch.float32)
        if (self._memory.dtype, self._memory.device) != (dtype, values.device) or len(self._memory) < values.numel():
            self._memory = torch.empty(max(PIECE, values.numel()), dtype=dtype, device=values.device)
        place = self._memory[: values.numel()].view(values.shape)
        return criterion.of_values(values if values.dtype == dtype else place.copy_(values), out=place)
