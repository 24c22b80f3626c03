"""Op rules, one file for each family. Importing this package registers them all."""

from graphprune.rules import (
    attention,
    contraction,
    convolution,
    indexing,
    normalization,
    pieces,
    pointwise,
    recurrent,
    reduction,
    shape,
    spatial,
)
from graphprune.rules.registry import OpRule, register, rule, rule_for, supported_ops

__all__ = [
    "OpRule",
    "attention",
    "contraction",
    "convolution",
    "indexing",
    "normalization",
    "pieces",
    "pointwise",
    "recurrent",
    "reduction",
    "register",
    "rule",
    "rule_for",
    "shape",
    "spatial",
    "supported_ops",
]
