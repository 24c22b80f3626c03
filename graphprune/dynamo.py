"""The backend that ``torch.compile(model, backend="graphprune")`` calls.

Dynamo hands over graphs whose weights are inputs like any other. Here they become constants again, under the names
they have in the model, because passes choose by weights and kernels are built around them. So the weights of a call
are compared with those that were compiled, and others are compiled for in their turn.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx
from torch._guards import tracing

from graphprune.canonicalize.alias_groups import visible_writes
from graphprune.compiler import CompiledModel, compile
from graphprune.errors import BackendError
from graphprune.graph import set_attribute, transfer_attributes
from graphprune.tracing.trace import trace
from graphprune.tracing.trace_errors import trace_error
from graphprune.tracing.traced_module import set_training_flags

OPTIONS = ("prune_pass", "target", "min_sparsity", "winograd", "tune", "tune_seconds", "cache")
"""What ``options`` may contain: keywords of :func:`graphprune.compiler.compile`, with the same meaning."""

_INFERENCE_ONLY = "the graphprune backend is for inference only"
_STATIC = "_dynamo_static_input_type"
_NAMES = re.compile(r"\['?([^'\]]+)'?\]|\.(\w+)")  # of L['self']._modules['conv']._parameters['weight']
_REGISTRIES = ("_modules", "_parameters", "_buffers")


def backend(
    gm: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
    mode: str | None = None,
) -> Callable[..., Any]:
    """Compile a graph of torch.compile; call ``torch.compile(model, backend="graphprune", options=...)`` instead.

    >>> fast = torch.compile(model.eval(), backend="graphprune", options={"prune_pass": PruneWeights(sparsity=0.9)})
    >>> with torch.inference_mode():
    ...     y = fast(x)

    Every call compiles for the shapes it meets for the first time. What torch.compile cannot put into one graph becomes
    several, pruned one by one, with Python in between; ``fullgraph=True`` refuses that. After
    ``torch._dynamo.config.recompile_limit`` shapes torch.compile itself gives up with a warning, or, with
    ``fullgraph=True``, an error.

    Args:
        gm: the graph.
        example_inputs: a tensor or integer for each of its placeholders.
        options: see :data:`OPTIONS`.
        mode: torch.compile's modes mean nothing here and are refused.

    Raises:
        BackendError: if gradients are wanted, the model is in training mode, writes to its inputs or weights, or an
            option does not exist. torch.compile wraps this and all errors of :func:`graphprune.compiler.compile` in its
            ``BackendCompilerFailed``. Nothing is run by eager PyTorch instead.
    """
    if mode is not None:
        raise BackendError(f"the graphprune backend has no mode {mode!r}", hint=f"use options: {', '.join(OPTIONS)}")
    settings = dict(options or {})
    unknown = [name for name in settings if name not in OPTIONS]
    if unknown:
        raise BackendError(f"unknown options {unknown}", hint=f"choose from {', '.join(OPTIONS)}")
    _refuse_gradients(gm)
    return _Recompiling(gm, example_inputs, settings)


@dataclass(frozen=True)
class _Build:
    """A compiled graph with the weights that are inside it."""

    weights: list[torch.Tensor]
    versions: list[int]
    run: CompiledModel


class _Recompiling:
    """Runs what is compiled for the weights of the call, and compiles for weights that are new or have changed."""

    def __init__(self, gm: fx.GraphModule, example_inputs: Sequence[Any], settings: dict[str, Any]) -> None:
        self._gm = gm
        self._settings = settings
        self._placeholders = [node for node in gm.graph.nodes if node.op == "placeholder"]
        self._weights = [i for i, node in enumerate(self._placeholders) if _is_weight(node)]
        self._inputs = [
            i for i, value in enumerate(example_inputs) if isinstance(value, torch.Tensor) and i not in self._weights
        ]
        self._numbers = {
            node: _number(value)
            for node, value in zip(self._placeholders, example_inputs, strict=True)
            if not isinstance(value, torch.Tensor)
        }
        self._own = [*gm.parameters(), *gm.buffers()]
        self._builds: list[_Build] = []
        self._build_for(example_inputs)

    def __call__(self, *inputs: Any) -> Any:
        build = self._find([inputs[i] for i in self._weights]) or self._build_for(inputs)
        return build.run(*(inputs[i] for i in self._inputs))

    def _find(self, weights: list[torch.Tensor]) -> _Build | None:
        for build in self._builds:
            if all(a is b for a, b in zip(weights, build.weights)):
                return build if build.versions == _versions([*weights, *self._own]) else None
        return None

    def _build_for(self, inputs: Sequence[Any]) -> _Build:
        weights = [inputs[i] for i in self._weights]
        versions = _versions([*weights, *self._own])
        examples = tuple(inputs[i].detach() for i in self._inputs)  # without the marks of mark_dynamic
        with tracing(None):  # torch.export must not take its shapes for those of the graph that is being compiled
            graph = _trace(self._with_weights(weights), examples)
            build = _Build(weights, versions, compile(graph, **self._settings))
        self._builds = [b for b in self._builds if any(a is not w for a, w in zip(b.weights, weights))] + [build]
        return build

    def _with_weights(self, weights: list[torch.Tensor]) -> fx.GraphModule:
        """Return the graph with weights as attributes and numbers as constants."""
        root = transfer_attributes(self._gm, lambda path, value: value)
        nodes = [self._placeholders[i] for i in self._weights]
        paths = dict(zip(nodes, _paths(nodes)))
        for path, weight in zip(paths.values(), weights):
            set_attribute(root, path, weight)
        graph = fx.Graph()
        copies: dict[fx.Node, Any] = dict(self._numbers)
        for node in self._gm.graph.nodes:
            if node in paths:
                copies[node] = graph.get_attr(paths[node])
            elif node not in copies:
                copies[node] = graph.node_copy(node, lambda n: copies[n])
        return fx.GraphModule(root, graph)


def _is_weight(node: fx.Node) -> bool:
    """Say whether an input is a parameter or buffer: torch.compile marks them as always at the same address."""
    return (node.meta.get("tensor_dict") or {}).get(_STATIC) is not None


def _number(value: Any) -> Any:
    """Return a number of the example; of a size that may vary, the present value, which torch.compile then checks."""
    if isinstance(value, torch.SymInt):
        return int(value)
    return float(value) if isinstance(value, torch.SymFloat) else value


def _versions(weights: list[torch.Tensor]) -> list[int]:
    if any(weight.is_inference() for weight in weights):
        raise BackendError(
            "the model has weights made in inference mode, whose changes cannot be noticed",
            hint="build or load the model outside of torch.inference_mode()",
        )
    return [weight._version for weight in weights]


def _paths(nodes: list[fx.Node]) -> list[str]:
    """Return distinct dotted names for weights, as in the model where torch.compile tells."""
    names = [_names_of(node) for node in nodes]
    if len({name[0] for name in names}) == 1 and all(len(name) > 1 for name in names):
        names = [name[1:] for name in names]  # what the compiled function calls the model: self
    paths = [".".join(name) for name in names]
    clash = len(set(paths)) < len(paths) or any(b.startswith(a + ".") for a in paths for b in paths)
    return [node.name for node in nodes] if clash else paths


def _names_of(node: fx.Node) -> list[str]:
    name: Any = getattr(getattr(node.meta.get("grapharg"), "source", None), "name", node.name)
    parts = [a or b for a, b in _NAMES.findall(str(name() if callable(name) else name))]
    return [re.sub(r"\W", "_", part) for part in parts if part not in _REGISTRIES] or [node.name]


def _refuse_gradients(gm: fx.GraphModule) -> None:
    """Refuse a graph that eager PyTorch would differentiate."""
    output = next(node for node in gm.graph.nodes if node.op == "output")
    for node in output.all_input_nodes:
        value = node.meta.get("example_value")
        if isinstance(value, torch.Tensor) and value.requires_grad:
            raise BackendError(
                f"{_INFERENCE_ONLY}, and a result requires gradients",
                node=node,
                hint="call the model under torch.inference_mode() or torch.no_grad()",
            )


def _trace(module: fx.GraphModule, examples: tuple[torch.Tensor, ...]) -> fx.GraphModule:
    """Return the canonical graph, which evaluates; refuse one that would train, or write to what the caller sees."""
    try:
        program = torch.export.export(module, examples, strict=False)
    except Exception as error:  # torch.export raises dozens of unrelated types
        raise trace_error(module, error, examples, {}) from error
    exported = program.module(check_guards=False)
    assert isinstance(exported, fx.GraphModule)
    if set_training_flags(exported, False):
        raise BackendError(f"{_INFERENCE_ONLY}, and the model is in training mode", hint="call model.eval() first")
    graph = trace(program)
    for write, root in visible_writes(graph.graph):
        raise BackendError(
            f"the model writes to {root.target}, and a compiled model cannot",
            node=write,
            hint="make the operation an ordinary one, x + 1 for x.add_(1), and return the result",
        )
    return graph
