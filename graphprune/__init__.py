"""graphprune: structured and unstructured pruning of PyTorch models that really makes them smaller and faster.

Names are imported on first use: ``import graphprune.runtime`` works where torch is not installed, and nothing but
``compile`` and ``runtime`` imports TVM.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from graphprune import runtime
    from graphprune.advice import Advice
    from graphprune.advising import advise
    from graphprune.analysis import Analysis
    from graphprune.api import inspect, plan, prune
    from graphprune.compiler import CompiledModel, compile
    from graphprune.drawing import draw
    from graphprune.eager.files import load_pruned, save_pruned
    from graphprune.errors import (
        ArtifactError,
        BackendError,
        EmptyAxisError,
        GraphPruneError,
        HardCodedSizeError,
        MaskError,
        PassError,
        PinnedAxisError,
        TraceError,
        UnsupportedOpError,
        VerificationError,
    )
    from graphprune.plans import Plan
    from graphprune.sparsity.schedule import CubicSchedule, GradualPruner
    from graphprune.training import eval_mode, hold_masks, train_mode

_HOMES = {
    "Advice": "advice",
    "Analysis": "analysis",
    "CompiledModel": "compiler",
    "CubicSchedule": "sparsity.schedule",
    "GradualPruner": "sparsity.schedule",
    "Plan": "plans",
    "advise": "advising",
    "compile": "compiler",
    "draw": "drawing",
    "eval_mode": "training",
    "hold_masks": "training",
    "inspect": "api",
    "load_pruned": "eager.files",
    "plan": "api",
    "prune": "api",
    "save_pruned": "eager.files",
    "train_mode": "training",
}
_HOMES |= dict.fromkeys(
    (
        "ArtifactError",
        "BackendError",
        "EmptyAxisError",
        "GraphPruneError",
        "HardCodedSizeError",
        "MaskError",
        "PassError",
        "PinnedAxisError",
        "TraceError",
        "UnsupportedOpError",
        "VerificationError",
    ),
    "errors",
)

__all__ = [
    "Advice",
    "Analysis",
    "ArtifactError",
    "BackendError",
    "CompiledModel",
    "CubicSchedule",
    "EmptyAxisError",
    "GradualPruner",
    "GraphPruneError",
    "HardCodedSizeError",
    "MaskError",
    "PassError",
    "PinnedAxisError",
    "Plan",
    "TraceError",
    "UnsupportedOpError",
    "VerificationError",
    "advise",
    "compile",
    "draw",
    "eval_mode",
    "hold_masks",
    "inspect",
    "load_pruned",
    "plan",
    "prune",
    "runtime",
    "save_pruned",
    "train_mode",
]


def __getattr__(name: str) -> Any:
    if name == "runtime":
        return importlib.import_module("graphprune.runtime")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'graphprune' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"graphprune.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
