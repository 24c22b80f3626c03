"""Index types: integer values that number an axis's elements are followed from where they arise to where they index.

An op that only moves values passes the address on; one that looks at nothing but their order, or ignores them, may
have them; any other op pins the axis, because its elements get new numbers when others go.
"""

from __future__ import annotations

from torch import fx

from graphprune.axes import Axis
from graphprune.graph import bind_arguments, op_name
from graphprune.rules.context import Inference, tensor_nodes

MOVING = frozenset(
    """view reshape _unsafe_view flatten unflatten ravel view_as reshape_as permute transpose t swapaxes movedim
    moveaxis unsqueeze squeeze expand expand_as broadcast_to repeat repeat_interleave tile flip roll slice narrow select
    split split_with_sizes chunk tensor_split unbind cat concat concatenate stack clone contiguous alias detach
    lift_fresh lift_fresh_copy to _to_copy index _unsafe_index index_select gather take_along_dim where""".split()
)
IGNORING = frozenset(
    """empty_like zeros_like ones_like full_like rand_like randn_like new_zeros new_ones new_empty new_full argsort
    sym_size numel""".split()
)
UNREAD = {"view_as": "other", "reshape_as": "other", "expand_as": "other", "where": "condition"}
"""Operands whose values do not reach the result."""

REASON = "its elements are numbered by values that {} computes with"


def follow_addresses(context: Inference, node: fx.Node) -> None:
    """Give ``node`` the address of the values that it moves; pin addresses that reach an op that may compute with them.

    Operands that the node's rule has claimed are left out.
    """
    claimed, context.claimed = context.claimed, set()
    operands = [operand for operand in node.all_input_nodes if operand in context.addresses and operand not in claimed]
    if not operands:
        return
    name = op_name(node)
    if name == "getitem":
        picked = context.addresses[operands[0]]
        context.addresses[node] = picked[int(str(node.args[1]))] if isinstance(picked, list) else picked
    elif name not in IGNORING:
        _move(context, node, name, operands, claimed)


def _move(context: Inference, node: fx.Node, name: str, operands: list[fx.Node], claimed: set[fx.Node]) -> None:
    arguments = bind_arguments(node)
    unread = arguments.get(UNREAD.get(name, ""))
    sources = [n for n in tensor_nodes(arguments.values()) if n not in claimed and n is not unread]
    addresses = [axis for operand in operands if operand is not unread for axis in _axes(context.addresses[operand])]
    if not addresses:
        return
    whole = name != "where" or len(sources) == 2
    if name not in MOVING or not whole or any(source not in operands for source in sources):
        for axis in addresses:
            context.pin(axis, REASON.format(node.target))
        return
    for axis in addresses[1:]:
        context.unify(addresses[0], axis)
    value = node.meta.get("val")
    context.addresses[node] = [addresses[0] for _ in value] if isinstance(value, (tuple, list)) else addresses[0]


def _axes(address: object) -> list[Axis]:
    items = address if isinstance(address, list) else [address]
    return [axis for axis in items if isinstance(axis, Axis)]
