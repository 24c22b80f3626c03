"""Adds up measured layers to whole models."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from graphprune.advice import LayerCurve, Prediction
from graphprune.break_even import layer_kind, suits_winograd
from graphprune.layer_shapes import LayerShape


@dataclass(frozen=True)
class Baseline:
    """The dense model.

    Attributes:
        seconds: time of a call.
        rest: the part of it outside measurable layers.
        fixed: the part of ``rest`` that is in no kernel, and so does not change with sizes.
        other_bytes: bytes of parameters that are not these layers' weights.
    """

    seconds: float
    rest: float
    fixed: float
    other_bytes: int

    def prediction(self, amount: float, seconds: float, weight_bytes: float, measured: float) -> Prediction:
        """Return a prediction with its speed-up over this model."""
        return Prediction(amount, seconds, self.seconds / seconds, round(weight_bytes), measured)


@dataclass(frozen=True)
class ShrunkLayer:
    """A layer of the model with channels removed.

    Attributes:
        path: its weight.
        shape: its smaller shape.
        dense: seconds and bytes of its dense kernel, or None if they were not measured.
    """

    path: str
    shape: LayerShape
    dense: tuple[float, int] | None


def dense_bytes(baseline: Baseline, curves: Iterable[LayerCurve]) -> int:
    """Return the bytes of the dense model's weights."""
    return baseline.other_bytes + sum(len(curve.layers) * curve.dense_bytes for curve in curves)


def predict_zeros(baseline: Baseline, curves: Sequence[LayerCurve], sparsity: float) -> Prediction:
    """Return the prediction for ``sparsity``, with the faster kernel for every layer.

    What a kernel gains on its own it is taken to gain in the model. A layer that was not measured is taken to gain
    what the measured ones of its kind (see ``graphprune.break_even``) do together, or all of them where none is.
    """
    gains = {curve.shape: _gain(curve, sparsity) for curve in curves}
    seconds, weight_bytes, measured, total = baseline.rest, float(baseline.other_bytes), 0.0, 0.0
    for curve in curves:
        gain = gains[curve.shape]
        total += curve.seconds
        measured += curve.seconds if gain else 0.0
        time_ratio, bytes_ratio = gain or _together(curve, curves, gains)
        seconds += curve.seconds * time_ratio
        weight_bytes += len(curve.layers) * curve.dense_bytes * bytes_ratio
    return baseline.prediction(sparsity, seconds, weight_bytes, measured / total if total else 1.0)


def predict_removal(
    baseline: Baseline, curves: Sequence[LayerCurve], layers: Sequence[ShrunkLayer], ratio: float, rest_ratio: float
) -> Prediction:
    """Return the prediction for a shrunk model.

    Each layer takes its measured time, corrected by how much slower than alone its original ran within the model. One
    that was not measured changes with its multiply-accumulates. ``rest_ratio`` is how much smaller the other ops'
    results became.
    """
    originals = {path: curve for curve in curves for path in curve.layers}
    seconds = baseline.fixed + (baseline.rest - baseline.fixed) * rest_ratio
    weight_bytes, measured, total = 0.0, 0.0, 0.0
    for layer in layers:
        original = originals.get(layer.path)
        if original is None:
            continue  # a part of the rest
        before = original.seconds / len(original.layers)
        total += before
        if layer.dense is not None and original.dense:
            seconds += layer.dense[0] * before / original.dense
            weight_bytes += layer.dense[1]
            measured += before
        else:
            seconds += before * layer.shape.macs / original.shape.macs
            weight_bytes += original.dense_bytes * layer.shape.weight_count / original.shape.weight_count
    share = measured / total if total else 1.0
    return baseline.prediction(ratio, seconds, weight_bytes + baseline.other_bytes * rest_ratio, share)


def _gain(curve: LayerCurve, sparsity: float) -> tuple[float, float] | None:
    """Return by what time and bytes change with the better kernel, or None if the layer was not measured."""
    if curve.reason:
        return (1.0, 1.0)  # it has no sparse kernel and stays as it is
    point = next((point for point in curve.sparse if point.sparsity == sparsity), None)
    if point is None or not curve.dense:
        return None
    if point.seconds >= curve.dense:
        return (1.0, 1.0)
    return (point.seconds / curve.dense, point.weight_bytes / max(1, curve.dense_bytes))


def _together(
    curve: LayerCurve, curves: Sequence[LayerCurve], gains: dict[LayerShape, tuple[float, float] | None]
) -> tuple[float, float]:
    def mean(chosen: Callable[[LayerCurve], bool]) -> tuple[float, float] | None:
        known = [(other.seconds, gain) for other in curves if chosen(other) and (gain := gains[other.shape])]
        weight = sum(seconds for seconds, _ in known)
        if not weight:
            return None
        return (
            sum(seconds * gain[0] for seconds, gain in known) / weight,
            sum(seconds * gain[1] for seconds, gain in known) / weight,
        )

    return mean(lambda other: _kind(other) == _kind(curve)) or mean(lambda other: True) or (1.0, 1.0)


def _kind(curve: LayerCurve) -> str:
    shape = curve.shape
    winograd = shape.kind == "conv2d" and suits_winograd(
        shape.weight, math.prod(shape.x[2:]), shape.stride, shape.dilation, shape.groups
    )
    return layer_kind(shape.weight, math.prod(shape.x[:-1]), winograd=winograd)
