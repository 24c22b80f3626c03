"""Recurrent layers."""

from __future__ import annotations

from typing import Any

from tests.rules.cases.base import Operand, aten, case, overload, pieces


def _recurrent(op: Any, gates: int, directions: int, layers: int, states: int) -> tuple[Any, tuple[Operand, ...]]:
    hidden, inputs, parameters = 3, 4, []
    for layer in range(layers):
        width = inputs if layer == 0 else hidden * directions
        for _ in range(directions):
            parameters += [(gates * hidden, width), (gates * hidden, hidden), (gates * hidden,), (gates * hidden,)]
    initial = [(layers * directions, 2, hidden)] * states

    def call(x: Any, *rest: Any) -> Any:
        hx = list(rest[:states]) if states == 2 else rest[0]
        return op(x, hx, list(rest[states:]), True, layers, 0.0, False, directions == 2, True)[0]

    return call, ((2, 5, inputs), *initial, *parameters)


for _name, _gates, _states in [("lstm", 4, 2), ("gru", 3, 1), ("rnn_tanh", 1, 1), ("rnn_relu", 1, 1)]:
    for _directions, _layers in [(1, 1), (2, 2)]:
        _function, _operands = _recurrent(getattr(aten, _name).input, _gates, _directions, _layers, _states)
        case(f"{_name}_{_directions}_{_layers}", _function, *_operands, free=2 + 4 + 3, judged=False)

_X, _H = (2, 4), (2, 3)
for _name, _gates in [("gru_cell", 3), ("rnn_tanh_cell", 1), ("rnn_relu_cell", 1)]:
    case(_name, overload(_name), _X, _H, (_gates * 3, 4), (_gates * 3, 3), (_gates * 3,), (_gates * 3,), free=9)
case("lstm_cell", lambda x, h, c, *rest: pieces(aten.lstm_cell.default(x, [h, c], *rest), 2), _X, _H, _H, (12, 4),
     (12, 3), (12,), (12,), free=9)  # fmt: skip
case("lstm_cell_without_bias", lambda x, h, c, *rest: pieces(aten.lstm_cell.default(x, [h, c], *rest), 2), _X, _H, _H,
     (12, 4), (12, 3), free=9)  # fmt: skip
for _layers, _directions in ((1, 1), (2, 2)):
    _parameters: list[Operand] = []
    for _layer in range(_layers):
        for _ in range(_directions):
            _width = 4 if _layer == 0 else 3 * _directions
            _parameters += [(28, _width), (28, 3), (28,), (28,), (3, 7)]
    _count = _layers * _directions
    case(
        f"lstm_projected_{_layers}_{_directions}",
        lambda x, h, c, *rest, n=_layers, two=_directions == 2: pieces(
            aten.lstm.input(x, [h, c], list(rest), True, n, 0.0, False, two, True), 3
        ),
        (2, 5, 4), (_count, 2, 3), (_count, 2, 7), *_parameters, free=2 + 4 + 3 + 7, least=3, judged=False,
        refuses="cannot keep as many projected as hidden units",
    )  # fmt: skip
