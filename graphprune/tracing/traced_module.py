"""The ``GraphModule`` that graphprune traces to: one whose ``.train()`` and ``.eval()`` do what they say.

An exported graph has the training flag of dropout, batch norm and their kin baked in as plain arguments, so the
inherited ``.train()`` would change nothing. Here it rewrites those arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import fx

_FLAGS = ("training", "train", "use_input_stats")
_STATISTICS = "running_mean"
_SAVED_DROPOUT = "graphprune_dropout_p"


class TracedModule(fx.GraphModule):
    """A ``torch.fx.GraphModule`` that can be switched between training and evaluation like any module."""

    def train(self, mode: bool = True) -> TracedModule:
        """Switch dropout, batch norm and the like to training (or evaluation) behaviour, and return ``self``."""
        set_training_flags(self, mode)
        super().train(mode)
        return self


def set_training_flags(gm: fx.GraphModule, mode: bool, *, keep_evaluating: Sequence[str] = ()) -> int:
    """Set every baked training flag of ``gm``'s graph to ``mode``, recompile, and return how many flags changed.

    An op with running statistics as optional inputs (batch and instance norm) that has none keeps its flag: it always
    normalises by the batch. ``keep_evaluating`` names ops (``batch_norm``) whose flag stays False in any case.
    """
    changed = 0
    for node in gm.graph.nodes:
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None:
            continue
        evaluating = schema.name.split("::")[1] in keep_evaluating
        changed += _set_flag(node, schema, mode and not evaluating)
        changed += _set_attention_dropout(node, schema, mode)
    if changed:
        gm.recompile()
    return changed


def remember_training_flags(gm: fx.GraphModule) -> Callable[[], None]:
    """Return a function that brings every flag of ``gm``'s graph back to what it is now."""
    before = {node: (node.args, node.kwargs) for node in gm.graph.nodes if node.op == "call_function"}

    def restore() -> None:
        changed = [node for node, (args, kwargs) in before.items() if (node.args, node.kwargs) != (args, kwargs)]
        for node in changed:
            node.args, node.kwargs = before[node]
        if changed:
            gm.recompile()

    return restore


def _set_flag(node: fx.Node, schema: Any, mode: bool) -> bool:
    names = [argument.name for argument in schema.arguments]
    flag = next((name for name in _FLAGS if name in names), None)
    if flag is None or (_STATISTICS in names and _argument(node, schema, _STATISTICS) is None):
        return False
    return _replace_argument(node, schema, flag, mode)


def _set_attention_dropout(node: fx.Node, schema: Any, mode: bool) -> bool:
    """Zero a drop-out probability given as a bare argument while evaluating; bring it back for training."""
    if "dropout_p" not in [argument.name for argument in schema.arguments]:
        return False
    probability = _argument(node, schema, "dropout_p")
    if mode:
        return _replace_argument(node, schema, "dropout_p", node.meta.get(_SAVED_DROPOUT, probability))
    if probability:
        node.meta[_SAVED_DROPOUT] = probability
    return _replace_argument(node, schema, "dropout_p", 0.0)


def _argument(node: fx.Node, schema: Any, name: str) -> Any:
    for i, argument in enumerate(schema.arguments):
        if argument.name == name:
            default = argument.default_value if argument.has_default_value() else None
            return node.args[i] if i < len(node.args) else node.kwargs.get(name, default)
    raise KeyError(name)


def _replace_argument(node: fx.Node, schema: Any, name: str, value: Any) -> bool:
    if _argument(node, schema, name) == value:
        return False
    position = [argument.name for argument in schema.arguments].index(name)
    if position < len(node.args):
        node.update_arg(position, value)
    else:
        node.update_kwarg(name, value)
    return True
