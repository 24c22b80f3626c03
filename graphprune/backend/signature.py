"""A graph's inputs and outputs as flat lists of tensors, and how those nest in the user's arguments and results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from graphprune.errors import BackendError
from graphprune.graph import copy_graph_module, graph_info
from graphprune.signature import Signature, TensorSpec
from graphprune.structure import Structure


class ResultBuilder:
    """Nests flat outputs in the model's own classes, which an artifact only has by name."""

    def __init__(self, spec: pytree.TreeSpec | None, leaves: tuple[Structure, ...], signature: Signature) -> None:
        """Keep torch's description of the result and, for each of its leaves, which output or constant it is."""
        self._spec, self._leaves, self._signature = spec, leaves, signature

    def __call__(self, outputs: Sequence[Any]) -> Any:
        """Return ``outputs`` as the model returns them."""
        if self._spec is None:
            return self._signature.build_result(outputs)
        values = [outputs[leaf["leaf"]] if "leaf" in leaf else leaf["constant"] for leaf in self._leaves]
        return pytree.tree_unflatten(values, self._spec)


def flatten_graph(gm: fx.GraphModule) -> tuple[fx.GraphModule, Signature, ResultBuilder]:
    """Return a copy of ``gm`` on flat tuples of tensors, the signature that ``gm`` had, and how to rebuild results.

    Arguments that are not tensors (``None``, numbers) are baked into the graph by tracing, so they are dropped here and
    checked at each call. A tensor returned twice is returned once.
    """
    flat = copy_graph_module(gm)
    codegen = flat.graph._codegen
    info = getattr(codegen, "pytree_info", None)
    placeholders = [node for node in flat.graph.nodes if node.op == "placeholder"]
    input_leaves, inputs = _inputs(flat, placeholders)
    output_node = flat.graph.output_node()
    results = _as_leaves(output_node.args[0], info)
    output_leaves, output_nodes = _outputs(results)
    output_node.args = (tuple(output_nodes),)
    flat.graph.set_codegen(fx.graph.CodeGen())
    flat.recompile()
    if info is None:
        in_structure = {"tuple": [{"tuple": list(input_leaves)}, {"dict": []}]}
        names = tuple(node.name for node in placeholders)
        out_structure = output_leaves[0] if len(output_leaves) == 1 else {"tuple": list(output_leaves)}
        spec = None
    else:
        in_structure = _structure(info.in_spec, iter(input_leaves))
        names = tuple(info.orig_args)
        spec = info.out_spec
        out_structure = _structure(spec, iter(output_leaves))
    outputs = tuple(_spec(f"output {i}", node.meta["val"]) for i, node in enumerate(output_nodes))
    inputs = _named(inputs, in_structure, names)
    signature = Signature(inputs, outputs, in_structure, out_structure, names)
    return flat, signature, ResultBuilder(spec, tuple(output_leaves), signature)


def flat_example_inputs(gm: fx.GraphModule, signature: Signature) -> tuple[torch.Tensor, ...]:
    """Return the tensors of the graph's example inputs in the order of the flat graph."""
    info = graph_info(gm)
    leaves = pytree.tree_leaves((info.example_args, info.example_kwargs), is_leaf=lambda value: value is None)
    tensors = tuple(value for value in leaves if isinstance(value, torch.Tensor))
    if len(tensors) != len(signature.inputs):
        raise BackendError(
            f"the graph takes {len(signature.inputs)} tensors but its example inputs hold {len(tensors)}"
        )
    return tensors


def _inputs(gm: fx.GraphModule, placeholders: list[fx.Node]) -> tuple[list[Structure], tuple[TensorSpec, ...]]:
    leaves: list[Structure] = []
    specs: list[TensorSpec] = []
    for node in placeholders:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            leaves.append({"leaf": len(specs)})
            specs.append(_spec(node.name, value))
            continue
        if node.users:
            raise BackendError(f"input {node.name!r} is not a tensor, so it cannot vary at run time", node=node)
        leaves.append({"constant": value})
        gm.graph.erase_node(node)
    return leaves, tuple(specs)


def _as_leaves(results: Any, info: Any) -> list[Any]:
    if info is not None or isinstance(results, (tuple, list)):
        return list(results) if isinstance(results, (tuple, list)) else [results]
    return [results]


def _outputs(results: list[Any]) -> tuple[list[Structure], list[fx.Node]]:
    leaves: list[Structure] = []
    nodes: list[fx.Node] = []
    for result in results:
        if not isinstance(result, fx.Node):
            leaves.append({"constant": result})
        elif not isinstance(result.meta.get("val"), torch.Tensor):
            raise BackendError("an output is a number computed from the inputs, which TVM cannot return", node=result)
        else:
            if result not in nodes:
                nodes.append(result)
            leaves.append({"leaf": nodes.index(result)})
    return leaves, nodes


def _spec(name: str, value: torch.Tensor) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else str(size) for size in value.shape)
    return TensorSpec(name, shape, str(value.dtype).removeprefix("torch."))


def _structure(spec: pytree.TreeSpec, leaves: Any) -> Structure:
    """Translate torch's description of a nested value; ``leaves`` yields the structures of its leaves in order."""
    if spec.is_leaf():
        return next(leaves)
    parts = [_structure(child, leaves) for child in spec.children()]
    name = spec.type.__name__
    if spec.type in (tuple, list):
        return {name: parts}
    if pytree.is_namedtuple_class(spec.type) or name == "namedtuple":
        fields = list(spec.context._fields)
        return {"namedtuple": [list(pair) for pair in zip(fields, parts, strict=True)], "class": spec.context.__name__}
    if spec.type.__module__ == "torch.return_types":  # what topk, sort and max(dim) return
        fields = list(spec.type.__match_args__)
        return {"namedtuple": [list(pair) for pair in zip(fields, parts, strict=True)], "class": name}
    keys = _keys(spec)
    if keys is None or len(keys) != len(parts):
        raise BackendError(f"cannot describe a {name} in an artifact", hint="return tuples, lists or dicts of tensors")
    is_plain = issubclass(spec.type, dict) and spec.type.__module__ in ("builtins", "collections")
    return {"dict": [list(pair) for pair in zip(keys, parts, strict=True)], "class": "dict" if is_plain else name}


def _keys(spec: pytree.TreeSpec) -> list[Any] | None:
    """Return the keys of a dict-like value from the context that its flattening left."""
    for candidate in (spec.context, *(spec.context if isinstance(spec.context, (tuple, list)) else ())):
        fits = isinstance(candidate, (list, tuple)) and len(candidate) == spec.num_children
        if fits and all(isinstance(key, (str, int)) for key in candidate):
            return list(candidate)
    return None


def _named(specs: tuple[TensorSpec, ...], structure: Structure, names: tuple[str, ...]) -> tuple[TensorSpec, ...]:
    """Name each input as the user would write it: ``x``, ``pair['a']``, ``states[0]``."""
    positional, keywords = structure["tuple"][0]["tuple"], structure["tuple"][1]["dict"]
    found: dict[int, str] = {}
    for i, part in enumerate(positional):
        _name_leaves(part, names[i] if i < len(names) else f"argument {i}", found)
    for key, part in keywords:
        _name_leaves(part, key, found)
    return tuple(replace(spec, name=found.get(i, spec.name)) for i, spec in enumerate(specs))


def _name_leaves(structure: Structure, name: str, found: dict[int, str]) -> None:
    kind = next(iter(structure))
    if kind == "leaf":
        found[structure[kind]] = name
    elif kind in ("tuple", "list"):
        for i, part in enumerate(structure[kind]):
            _name_leaves(part, f"{name}[{i}]", found)
    elif kind in ("dict", "namedtuple"):
        for key, part in structure[kind]:
            _name_leaves(part, f"{name}[{key!r}]" if kind == "dict" else f"{name}.{key}", found)
