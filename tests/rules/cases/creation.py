"""Ops that make tensors."""

# ruff: noqa: B008 (defaults bind a loop variable)

from __future__ import annotations

from typing import Any

import torch

from tests.rules.cases.base import aten, case, create, overload

_DOUBLE = {"dtype": torch.float64}
case("full", lambda x: aten.add.Tensor(create(x, aten.full.default, [4, 3], 2.0, **_DOUBLE), x), (4, 3), free=7)
case("new_full", lambda x: aten.add.Tensor(aten.new_full.default(x, [4, 3], 2.0), x), (4, 3), free=7)
for _name in ("zeros", "ones"):
    case(
        _name, lambda x, op=overload(_name): aten.add.Tensor(create(x, op, [4, 3], **_DOUBLE), x), (4, 3), free=7
    )  # fmt: skip
for _name in ("new_zeros", "new_ones"):
    case(_name, lambda x, op=overload(_name): aten.add.Tensor(op(x, [4, 3]), x), (4, 3), free=7)
for _name in ("empty.memory_format", "rand", "randn"):
    case(
        _name, lambda x, op=overload(_name): aten.add.Tensor(create(x, op, [4, 3]), x), (4, 3), free=7, random=True
    )  # fmt: skip
case("new_empty", lambda x: aten.add.Tensor(aten.new_empty.default(x, [4, 3]), x), (4, 3), free=7, random=True)
case("scalar_tensor", lambda x: aten.add.Tensor(create(x, aten.scalar_tensor.default, 3.0), x), (4, 3), free=7)
_POSITIONS: dict[str, tuple[Any, ...]] = {
    "arange": (4,),
    "linspace": (0.0, 1.0, 4),
    "logspace": (0.0, 1.0, 4),
    "hann_window": (4,),
    "hamming_window": (4,),
    "randint": (5, [4]),
    "randperm": (4,),
}
for _name, _arguments in _POSITIONS.items():
    case(
        _name,
        lambda x, op=overload(_name), a=_arguments: aten.add.Tensor(x, create(x, op, *a)),
        (3, 4),
        free=3,
        random=_name.startswith("rand"),
    )
case("eye", lambda x: aten.add.Tensor(x, create(x, aten.eye.default, 4)), (3, 4, 4), free=3)
_FURTHER_POSITIONS: dict[str, tuple[Any, ...]] = {
    "range.step": (0, 3),
    "blackman_window": (4,),
    "bartlett_window": (4,),
    "kaiser_window": (4,),
    "fft_fftfreq": (4,),
    "fft_rfftfreq": (6,),
}
for _name, _arguments in _FURTHER_POSITIONS.items():
    case(_name, lambda x, op=overload(_name), a=_arguments: aten.add.Tensor(x, create(x, op, *a)), (3, 4), free=3)
for _name in ("tril_indices", "triu_indices"):
    case(_name, lambda x, op=overload(_name): aten.add.Tensor(x, create(x, op, 2, 2)), (2, 3), free=0)
case("normal_of_a_size", lambda x: aten.add.Tensor(x, create(x, aten.normal.float_float, 0.0, 1.0, [3, 4])), (2, 3, 4),
     free=2, random=True)  # fmt: skip
