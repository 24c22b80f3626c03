"""Small programs for the registered ops, one file for each family; importing this package collects them."""

from tests.rules.cases import (
    accumulation,
    attention,
    contraction,
    convolution,
    creation,
    index_types,
    indexing,
    matrices,
    normalization,
    pieces,
    pointwise,
    recurrent,
    reduction,
    shape,
    spatial,
    spectral,
)
from tests.rules.cases.base import CASES, Case

__all__ = [
    "CASES",
    "Case",
    "accumulation",
    "attention",
    "contraction",
    "convolution",
    "creation",
    "index_types",
    "indexing",
    "matrices",
    "normalization",
    "pieces",
    "pointwise",
    "recurrent",
    "reduction",
    "shape",
    "spatial",
    "spectral",
]
