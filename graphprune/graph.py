"""Small helpers on ``fx.GraphModule`` that every part of graphprune shares.

A graph made by :func:`graphprune.tracing.trace.trace` carries a :class:`GraphInfo` in ``gm.meta["graphprune"]``.
"""

from __future__ import annotations

import copy
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard, cast

import torch
from torch import fx, nn
from torch.fx._pytree import tree_flatten_spec
from torch.fx.graph import _PyTreeCodeGen

from graphprune.errors import TraceError
from graphprune.tracing.traced_module import TracedModule

_META_KEY = "graphprune"
_CALL_NUMBER = re.compile(r"@\d+$")  # of a module that is called several times


@dataclass(frozen=True)
class PassRecord:
    """What one pass did: its command-line spelling, how long it took, and its own summary (plain JSON data)."""

    spec: str
    seconds: float
    summary: dict[str, Any]


@dataclass
class GraphInfo:
    """What graphprune knows of a traced graph besides its nodes.

    Attributes:
        example_args, example_kwargs: the inputs it was traced with.
        dynamic_shapes: as given to :func:`graphprune.tracing.trace.trace`.
        history: one record for each pass that ran, oldest first.
        weight_masks: parameter path -> boolean keep-mask of the parameter's shape (True = kept).
        aliases: further name of a tied parameter -> the name under which the graph reads it.
    """

    example_args: tuple[Any, ...] = field(default=(), repr=False)
    example_kwargs: dict[str, Any] = field(default_factory=dict, repr=False)
    dynamic_shapes: Any = None
    history: list[PassRecord] = field(default_factory=list)
    weight_masks: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)
    aliases: dict[str, str] = field(default_factory=dict)


def is_traced(model: object) -> TypeGuard[fx.GraphModule]:
    """Say whether ``model`` is a graph made by graphprune's ``trace`` or by a pass on such a graph."""
    return isinstance(model, fx.GraphModule) and isinstance(getattr(model, "meta", {}).get(_META_KEY), GraphInfo)


def graph_info(gm: fx.GraphModule) -> GraphInfo:
    """Return the graph's :class:`GraphInfo`.

    Raises:
        TraceError: if ``gm`` was not made by graphprune.
    """
    info = gm.meta.get(_META_KEY)
    if not isinstance(info, GraphInfo):
        raise TraceError("this GraphModule was not traced by graphprune", hint="call graphprune.trace(model, inputs)")
    return info


def set_graph_info(gm: fx.GraphModule, info: GraphInfo) -> None:
    """Attach ``info`` to ``gm``."""
    gm.meta[_META_KEY] = info


def get_attribute(module: nn.Module, path: str) -> Any:
    """Return the object at the dotted ``path`` under ``module``."""
    value: Any = module
    for name in path.split("."):
        value = getattr(value, name)
    return value


def set_attribute(module: nn.Module, path: str, value: torch.Tensor) -> None:
    """Put a parameter (``nn.Parameter``) or buffer (plain tensor) at the dotted ``path``, making submodules too."""
    *parents, name = path.split(".")
    for parent in parents:
        if not hasattr(module, parent):
            module.add_module(parent, nn.Module())
        module = getattr(module, parent)
    if isinstance(value, nn.Parameter):
        module.__dict__.pop(name, None)
        module._buffers.pop(name, None)
        module.register_parameter(name, value)
    else:
        module.__dict__.pop(name, None)
        module._parameters.pop(name, None)
        module.register_buffer(name, value)


def attribute_tensors(gm: fx.GraphModule) -> dict[str, torch.Tensor]:
    """Return every parameter, buffer and constant tensor that the graph reads, by path, in graph order."""
    found: dict[str, torch.Tensor] = {}
    for node in gm.graph.nodes:
        if node.op == "get_attr":
            value = get_attribute(gm, str(node.target))
            if isinstance(value, torch.Tensor):
                found[str(node.target)] = value
    return found


def bind_arguments(node: fx.Node) -> dict[str, Any]:
    """Return the node's arguments by the names in the op's schema, defaults filled in.

    Nodes whose target has no schema (``operator.getitem``) get their positions as names: ``{"0": ..., "1": ...}``.
    """
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {str(i): value for i, value in enumerate(node.args)} | dict(node.kwargs)
    bound: dict[str, Any] = {}
    for i, argument in enumerate(schema.arguments):
        if i < len(node.args):
            bound[argument.name] = node.args[i]
        elif argument.name in node.kwargs:
            bound[argument.name] = node.kwargs[argument.name]
        else:
            bound[argument.name] = argument.default_value if argument.has_default_value() else None
    return bound


def items_read(node: fx.Node) -> set[int] | None:
    """Return which items of its tuple a node's users take; None if one of them takes the tuple itself."""
    if any(user.target is not operator.getitem for user in node.users):
        return None
    return {cast("int", user.args[1]) for user in node.users}


def replace_items(node: fx.Node, values: Mapping[int, fx.Node] | Sequence[fx.Node]) -> None:
    """Give the readers of each user that takes an item of a node's tuple that one of ``values``; erase these users."""
    for user in list(node.users):
        if user.target is operator.getitem:
            user.replace_all_uses_with(values[cast("int", user.args[1])])
            node.graph.erase_node(user)


def op_name(node: fx.Node) -> str:
    """Return the op's name without namespace and overload (``conv2d``), or "" for a node that is not a call."""
    if node.op != "call_function":
        return ""
    schema = getattr(node.target, "_schema", None)
    if schema is not None:
        return schema.name.split("::")[1]
    return getattr(node.target, "__name__", str(node.target))


def module_paths(node: fx.Node) -> list[str]:
    """Return the paths of the modules whose code made ``node``, innermost first; none where they are unknown."""
    stack = node.meta.get("nn_module_stack") or {}
    return [_CALL_NUMBER.sub("", path) for path, _ in reversed(list(stack.values()))]


def copy_graph_module(gm: fx.GraphModule) -> TracedModule:
    """Return an independent copy: new graph, cloned parameters and buffers (ties kept), copied :class:`GraphInfo`.

    ``node.meta`` dictionaries are copied, the values in them (fake tensors) shared.
    """
    return _rebuild(gm, _clone)


def share_graph_module(gm: fx.GraphModule) -> TracedModule:
    """Return a new :class:`TracedModule` with a copy of the graph and the very parameters and buffers of ``gm``."""
    return _rebuild(gm, lambda value: value)


def _rebuild(gm: fx.GraphModule, transfer: Callable[[Any], Any]) -> TracedModule:
    """Build a module that holds only what the graph reads, each distinct object passed through ``transfer`` once."""
    root = transfer_attributes(gm, lambda path, value: transfer(value))
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in gm.graph.nodes:
        copies[node] = graph.node_copy(node, lambda n: copies[n])
        copies[node].meta = dict(node.meta)
    return assemble(gm, root, graph)


def transfer_attributes(gm: fx.GraphModule, transfer: Callable[[str, Any], Any]) -> nn.Module:
    """Return a module with what the graph of ``gm`` reads, each distinct object passed through ``transfer`` once.

    ``transfer`` gets the first path of the object and the object; ties between paths are kept.
    """
    root = nn.Module()
    moved: dict[int, Any] = {}
    for node in gm.graph.nodes:
        if node.op not in ("get_attr", "call_module"):
            continue
        path = str(node.target)
        value = get_attribute(gm, path)
        if id(value) not in moved:
            moved[id(value)] = transfer(path, value)
        if isinstance(value, nn.Module):
            _add_submodule(root, path, moved[id(value)])
        else:
            set_attribute(root, path, moved[id(value)])
    return root


def assemble(gm: fx.GraphModule, root: nn.Module, graph: fx.Graph) -> TracedModule:
    """Return ``graph`` over the attributes of ``root`` as a successor of ``gm``.

    It has the calling convention and training mode of ``gm``, and a copy of its metadata and :class:`GraphInfo`.
    """
    graph.set_codegen(copy.deepcopy(gm.graph._codegen))
    root.training = gm.training
    result = TracedModule(root, graph)
    result.meta = {k: v for k, v in gm.meta.items() if k != _META_KEY}
    if is_traced(gm):
        info = graph_info(gm)
        set_graph_info(
            result,
            replace(info, history=list(info.history), weight_masks=dict(info.weight_masks)),
        )
    return result


def _clone(value: Any) -> Any:
    if isinstance(value, nn.Parameter):
        return nn.Parameter(value.detach().clone(), value.requires_grad)
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    return copy.deepcopy(value)


def _add_submodule(root: nn.Module, path: str, module: nn.Module) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        if not hasattr(root, parent):
            root.add_module(parent, nn.Module())
        root = getattr(root, parent)
    root.add_module(name, module)


def prune_unused_attributes(gm: fx.GraphModule) -> None:
    """Delete parameters, buffers and submodules that no node of the graph reads."""
    used = {str(node.target) for node in gm.graph.nodes if node.op == "get_attr"}
    for path, _ in [*gm.named_parameters(remove_duplicate=False), *gm.named_buffers(remove_duplicate=False)]:
        if path not in used:
            *parents, name = path.split(".")
            owner = get_attribute(gm, ".".join(parents)) if parents else gm
            delattr(owner, name)
    gm.delete_all_unused_submodules()


def run_interpreter(interpreter: fx.Interpreter, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Run an interpreter of a traced graph on the model's inputs and return the pytree that the model returns."""
    codegen = cast("fx.Graph", interpreter.graph)._codegen
    flat: list[Any] = list(args)
    if isinstance(codegen, _PyTreeCodeGen):
        flat = tree_flatten_spec((list(args), dict(kwargs)), codegen.pytree_info.in_spec)
    return codegen.process_outputs(interpreter.run(*flat, enable_io_processing=False))
