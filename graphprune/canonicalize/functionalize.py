"""Turns in-place ops into functional ones, also where they write through a view (``y[:, 0] = 1``).

For each group of values that share memory, the graph is walked in order: an in-place op becomes its functional twin,
its result is put back into the group's root (``select`` is undone by ``select_scatter``, and so on up the chain of
views), and whoever reads a member of the group later reads it anew from there. Groups that begin with an input, a
parameter or a buffer are left alone, since the caller can see them change, and so is what has no functional twin.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._pytree import tree_leaves

from graphprune.canonicalize.alias_groups import AliasGroup, alias_groups, seen_across, written_operands
from graphprune.graph import bind_arguments, get_attribute, op_name

aten = torch.ops.aten

_SCATTERS = {aten.slice_scatter.default, aten.select_scatter.default}
_SHAPE_ONLY = {"squeeze_", "unsqueeze_", "t_", "transpose_", "swapaxes_", "swapdims_"}


def functionalize(gm: fx.GraphModule) -> None:
    """Rewrite ``gm``'s graph in place; the caller recompiles it."""
    _replace_shape_changes(gm.graph)
    order = {node: i for i, node in enumerate(gm.graph.nodes)}
    for component in alias_groups(gm.graph):
        if seen_across(component, order):
            continue
        for group in component:
            if group.mutations and all(_can_rewrite(group, node, target) for node, target in group.mutations):
                _Rewriter(gm, group).run()


def functional_twin(target: object) -> Any:
    """Return ``aten.relu.default`` for ``aten.relu_.default``, None if ``target`` has no twin of the same arguments."""
    if not isinstance(target, torch._ops.OpOverload) or not target._schema.is_mutable:
        return None
    name = target._schema.name.split("::")[1]
    if not name.endswith("_") or name.endswith("__") or target.namespace != "aten":
        return None
    twin = getattr(getattr(aten, name[:-1], None), target._overloadname, None)
    if twin is None or _operands(twin) != _operands(target):
        return None
    return twin


def _operands(target: torch._ops.OpOverload) -> list[str]:
    """Return the names of all arguments but the first, which in-place ops call ``self`` and some twins ``input``."""
    return [argument.name for argument in target._schema.arguments[1:]]


def _replace_shape_changes(graph: fx.Graph) -> None:
    """Replace ``y.t_()``, which changes no data, by a view that later readers of ``y`` read instead."""
    order = {node: i for i, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        if op_name(node) in _SHAPE_ONLY and node.args[0].op == "call_function":
            node.target = functional_twin(node.target)
            node.args[0].replace_all_uses_with(node, lambda user, node=node: order[user] > order[node])


def _can_rewrite(group: AliasGroup, node: fx.Node, target: fx.Node) -> bool:
    if group.root.op != "call_function" or functional_twin(node.target) is None:
        return False
    if written_operands(node) != [target] or target is not node.args[0]:
        return False
    while target is not group.root:
        if not written_operands(target) and _inverse(target) is None:
            return False
        target = group.parent[target]
    return True


def _inverse(view: fx.Node) -> Callable[[Any, Any], tuple[Any, tuple[Any, ...]]] | None:
    """Return what makes a call ``(target, args)`` from (parent, new value of the view) to the parent's new value."""
    name, arguments = op_name(view), bind_arguments(view)
    if name == "select":
        return lambda parent, new: (aten.select_scatter.default, (parent, new, arguments["dim"], arguments["index"]))
    if name == "slice":
        bounds = (arguments["dim"], arguments["start"], arguments["end"], arguments["step"])
        return lambda parent, new: (aten.slice_scatter.default, (parent, new, *bounds))
    if name in ("transpose", "t"):
        axes = (arguments["dim0"], arguments["dim1"]) if name == "transpose" else (0, -1)
        return lambda parent, new: (aten.transpose.int, (new, *axes))
    if name == "permute":
        inverse = torch.tensor([d % len(arguments["dims"]) for d in arguments["dims"]]).argsort().tolist()
        return lambda parent, new: (aten.permute.default, (new, inverse))
    if name in ("view", "unsqueeze", "squeeze", "unflatten"):
        shape = list(view.args[0].meta["val"].shape)  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
        if all(isinstance(size, int) for size in shape):
            return lambda parent, new: (aten.reshape.default, (new, shape))
    return None


class _Rewriter:
    """Rewrites one group.

    ``_current`` maps members to the nodes that hold their contents as of the last write; a member that it lacks has to
    be read anew from its parent. The result of an in-place op stands for the member that the op writes into.
    """

    def __init__(self, gm: fx.GraphModule, group: AliasGroup) -> None:
        self._gm = gm
        self._group = group
        self._writes = dict(group.mutations)
        self._members = {member: self._owner(member) for member in group.members()}
        self._current: dict[fx.Node, fx.Node] = {}

    def _owner(self, member: fx.Node) -> fx.Node:
        while member in self._writes and member in self._group.parent:
            member = self._group.parent[member]
        return member

    def run(self) -> None:
        for node in list(self._gm.graph.nodes):
            for operand in node.all_input_nodes:
                if operand in self._members:
                    node.replace_input_with(operand, self._read(self._members[operand], node))
            if node in self._writes:
                self._write(node, self._members[self._writes[node]])
            elif node in self._members:
                self._current[node] = node

    def _read(self, member: fx.Node, reader: fx.Node) -> fx.Node:
        """Return a node with the member's contents now, made before ``reader`` if there is none."""
        if member not in self._current:
            parent = self._read(self._parent(member), reader)
            with self._gm.graph.inserting_before(reader):
                again = self._gm.graph.create_node(
                    "call_function", member.target, (parent, *member.args[1:]), dict(member.kwargs)
                )
            again.meta = dict(member.meta)
            self._current[member] = again
        return self._current[member]

    def _parent(self, member: fx.Node) -> fx.Node:
        return self._members[self._group.parent[member]]

    def _write(self, node: fx.Node, target: fx.Node) -> None:
        """Make ``node`` functional and carry its result up to the root."""
        chain = []
        while target is not self._group.root:
            chain.append((target, self._read(self._parent(target), node)))
            target = self._parent(target)
        target = chain[0][0] if chain else target
        dtype = target.meta["val"].dtype
        if op_name(node) == "copy_":
            self._make_copy(node)
        else:
            node.target = functional_twin(node.target)
        node.meta = node.meta | {"val": fake_call(self._gm, node.target, node.args, node.kwargs)}
        new = anchor = node
        if node.meta["val"].dtype != dtype:
            new = anchor = self._after(anchor, aten.to.dtype, (node, dtype))
        fresh = {target: new}
        for view, parent in chain:
            inverse = _inverse(view)
            assert inverse is not None
            new = anchor = self._put_back(anchor, *inverse(parent, new))
            fresh[self._parent(view)] = new
        self._current = fresh

    def _make_copy(self, node: fx.Node) -> None:
        """Turn ``copy_`` into ``clone``, since ``copy``, its functional twin, has no gradient."""
        target, source = node.args[:2]
        if target.meta["val"].shape != source.meta["val"].shape:  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
            with self._gm.graph.inserting_before(node):
                expanded = self._gm.graph.call_function(aten.expand_as.default, (source, target))
            expanded.meta = node.meta | {"val": fake_call(self._gm, expanded.target, expanded.args, {})}
            source = expanded
        node.target, node.args, node.kwargs = aten.clone.default, (source,), {}

    def _put_back(self, anchor: fx.Node, target: Any, args: tuple[Any, ...]) -> fx.Node:
        """Call what undoes a view; complex numbers are written as pairs, since scattering them has no gradient."""
        parent = args[0]
        if target not in _SCATTERS or not parent.meta["val"].is_complex():
            return self._after(anchor, target, args)
        pairs = []
        for number in args[:2]:
            anchor = self._after(anchor, aten.resolve_conj.default, (number,))
            anchor = self._after(anchor, aten.view_as_real.default, (anchor,))
            pairs.append(anchor)
        dim = args[2] % parent.meta["val"].dim()
        anchor = self._after(anchor, target, (*pairs, dim, *args[3:]))
        return self._after(anchor, aten.view_as_complex.default, (anchor,))

    def _after(self, anchor: fx.Node, target: Any, args: tuple[Any, ...]) -> fx.Node:
        with self._gm.graph.inserting_after(anchor):
            made = self._gm.graph.call_function(target, args)
        made.meta = {key: anchor.meta[key] for key in ("stack_trace", "nn_module_stack") if key in anchor.meta}
        made.meta["val"] = fake_call(self._gm, target, args, {})
        return made


def fake_call(gm: fx.GraphModule, target: Any, args: Any, kwargs: Any) -> Any:
    """Return the fake result of calling ``target`` on the fake values of the nodes among its arguments."""
    mode = next(
        value.fake_mode
        for node in gm.graph.nodes
        for value in tree_leaves(node.meta.get("val"))
        if isinstance(value, FakeTensor)
    )

    def value_of(node: fx.Node) -> Any:
        value = node.meta["val"] if "val" in node.meta else get_attribute(gm, str(node.target))
        is_real = isinstance(value, torch.Tensor) and not isinstance(value, FakeTensor)
        return mode.from_tensor(value, static_shapes=True) if is_real else value

    args, kwargs = fx.map_arg((tuple(args), dict(kwargs)), value_of)  # pyright: ignore[reportArgumentType]
    with mode, torch.no_grad():
        return target(*args, **kwargs)
