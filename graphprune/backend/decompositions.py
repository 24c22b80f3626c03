"""Decompositions that lowering adds to torch's: arguments that TVM's importer ignores become ops of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from graphprune.backend.convolution import sum_half_in_float32

aten = torch.ops.aten


def extra_decompositions() -> dict[Any, Callable[..., Any]]:
    """Return, by op, a function that computes it with ops that TVM's importer gets right."""
    return {
        aten.add.Tensor: _add,
        aten.sub.Tensor: _sub,
        aten.addmm.default: _addmm,
        aten.convolution.default: sum_half_in_float32,
    }


def _add(x: torch.Tensor, other: Any, *, alpha: float = 1) -> Any:
    return NotImplemented if alpha == 1 else aten.add.Tensor(x, aten.mul.Tensor(other, alpha))


def _sub(x: torch.Tensor, other: Any, *, alpha: float = 1) -> Any:
    return NotImplemented if alpha == 1 else aten.sub.Tensor(x, aten.mul.Tensor(other, alpha))


def _addmm(x: torch.Tensor, left: torch.Tensor, right: torch.Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    if x.dtype == torch.float32:  # the dtype that TVM's importer assumes
        return NotImplemented
    product = aten.mm.default(left, right)
    product = product if alpha == 1 else product * alpha
    return (x if beta == 1 else x * beta) + product
