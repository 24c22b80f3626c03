"""Kinds of dimensions: what the units of a dimension are, told from how the graph uses it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from graphprune.axes import Axis, factors, known_size, leaves, pin_of, terms
from graphprune.inference import Typing
from graphprune.units.usage import LeafUsage

CHANNEL, NEURON, EMBEDDING, FACTOR = "channel", "neuron", "embedding", "factor"
HEAD, KV_GROUP, QUERY_HEAD, HEAD_DIM = "head", "kv_group", "query_head", "head_dim"
EXPERT = "expert"
KINDS = (CHANNEL, NEURON, EMBEDDING, HEAD, KV_GROUP, QUERY_HEAD, HEAD_DIM, EXPERT, FACTOR)

MIXTURE = "mixture"
"""Role of an axis that a softmax runs along: it counts experts if weight matrices are stacked along it."""

SYNONYMS = {"filter": CHANNEL}
"""Further words for kinds: the filters of a convolution are its output channels."""


def find_kinds(typing: Typing, usage: Mapping[int, LeafUsage], axes: Iterable[Axis]) -> dict[int, str]:
    """Return the kind of each leaf that ``usage`` has.

    Leaves are classified by the role a rule saw them in, then by the company they keep in products, then by the layers
    that use them.

    Args:
        typing: of the graph.
        usage: of its prunable leaves, by identity.
        axes: those of its parameters that are products or sums.
    """
    kinds: dict[int, str] = {}
    _mark_experts(typing, usage, kinds)
    for role, axis in typing.roles:
        if role == HEAD:
            _classify_heads([leaf.identity for leaf in leaves(axis) if leaf.identity in usage], kinds)
    for role, axis in typing.roles:
        for leaf in leaves(axis) if role != MIXTURE else ():
            kinds.setdefault(leaf.identity, role)
    for axis in axes:
        for term in terms(axis):
            free = [factor for factor in factors(term) if pin_of(factor) is None]
            _mark_groups(free, kinds)
            _classify_factors(free, kinds)
    return {identity: kinds.get(identity) or _by_layers(used) for identity, used in usage.items()}


def _mark_experts(typing: Typing, usage: Mapping[int, LeafUsage], kinds: dict[int, str]) -> None:
    """Mark what routing looks up, and what a softmax weighs and matrices are stacked along, as experts."""
    stacked = {
        leaf.identity
        for path, axes in typing.attributes.items()
        if path in typing.parameters and len(axes) > 2
        for leaf in leaves(axes[0])
    }
    for role, axis in typing.roles:
        for leaf in leaves(axis) if role in (EXPERT, MIXTURE) else ():
            used = usage.get(leaf.identity)
            if used is not None and (role == EXPERT or (leaf.identity in stacked and not used.is_convolution_output)):
                kinds[leaf.identity] = EXPERT


def _classify_heads(identities: list[int], kinds: dict[int, str]) -> None:
    """The outermost prunable factor of a batch axis counts heads; those inside it, queries of one key-value head."""
    for position, identity in enumerate(identities):
        kinds.setdefault(identity, HEAD if position == 0 else QUERY_HEAD)


def _mark_groups(free: list[Axis], kinds: dict[int, str]) -> None:
    """Heads that stand beside query heads are key-value groups."""
    identities = [leaf.identity for factor in free for leaf in leaves(factor)]
    if any(kinds.get(identity) == QUERY_HEAD for identity in identities):
        for identity in identities:
            if kinds.get(identity) == HEAD:
                kinds[identity] = KV_GROUP


def _classify_factors(free: list[Axis], kinds: dict[int, str]) -> None:
    """Beside a head, the rest of a product is head width; beside a larger factor, a smaller one is a mere factor."""
    if len(free) < 2:
        return
    heads = (HEAD, KV_GROUP, QUERY_HEAD)
    has_head = any(kinds.get(leaf.identity) in heads for factor in free for leaf in leaves(factor))
    largest = max(free, key=known_size)
    for factor in free:
        for leaf in leaves(factor):
            if has_head:
                kinds.setdefault(leaf.identity, HEAD_DIM)
            elif factor is not largest:
                kinds.setdefault(leaf.identity, FACTOR)


def _by_layers(usage: LeafUsage) -> str:
    """Tables and residual streams that no convolution reads are embeddings; what only linears use, neurons."""
    if usage.is_convolved:
        return CHANNEL
    if usage.is_table_width or usage.is_stream:
        return EMBEDDING
    return CHANNEL if usage.is_convolution_output else NEURON
