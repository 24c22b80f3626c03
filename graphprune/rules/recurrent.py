"""Recurrent layers (LSTM, GRU, vanilla RNN) as single ops."""

from __future__ import annotations

from torch import fx

from graphprune.axes import Axis, direct_sum, product
from graphprune.rules.context import CannotInfer, Inference, Typed
from graphprune.rules.registry import Arguments, rule, rule_name

GATES = {"aten::lstm": 4, "aten::gru": 3, "aten::rnn_tanh": 1, "aten::rnn_relu": 1}


@rule("lstm", "gru", "rnn_tanh", "rnn_relu")
def recurrent(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """t n i; weights (G h) i and (G h) h -> t n (h + h'), states L n h (one hidden width for all layers)"""
    if "data" in arguments:
        raise CannotInfer("recurrent layer over packed sequences")
    gates = GATES[rule_name(node)]
    states = arguments["hx"] if isinstance(arguments["hx"], (list, tuple)) else [arguments["hx"]]
    state_axes = [context.axes(state) for state in states]
    parameters = [context.axes(parameter) for parameter in arguments["params"]]
    directions = 2 if arguments["bidirectional"] else 1
    per_cell = 4 if arguments["has_biases"] else 2
    if len(parameters) != per_cell * directions * arguments["num_layers"]:
        raise CannotInfer("recurrent layer with projections")

    *outer, features = context.axes(arguments["input"])
    hidden = parameters[1][1]
    for axes in state_axes:
        context.unify(axes[-1], hidden)
        context.pin(axes[0], "layers of a recurrent network")
    time = 1 if arguments["batch_first"] and len(outer) > 1 else 0
    context.pin(outer[time], "time steps")
    for axes in state_axes:
        for batch, other in zip(axes[1:-1], outer[:time] + outer[time + 1 :], strict=True):
            context.unify(batch, other)
    for layer in range(arguments["num_layers"]):
        outputs = [
            _cell(context, parameters[(layer * directions + d) * per_cell :][:per_cell], features, hidden, gates)
            for d in range(directions)
        ]
        features = direct_sum(outputs)
    results = [[*outer, features]]
    return results + [list(axes) for axes in (state_axes if gates == 4 else state_axes[:1])]


def _cell(context: Inference, weights: list[list[Axis]], inputs: Axis, hidden: Axis, gates: int) -> Axis:
    """Type one direction of one layer and return its output axis."""
    input_weight, hidden_weight, *biases = weights
    context.unify(input_weight[1], inputs)
    context.unify(hidden_weight[1], hidden)
    rows = product([context.solver.pinned(gates, "gates"), hidden])
    for axes in (input_weight, hidden_weight, *biases):
        context.unify(axes[0], rows)
    return hidden
