"""What a case is, and helpers for writing them.

A case calls an op on parameters (given as shapes) and buffers (given as tensors) and returns its results. The oracle
multiplies every result by a parameter of its shape, so that no axis is pinned by being a model output.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten
Operand = tuple[int, ...] | torch.Tensor


@dataclass(frozen=True)
class Case:
    """A call of an op.

    Attributes:
        name: for the test's id.
        function: calls the op and returns one result or a list of them.
        operands: shapes of parameters, and buffers.
        free: total size of the dimensions that stay free, the result's own weights not counted if nothing ties them.
        offset: added to all parameters, which are drawn from (0.1, 0.9).
        random: the op draws numbers, so only shapes can be compared.
        least: how many units of every dimension are kept at least.
        zeros_agree: zeroed parameters give the same results as removed ones (no statistics over what is removed).
        rounded: the op computes in a lower precision, where sums of other lengths round differently.
        complex_results: results are complex; their absolute values are compared.
        judged: pins are tried; not where torch crashes on operands that do not fit.
        refuses: what a MaskError says about the choices for which the op itself has no form; empty if it has all.
    """

    name: str
    function: Callable[..., Any]
    operands: tuple[Operand, ...]
    free: int
    offset: float = 0.0
    random: bool = False
    least: int = 1
    zeros_agree: bool = True
    rounded: bool = False
    complex_results: bool = False
    judged: bool = True
    refuses: str = ""


CASES: list[Case] = []


def case(name: str, function: Callable[..., Any], *operands: Operand, free: int, **options: Any) -> None:
    """Add a case; names are unique."""
    assert all(name != other.name for other in CASES), name
    CASES.append(Case(name, function, operands, free, **options))


def overload(name: str) -> Any:
    """Return the op called ``add.Tensor``, or the default overload of ``relu``."""
    base, _, variant = name.partition(".")
    return getattr(getattr(aten, base), variant or "default")


def first_overload(name: str) -> Any:
    """Return the first overload of an op, whatever it is called."""
    packet = getattr(aten, name)
    return getattr(packet, packet.overloads()[0])


def pieces(results: Any, count: int) -> list[Any]:
    """Return the results of an op that returns several, also while tracing, when their number is not known."""
    return [results[i] for i in range(count)]


def create(x: Any, op: Any, *arguments: Any, **options: Any) -> Any:
    """Call an op without tensor arguments, as a node of its own where ``x`` is being traced."""
    if isinstance(x, fx.Proxy):
        return x.tracer.create_proxy("call_function", op, arguments, options)
    return op(*arguments, **options)


def whole_numbers(*shape: int, below: int = 5) -> torch.Tensor:
    """Return integers from 0 up to ``below``, the same ones every time."""
    return torch.randint(0, below, shape, generator=torch.Generator().manual_seed(0))
