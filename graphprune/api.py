"""The front door: ``prune``, ``plan`` and ``inspect``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import fx, nn
from torch.export import ExportedProgram

from graphprune.analysis import Analysis, analyze
from graphprune.errors import PassError
from graphprune.pass_base import Pass
from graphprune.plans import Plan
from graphprune.tracing.trace import trace

Model = nn.Module | fx.GraphModule | ExportedProgram


class Planning(Protocol):
    """A pass that can say what it would remove."""

    def plan(self, gm: fx.GraphModule) -> Plan:
        """Return what the pass would remove from ``gm``."""
        ...


def prune(
    model: Model,
    prune_pass: Pass | Sequence[Pass] | Plan,
    example_inputs: tuple[Any, ...] = (),
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
) -> fx.GraphModule:
    """Trace ``model``, run passes on it (or apply a plan), and return the smaller graph; ``model`` is not changed.

    Args:
        model: see :func:`graphprune.tracing.trace.trace`.
        prune_pass: a pass, a list of passes run in order, or a plan made for this model.
        example_inputs: tuple of positional inputs.
        example_kwargs: keyword inputs.
        dynamic_shapes: as in ``torch.export.export``.

    Raises:
        GraphPruneError: of the kind that fits: TraceError, PassError, MaskError, ...
    """
    from graphprune.shrink import shrink

    gm = trace(model, example_inputs, example_kwargs, dynamic_shapes=dynamic_shapes)
    if isinstance(prune_pass, Plan):
        return shrink(gm, prune_pass)
    for step in as_passes(prune_pass):
        gm = step(gm)
    return gm


def plan(
    model: Model,
    prune_pass: Planning,
    example_inputs: tuple[Any, ...] = (),
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
) -> Plan:
    """Return what ``prune_pass`` would remove from ``model``, without removing it.

    Raises:
        PassError: if the pass makes no plans.
    """
    if not hasattr(prune_pass, "plan"):
        name = type(prune_pass).__name__
        hint = (
            "a plan is what one pass would remove; gp.prune runs lists"
            if isinstance(prune_pass, Sequence)
            else "passes that remove units do: PruneChannels, PruneHeads, ..."
        )
        raise PassError(f"{name} makes no plan", hint=hint)
    return prune_pass.plan(trace(model, example_inputs, example_kwargs, dynamic_shapes=dynamic_shapes))


def inspect(
    model: Model,
    example_inputs: tuple[Any, ...] = (),
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
) -> Analysis:
    """Return what can be pruned in ``model``, what cannot, and why."""
    return analyze(trace(model, example_inputs, example_kwargs, dynamic_shapes=dynamic_shapes))


def as_passes(prune_pass: Pass | Sequence[Pass] | None) -> list[Pass]:
    """Return a pass, a sequence of passes, or None as a list.

    Raises:
        PassError: if one of them is something else, or a pass class rather than an instance.
    """
    steps: list[object] = []
    if isinstance(prune_pass, Sequence) and not isinstance(prune_pass, str):
        steps += prune_pass
    elif prune_pass is not None:
        steps.append(prune_pass)
    passes: list[Pass] = []
    for step in steps:
        if isinstance(step, type) and issubclass(step, Pass):
            raise PassError(f"{step.__name__} is a class", hint=f"write {step.__name__}(...)")
        if not isinstance(step, Pass):
            raise PassError(f"{step!r} is not a pass", hint="pass an instance such as PruneChannels(ratio=0.5)")
        passes.append(step)
    return passes
