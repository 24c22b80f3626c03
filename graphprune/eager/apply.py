"""Applies a plan to an ordinary ``nn.Module`` in place: slices its tensors, corrects the sizes its modules hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from torch import fx, nn

from graphprune.analysis import analyze
from graphprune.eager.attributes import Correction, corrections
from graphprune.eager.configs import configurations, update_configuration
from graphprune.eager.evidence import gather_evidence
from graphprune.eager.layers import HINT as LAYERS_HINT
from graphprune.eager.layers import leave_out
from graphprune.eager.search import settle
from graphprune.eager.snapshot import Snapshot
from graphprune.eager.tensors import changed_tensors, replace_tensors, zero_weights
from graphprune.eager.trial import Expectation, expect, expected_surprises, run_trial
from graphprune.eager.verify import HINT, check_same_graph, hard_coded
from graphprune.errors import HardCodedSizeError, TraceError
from graphprune.graph import op_name
from graphprune.plans import Plan
from graphprune.shrink import shrink
from graphprune.tracing.trace import trace


@dataclass(frozen=True)
class Inputs:
    """What a model is traced with."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    dynamic_shapes: Any = None

    def trace(self, model: nn.Module) -> fx.GraphModule:
        """Return the graph of ``model`` on these inputs."""
        return trace(model, self.args, self.kwargs, dynamic_shapes=self.dynamic_shapes)


def apply_plan(
    plan: Plan,
    model: nn.Module,
    example_inputs: tuple[Any, ...] = (),
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
) -> nn.Module:
    """Apply ``plan`` to ``model`` in place and return it; see :meth:`graphprune.plans.Plan.apply_`."""
    if isinstance(model, fx.GraphModule) or not isinstance(model, nn.Module):
        raise TraceError(
            f"apply_ changes ordinary modules, not a {type(model).__name__}",
            hint="use graphprune.prune(graph, plan) or graphprune.shrink.shrink for graphs",
        )
    inputs = Inputs(example_inputs, dict(example_kwargs or {}), dynamic_shapes)
    with undone_on_failure(model):  # torch.export puts copies of containers in the place of some attributes
        return apply_to_traced(plan, model, inputs.trace(model), inputs)


def apply_to_traced(plan: Plan, model: nn.Module, gm: fx.GraphModule, inputs: Inputs) -> nn.Module:
    """Do the same with a graph of ``model`` traced just now, whose weights may be replaced."""
    if plan.layers:
        return _without_layers(plan, model, gm, inputs)
    zero_weights(gm, plan.weight_masks)
    analysis = analyze(gm)
    masks = analysis.masks(plan)
    small = shrink(gm, plan, analysis=analysis)
    _refuse_inserted_nodes(gm, small)
    with undone_on_failure(model):
        surprises = expected_surprises(model, gm, inputs.args, inputs.kwargs)
        expected = replace(expect(small, inputs.args, inputs.kwargs), surprises=surprises)
        change = _Change(model, inputs, small, expected)
        pairs = changed_tensors(model, gm, small, plan.weight_masks)
        replace_tensors(model, pairs)
        evidence = gather_evidence(model, analysis, masks, small)
        change.correct_and_check(corrections(model, evidence, {id(new): old.shape for _, old, new in pairs}))
        update_configuration(model, evidence, change.gives_the_same)
    return model


def _without_layers(plan: Plan, model: nn.Module, gm: fx.GraphModule, inputs: Inputs) -> nn.Module:
    small = shrink(gm, plan)
    with undone_on_failure(model):
        leave_out(model, plan.layers, inputs.args, inputs.kwargs)
        fault = run_trial(model, inputs.args, inputs.kwargs, expect(small, inputs.args, inputs.kwargs))
        if fault is not None:
            raise hard_coded(fault, LAYERS_HINT)
        check_same_graph(_traced_again(model, inputs), small)
    return model


@dataclass(frozen=True)
class _Change:
    """A model whose tensors are sliced, and the shrunk graph that it has to equal."""

    model: nn.Module
    inputs: Inputs
    small: fx.GraphModule
    expected: Expectation

    def gives_the_same(self, model: nn.Module) -> bool:
        """Say whether another model computes on the example inputs what the graph computes."""
        return run_trial(model, self.inputs.args, self.inputs.kwargs, self.expected) is None

    def correct_and_check(self, found: list[Correction]) -> None:
        """Correct the sizes that modules hold until the model equals the graph.

        Raises:
            HardCodedSizeError: if no choice of sizes makes it so.
        """
        args, kwargs = self.inputs.args, self.inputs.kwargs
        fault = settle(found, lambda stop: run_trial(self.model, args, kwargs, self.expected, stop_before=stop))
        if fault is not None and fault.source is not None:
            raise hard_coded(fault)
        check_same_graph(_traced_again(self.model, self.inputs), self.small)
        if fault is not None:
            raise hard_coded(fault)


def _traced_again(model: nn.Module, inputs: Inputs) -> fx.GraphModule:
    try:
        return inputs.trace(model)
    except TraceError as error:
        raise HardCodedSizeError(f"the changed module cannot be traced: {error.message}", hint=HINT) from error


@contextmanager
def undone_on_failure(model: nn.Module) -> Iterator[None]:
    """Let the model evaluate meanwhile; on an exception take everything back, else only what runs wrote to buffers."""
    snapshot = Snapshot(model, configurations(model))
    training = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in training:
            module.training = False
        yield
    except BaseException:
        snapshot.restore()
        raise
    snapshot.restore_buffers()
    for module, mode in training:
        module.training = mode


def _refuse_inserted_nodes(gm: fx.GraphModule, small: fx.GraphModule) -> None:
    """Refuse a plan that makes consumers of one value take different channels: module code has no place for that."""
    gathers = [sum(op_name(node) == "index_select" for node in graph.graph.nodes) for graph in (gm, small)]
    if gathers[1] > gathers[0]:
        raise HardCodedSizeError(
            f"the plan inserts {gathers[1] - gathers[0]} index_select nodes, for which the module's code has no place",
            hint="use the graph that graphprune.prune returns, or a plan without free selections",
        )
