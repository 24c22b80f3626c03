"""Op rules, one file for each family. Importing this package registers them all."""

from graphprune.rules import (
    accumulation,
    attention,
    contraction,
    convolution,
    indexing,
    matrices,
    normalization,
    pieces,
    pinned,
    pointwise,
    recurrent,
    reduction,
    shape,
    spatial,
    spectral,
)
from graphprune.rules.registry import OpRule, register, rule, rule_for, rule_named, supported_ops

__all__ = [
    "OpRule",
    "accumulation",
    "attention",
    "contraction",
    "convolution",
    "indexing",
    "matrices",
    "normalization",
    "pieces",
    "pinned",
    "pointwise",
    "recurrent",
    "reduction",
    "register",
    "rule",
    "rule_for",
    "rule_named",
    "shape",
    "spatial",
    "spectral",
    "supported_ops",
]
