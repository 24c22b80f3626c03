"""Which functions FuseOps may put element-wise ops in front of: not those that would compute them several times."""

from __future__ import annotations

import math
from typing import Any

import tvm
from tvm import tirx

_INJECTIVE, _OUTPUTS_ONLY = 2, 4  # relax::OpPatternKind: kInjective, and kOutEWiseFusable
_INTERPOLATING = ("resize2d", "grid_sample")  # ops of Relax that read several elements for each one they give
_MOST_COMPUTED = 1.5  # times that an element of an input may be computed, on average


def keep_producers_out(module: tvm.IRModule) -> tvm.IRModule:
    """Let only later element-wise ops fuse with functions that read the elements of an input several times.

    TVM takes resampling for a rearrangement, and would compute what precedes it, say an activation, four times.
    """
    result = tvm.IRModule(dict(module.functions.items()), attrs=module.attrs)
    for variable, function in module.functions.items():
        if not isinstance(function, tirx.PrimFunc) or _pattern(function) != _INJECTIVE:
            continue
        if variable.name_hint.startswith(_INTERPOLATING) or _enlarges(function):
            result[variable] = function.with_attr("op_pattern", _OUTPUTS_ONLY)
    return result


def _pattern(function: tirx.PrimFunc) -> int | None:
    return int(function.attrs["op_pattern"]) if function.attrs and "op_pattern" in function.attrs else None


def _enlarges(function: tirx.PrimFunc) -> bool:
    """Say whether the output of a function of one input has more elements than that input."""
    sizes = [_elements(buffer) for buffer in function.params]
    if len(sizes) != 2 or sizes[0] is None or sizes[1] is None:
        return False
    return sizes[1] > _MOST_COMPUTED * sizes[0]


def _elements(buffer: Any) -> int | None:
    extents = [getattr(extent, "value", extent) for extent in buffer.shape]
    return math.prod(extents) if all(isinstance(extent, int) for extent in extents) else None
