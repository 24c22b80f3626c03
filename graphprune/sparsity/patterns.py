"""Which weights have to be zero together, or how many of their neighbours may stay: patterns of sparse weights.

A pattern looks at a weight as a matrix: one row for each output feature or channel, columns running over everything
that is summed into it. For a convolution ``[out, in, *kernel]`` the columns are ``in * kernel``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch.nn import functional

from graphprune.errors import PassError
from graphprune.sparsity.selection import lowest_of_each_row
from graphprune.sparsity.weights import WeightUse


@dataclass(frozen=True)
class Blocks:
    """Blocks of ``rows`` × ``columns`` weights that stay or go together; 1 × 1 is unstructured sparsity."""

    rows: int = 1
    columns: int = 1

    def obstacle(self, use: WeightUse, shape: torch.Size) -> str | None:
        """Say why a weight of this shape has no such pattern, or return None if it can."""
        height = shape[use.output_axis]
        width = shape.numel() // height
        if height % self.rows or width % self.columns:
            return f"its {height} x {width} matrix does not divide into {self.rows} x {self.columns} blocks"
        return None

    def sums(self, use: WeightUse, elements: torch.Tensor) -> torch.Tensor:
        """Return the sum over each block as a matrix ``[rows of blocks, blocks in a row]``."""
        matrix = _as_matrix(use, elements)
        if (self.rows, self.columns) == (1, 1):
            return matrix
        pooled = functional.avg_pool2d(matrix[None], (self.rows, self.columns), divisor_override=1)
        return pooled[0]

    def spread(self, use: WeightUse, blocks: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """Return a tensor of the weight's shape in which every element has its block's value."""
        matrix = blocks.repeat_interleave(self.rows, 0).repeat_interleave(self.columns, 1)
        return _from_matrix(use, matrix, shape)


@dataclass(frozen=True)
class NOfM:
    """At most ``kept`` non-zeros among every ``group`` consecutive input features or channels (2:4 keeps 2 of 4)."""

    kept: int
    group: int

    @property
    def sparsity(self) -> float:
        """The fraction of zeros that the pattern makes."""
        return 1 - self.kept / self.group

    def obstacle(self, use: WeightUse, shape: torch.Size) -> str | None:
        """Say why a weight of this shape has no such pattern, or return None if it can."""
        inputs = shape[use.input_axis] // (use.groups if use.kind == "conv_transpose" else 1)
        if inputs % self.group:
            return f"its {inputs} inputs do not divide into groups of {self.group}"
        return None

    def zeros(self, use: WeightUse, scores: torch.Tensor) -> torch.Tensor:
        """Return True for the lowest scores of each group, as a tensor of the weight's shape."""
        inputs_last = scores.movedim(use.input_axis, -1)
        grouped = inputs_last.unflatten(-1, (-1, self.group))
        chosen = lowest_of_each_row(grouped, self.group - self.kept)
        return chosen.flatten(-2).movedim(-1, use.input_axis)


def parse_pattern(text: str) -> Blocks | NOfM:
    """Return the pattern that ``unstructured``, ``N:M`` (``2:4``) or ``block:RxC`` (``block:1x4``) names.

    Raises:
        PassError: if the text is none of these.
    """
    if text == "unstructured":
        return Blocks()
    if match := re.fullmatch(r"block:([1-9]\d*)x([1-9]\d*)", text):
        return Blocks(int(match[1]), int(match[2]))
    if (match := re.fullmatch(r"([1-9]\d*):([1-9]\d*)", text)) and int(match[1]) < int(match[2]):
        return NOfM(int(match[1]), int(match[2]))
    raise PassError(
        f"unknown sparsity pattern {text!r}",
        hint="use 'unstructured', 'N:M' with N < M (such as '2:4', which keeps 2 of every 4) or 'block:RxC'",
    )


def _as_matrix(use: WeightUse, weight: torch.Tensor) -> torch.Tensor:
    return weight.movedim(use.output_axis, 0).flatten(1)


def _from_matrix(use: WeightUse, matrix: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    rest = [size for axis, size in enumerate(shape) if axis != use.output_axis]
    return matrix.unflatten(1, rest).movedim(0, use.output_axis)
