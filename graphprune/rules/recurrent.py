"""Recurrent layers (LSTM, GRU, vanilla RNN) as single ops, and their cells."""

from __future__ import annotations

from torch import fx

from graphprune.axes import Axis, direct_sum, product
from graphprune.errors import MaskError
from graphprune.rules.context import CannotInfer, Inference, Resizing, Typed
from graphprune.rules.registry import Arguments, resize, rule, rule_name

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
    cells = arguments["num_layers"] * (2 if arguments["bidirectional"] else 1)
    per_cell = len(parameters) // cells
    projected = per_cell > (4 if arguments["has_biases"] else 2)

    *outer, features = context.axes(arguments["input"])
    output, hidden = parameters[1][1], _hidden(parameters[:per_cell], gates, projected)
    for axes, width in zip(state_axes, (output, hidden), strict=False):
        context.unify(axes[-1], width)
        context.pin(axes[0], "layers of a recurrent network")
    time = 1 if arguments["batch_first"] and len(outer) > 1 else 0
    context.pin(outer[time], "time steps")
    for axes in state_axes:
        for batch, other in zip(axes[1:-1], outer[:time] + outer[time + 1 :], strict=True):
            context.unify(batch, other)
    for first in range(0, cells, cells // arguments["num_layers"]):
        outputs: list[Axis] = []
        for cell in range(first, first + cells // arguments["num_layers"]):
            weights = parameters[cell * per_cell : (cell + 1) * per_cell]
            _gates(context, weights[: per_cell - projected], features, output, hidden, gates)
            if projected:
                context.unify(weights[-1][0], output)
                context.unify(weights[-1][1], hidden)
            outputs.append(output)
        features = direct_sum(outputs)
    if projected:
        context.notes[node.name] = (output, hidden)
    return [[*outer, features], *(list(axes) for axes in (state_axes if gates == 4 else state_axes[:1]))]


def _hidden(weights: list[list[Axis]], gates: int, projected: bool) -> Axis:
    """Return the axis of the hidden state before any projection."""
    return weights[-1][1] if projected else weights[1][1]


def _gates(
    context: Inference, weights: list[list[Axis]], inputs: Axis, recurrent_inputs: Axis, hidden: Axis, gates: int
) -> None:
    """Type the weights (and biases) of one cell: rows are gates of the hidden width."""
    input_weight, hidden_weight, *_ = weights
    context.unify(input_weight[1], inputs)
    context.unify(hidden_weight[1], recurrent_inputs)
    rows = product([context.solver.pinned(gates, "gates"), hidden])
    for axes in weights:
        context.unify(axes[0], rows)


@resize("lstm")
def check_projection(resizing: Resizing, node: fx.Node, arguments: Arguments) -> None:
    """Refuse equal widths: torch takes an LSTM whose hidden and cell states are equally wide for one without."""
    widths = resizing.notes.get(node.name)
    if widths is not None and resizing.count(widths[0]) == resizing.count(widths[1]):
        raise MaskError(
            "an LSTM with projections cannot keep as many projected as hidden units",
            node=node,
            hint="keep one more hidden unit than projected ones",
        )


CELLS = {"aten::lstm_cell": 4, "aten::gru_cell": 3, "aten::rnn_tanh_cell": 1, "aten::rnn_relu_cell": 1}


@rule("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell")
def recurrent_cell(context: Inference, node: fx.Node, arguments: Arguments) -> Typed:
    """n i, n h; weights (G h) i and (G h) h -> n h"""
    states = arguments["hx"] if isinstance(arguments["hx"], (list, tuple)) else [arguments["hx"]]
    names = [name for name in ("w_ih", "w_hh", "b_ih", "b_hh") if arguments[name] is not None]
    weights = [context.axes(arguments[name]) for name in names]
    *batch, features = context.axes(arguments["input"])
    hidden = weights[1][1]
    for state in states:
        axes = context.axes(state)
        context.unify(axes[-1], hidden)
        for a, b in zip(axes[:-1], batch, strict=True):
            context.unify(a, b)
    _gates(context, weights, features, hidden, hidden, CELLS[rule_name(node)])
    result = [*batch, hidden]
    return [list(result) for _ in states] if isinstance(node.meta["val"], (tuple, list)) else result
