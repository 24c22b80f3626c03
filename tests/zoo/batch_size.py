"""Inputs of zoo models at other batch sizes; axis 0 of every input is the batch."""

from __future__ import annotations

from typing import Any

import torch

from tests.zoo.models import Example


def open_batch(example: Example) -> Any:
    """Return ``dynamic_shapes`` that leave the batch open; models of the zoo take positional or keyword inputs only."""
    size = torch.export.Dim.DYNAMIC
    return {name: {0: size} for name in example.kwargs} or tuple({0: size} for _ in example.args)


def with_batch(example: Example, size: int) -> Example:
    """Return ``example`` with ``size`` rows in each input, repeated from the first ones."""
    return Example(
        example.model,
        tuple(_rows(value, size) for value in example.args),
        {name: _rows(value, size) for name, value in example.kwargs.items()},
    )


def _rows(value: torch.Tensor, size: int) -> torch.Tensor:
    return value[torch.arange(size) % len(value)]
