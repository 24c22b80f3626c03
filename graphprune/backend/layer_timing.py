"""Times the dense and the sparse kernel of one layer shape on random weights, as lowering would make them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from graphprune.backend import Backend
from graphprune.backend.fused_layer import FusedLayer
from graphprune.backend.kernels import ConvShape, Epilogue, Kernel
from graphprune.backend.target import CompileTarget
from graphprune.backend.tuning.timing import compiled_calls
from graphprune.errors import BackendError
from graphprune.layer_shapes import LayerShape
from graphprune.measure import interleaved

_REPEATS = 25
_LIMIT = 0.6  # seconds for all candidates of a shape together

_known: dict[tuple[LayerShape, CompileTarget, int, tuple[float, ...]], LayerTimes] = {}


@dataclass(frozen=True)
class LayerTimes:
    """What was measured of one shape: seconds of a call and bytes of packed constants, by sparsity (0.0 is dense).

    ``problems`` says for a sparsity without numbers why there is no kernel.
    """

    seconds: dict[float, float] = field(default_factory=dict)
    weight_bytes: dict[float, int] = field(default_factory=dict)
    problems: dict[float, str] = field(default_factory=dict)


def time_layer(
    shape: LayerShape, sparsities: Sequence[float], backend: Backend, target: CompileTarget, threads: int
) -> LayerTimes:
    """Return the fastest of a few calls of the kernels at each of ``sparsities``, measured in turns.

    A sparsity of 0 is the dense kernel. Results are kept, so asking again costs nothing in the same process.
    """
    key = (shape, target, threads, tuple(sparsities))
    if key not in _known:
        _known[key] = _measure(shape, sparsities, backend, target)
    return _known[key]


def _measure(shape: LayerShape, sparsities: Sequence[float], backend: Backend, target: CompileTarget) -> LayerTimes:
    times = LayerTimes()
    kernels: dict[float, Kernel] = {}
    for sparsity in sparsities:
        try:
            kernels[sparsity] = _kernel(shape, sparsity, backend, target)
        except BackendError as error:
            times.problems[sparsity] = error.message
    if not kernels:
        return times
    named = {_name(sparsity): kernel for sparsity, kernel in kernels.items()}
    calls = compiled_calls(named, shape.x, shape.residual, target)
    timings = interleaved(calls, repeats=_REPEATS, limit=_LIMIT)
    for sparsity, kernel in kernels.items():
        times.seconds[sparsity] = timings[_name(sparsity)].minimum
        times.weight_bytes[sparsity] = sum(array.nbytes for array in kernel.constants)
    return times


def _kernel(shape: LayerShape, sparsity: float, backend: Backend, target: CompileTarget) -> Kernel:
    generator = np.random.default_rng(0)
    weight = generator.standard_normal(shape.weight, dtype=np.float32)
    if sparsity:
        weight *= generator.random(shape.weight, dtype=np.float32) >= sparsity
    bias = np.ones(shape.weight[0], np.float32) if shape.bias else None
    epilogue = Epilogue(shape.bias, shape.residual, shape.activation)
    conv = ConvShape(shape.x, shape.stride, shape.padding, shape.dilation, shape.groups)
    layer = FusedLayer(weight, bias, shape.x, epilogue, conv if shape.kind == "conv2d" else None)
    return layer.kernel(backend, target, sparse=sparsity > 0)


def _name(sparsity: float) -> str:
    return f"kernel_{round(sparsity * 1e6)}"
