"""advise(): the sums and sentences from given numbers, and one real run on a small model."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from torch import nn

import graphprune as gp
from graphprune.advice import Advice, LayerCurve, SparsePoint, crossing
from graphprune.advising import layer_shapes
from graphprune.backend import layer_timing
from graphprune.backend.layer_timing import LayerTimes
from graphprune.cli.main import main
from graphprune.errors import BackendError, GraphPruneError
from graphprune.graph import bind_arguments
from graphprune.layer_shapes import LayerShape
from graphprune.ops import FUSED_CONV2D, FUSED_LINEAR
from graphprune.passes.fuse_epilogues import FuseEpilogues
from graphprune.predicting import Baseline, ShrunkLayer, dense_bytes, predict_removal, predict_zeros
from graphprune.tracing.trace import trace

MODEL = "tests.test_advise:small_model"
SMALL, LARGE = LayerShape("linear", (8, 4), (1, 4)), LayerShape("linear", (16, 4), (1, 4))
CONV = LayerShape("conv2d", (8, 3, 3, 3), (1, 3, 9, 9), stride=(2, 2), padding=(1, 1))


def small_model() -> tuple[nn.Module, tuple[torch.Tensor]]:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU()]
    for _ in range(2):
        layers += [nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()]
    layers += [nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Hardswish(), nn.Flatten(), nn.Linear(400, 10)]
    return nn.Sequential(*layers), (torch.randn(1, 3, 10, 10),)


def curve(shape: LayerShape, seconds: float, dense: float, sparse: dict[float, float], count: int = 1) -> LayerCurve:
    points = tuple(SparsePoint(sparsity, value, 100) for sparsity, value in sparse.items())
    return LayerCurve(shape, tuple(f"{shape.weight}.{i}" for i in range(count)), seconds, dense, 400, points)


@pytest.fixture(scope="module")
def advice() -> Advice:
    model, inputs = small_model()
    return gp.advise(model, inputs, sparsities=(0.9, 0.5), ratios=(0.5,))


class TestCurves:
    def test_break_even_lies_between_measured_points(self):
        assert curve(SMALL, 1, 1.0, {0.5: 2.0, 0.7: 0.5}).break_even == pytest.approx(0.5 + 0.2 * 0.5 / 1.5)
        assert curve(SMALL, 1, 1.0, {0.5: 0.9, 0.7: 0.5}).break_even == 0.5
        assert curve(SMALL, 1, 1.0, {0.5: 3.0, 0.7: 1.1}).break_even is None
        assert LayerCurve(SMALL, ("a",), 1.0).break_even is None

    def test_the_last_rise_counts(self):
        assert crossing([(0.5, 1.2), (0.7, 0.8), (0.9, 1.2)], 1.0) == pytest.approx(0.8)
        assert crossing([], 1.0) is None

    @pytest.mark.parametrize("groups", [1, 2])
    def test_output_and_macs_are_those_of_torch(self, groups: int):
        layer = nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 3), groups=groups)
        x = torch.randn(2, 4, 11, 12)
        geometry = ((2, 1), (1, 2), (1, 3), groups)
        shape = LayerShape("conv2d", tuple(layer.weight.shape), tuple(x.shape), True, False, "none", *geometry)
        assert shape.output == tuple(layer(x).shape)
        assert shape.macs == layer(x).numel() * layer.weight[0].numel()
        assert LayerShape.from_dict(json.loads(json.dumps(shape.as_dict()))) == shape


class TestPredictions:
    baseline = Baseline(seconds=10.0, rest=2.0, fixed=1.0, other_bytes=1000)

    def test_each_layer_takes_its_faster_kernel(self):
        curves = [curve(SMALL, 6.0, 3.0, {0.5: 4.0, 0.9: 1.0}, count=2), curve(CONV, 2.0, 1.0, {0.5: 0.5, 0.9: 0.25})]
        low, high = (predict_zeros(self.baseline, curves, sparsity) for sparsity in (0.5, 0.9))
        assert low.seconds == pytest.approx(2 + 6 + 1) and high.seconds == pytest.approx(2 + 2 + 0.5)
        assert high.speedup == pytest.approx(10 / 4.5) and high.measured == 1
        assert dense_bytes(self.baseline, curves) == 1000 + 3 * 400
        assert low.weight_bytes == 1000 + 2 * 400 + 100 and high.weight_bytes == 1000 + 3 * 100

    def test_unmeasured_layers_follow_their_kind(self):
        missing = LayerCurve(LARGE, ("late",), 2.0, dense_bytes=800)
        curves = [curve(SMALL, 3.0, 1.0, {0.9: 0.5}), curve(CONV, 3.0, 1.0, {0.9: 0.1}), missing]
        point = predict_zeros(self.baseline, curves, 0.9)
        assert point.seconds == pytest.approx(2 + 1.5 + 0.3 + 1.0)
        assert point.measured == pytest.approx(6 / 8)

    def test_layers_without_a_sparse_kernel_stay(self):
        grouped = LayerCurve(CONV, ("g",), 8.0, 1.0, 400, (), "no sparse kernel")
        assert predict_zeros(self.baseline, [grouped], 0.9).speedup == pytest.approx(1)

    def test_removal_scales_with_the_model_and_extrapolates_by_macs(self):
        curves = [curve(LARGE, 4.0, 2.0, {}), curve(CONV, 4.0, 1.0, {})]
        (path,), (other,) = curves[0].layers, curves[1].layers
        smaller = LayerShape("conv2d", (2, 3, 3, 3), (1, 3, 9, 9), stride=(2, 2), padding=(1, 1))
        layers = [ShrunkLayer(path, SMALL, (0.5, 200)), ShrunkLayer(other, smaller, None)]
        point = predict_removal(self.baseline, curves, layers, 0.5, rest_ratio=0.5)
        assert point.seconds == pytest.approx(1 + 0.5 + 0.5 * 4 / 2 + 4 / 4)
        assert point.measured == pytest.approx(0.5)
        assert point.weight_bytes == 200 + 100 + 500


def test_layer_shapes_are_those_of_the_graph():
    model, inputs = small_model()
    prepared = FuseEpilogues()(trace(model, inputs))
    shapes = layer_shapes(prepared)
    assert [path for path, _ in shapes] == ["0.weight", "2.weight", "4.weight", "6.weight", "9.weight"]
    assert shapes[1][1] == shapes[2][1] and shapes[3][1].groups == 16
    assert [shape.activation for _, shape in shapes] == ["relu", "relu", "relu", "hardswish", "none"]
    nodes = [node for node in prepared.graph.nodes if node.target in (FUSED_CONV2D, FUSED_LINEAR)]
    for node, (_, shape) in zip(nodes, shapes, strict=True):
        assert shape.output == tuple(node.meta["val"].shape)
        assert shape.weight == tuple(bind_arguments(node)["weight"].meta["val"].shape)


class TestRun:
    def test_every_shape_is_measured_once(self, advice: Advice):
        assert not advice.partial and not advice.notes
        shapes = {str(curve.shape): curve for curve in advice.curves}
        assert len(shapes) == len(advice.curves) == 4
        assert shapes["3x3 conv 16 -> 16 @ 5x5"].layers == ("2.weight", "4.weight")
        grouped = shapes["3x3 conv 16 -> 16 @ 5x5 in 16 groups"]
        assert not grouped.sparse and "depthwise" in grouped.reason and grouped.dense
        for curve in advice.curves:
            assert [point.sparsity for point in curve.sparse] in ([0.5, 0.9], [])
            assert curve.seconds > 0

    def test_sums(self, advice: Advice):
        assert advice.rest + sum(curve.seconds for curve in advice.curves) == pytest.approx(advice.seconds)
        assert [point.amount for point in advice.unstructured] == [0.5, 0.9]
        for point in (*advice.unstructured, *advice.structured):
            assert point.speedup == pytest.approx(advice.seconds / point.seconds)
            assert point.measured == 1
        low, high = advice.unstructured
        assert high.weight_bytes < low.weight_bytes
        assert advice.structured[0].weight_bytes < advice.weight_bytes

    def test_json_round_trip(self, advice: Advice, tmp_path):
        assert Advice.load(advice.save(tmp_path / "advice.json")) == advice
        data = json.loads((tmp_path / "advice.json").read_text())
        assert data["recommendation"] == advice.recommendation()

    def test_text(self, advice: Advice):
        text = str(advice)
        assert "90% zeros" in text and "50% of channels removed" in text and "break-even" in text
        assert text.endswith(advice.recommendation())

    def test_measurements_are_kept(self, advice: Advice, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(layer_timing, "_measure", lambda *arguments: pytest.fail("measured again"))
        model, inputs = small_model()
        again = gp.advise(model, inputs, sparsities=(0.5, 0.9), ratios=(0.5,))
        assert [c.sparse for c in sorted(again.curves, key=lambda c: str(c.shape))] == [
            c.sparse for c in sorted(advice.curves, key=lambda c: str(c.shape))
        ]


def test_interrupting_keeps_what_was_measured(monkeypatch: pytest.MonkeyPatch):
    calls: list[LayerShape] = []

    def measure(shape, sparsities, *rest):
        calls.append(shape)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return LayerTimes(dict.fromkeys(sparsities, 1e-3) | {0.0: 2e-3}, dict.fromkeys(sparsities, 64))

    monkeypatch.setattr(layer_timing, "time_layer", measure)
    model, inputs = small_model()
    advice = gp.advise(model, inputs, sparsities=(0.9,))
    assert advice.partial and advice.stopped == "interrupted"
    assert [curve.dense for curve in advice.curves] == [2e-3, None, None, None]
    assert 0 < advice.unstructured[0].measured < 1 and not advice.structured
    assert advice.unstructured[0].seconds == pytest.approx(advice.rest + (advice.seconds - advice.rest) / 2)
    assert "interrupted" in str(advice) and "interrupted" in advice.recommendation()


def test_the_time_limit_ends_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        layer_timing, "time_layer", lambda shape, sparsities, *rest: LayerTimes({0.0: 1.0, 0.9: 0.5}, {0.0: 8, 0.9: 4})
    )
    model, inputs = small_model()
    advice = gp.advise(model, inputs, sparsities=(0.9,), seconds=1e-9)
    assert advice.stopped == "time limit"
    assert [curve.dense is not None for curve in advice.curves] == [True, False, False, False]


class TestRecommendation:
    def advice(self, *speedups: float, structured: float = 0.0, rest: float = 0.0) -> Advice:
        base = Baseline(10.0, rest, 0.0, 0)
        points = [base.prediction(s, 10 / v, 0, 1.0) for s, v in zip((0.5, 0.9), speedups)]
        removed = (base.prediction(0.5, 10 / structured, 0, 1.0),) if structured else ()
        return Advice("llvm", 1, 10.0, rest, 0, (), tuple(points), removed)

    def test_gains(self):
        text = self.advice(1.0, 3.0, structured=2.0).recommendation()
        assert "pay from 51% sparsity on: 3.0× at 90%" in text
        assert "Removing 50% of the channels gives 2.0×, as much as 70% zeros." in text

    def test_nothing_gained(self):
        text = self.advice(1.0, 1.01, structured=1.02).recommendation()
        assert "do not pay" in text and "does not pay" in text

    def test_limits(self):
        text = self.advice(1.1, 2.0, structured=4.0, rest=2.5).recommendation()
        assert "≤ 50%" in text and "more than any measured sparsity" in text and "at most 4.0×" in text


def test_refusals():
    model, inputs = small_model()
    with pytest.raises(BackendError, match="between 0 and 1"):
        gp.advise(model, inputs, sparsities=(0.0, 0.5))
    with pytest.raises(BackendError, match="positive"):
        gp.advise(model, inputs, seconds=0)
    with pytest.raises(BackendError, match="processors"):
        gp.advise(model, inputs, target="cuda")


def test_plot_says_what_to_install(advice: Advice, tmp_path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(GraphPruneError, match="matplotlib"):
        advice.plot(tmp_path / "plot.png")


def test_plot(advice: Advice, tmp_path):
    pytest.importorskip("matplotlib")
    assert advice.plot(tmp_path / "plot.svg").read_text().count("<path") > 10


def test_command_line(advice: Advice, capsys, tmp_path):
    saved = tmp_path / "advice.json"
    words = ["advise", MODEL, "--sparsity", "0.5", "--sparsity", "0.9", "--ratio", "0.5"]
    assert main([*words, "--output", str(saved)]) == 0
    assert "Zeros" in capsys.readouterr().out
    assert len(Advice.load(saved).curves) == len(advice.curves)
    assert main([*words, "--json"]) == 0
    assert {"unstructured", "structured", "recommendation"} <= json.loads(capsys.readouterr().out).keys()
