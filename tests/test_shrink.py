"""The smaller graph: what is sliced, what is tied, what is spelled out, and the self-check."""

import numpy as np
import pytest
import torch
from torch import nn

from graphprune.analysis import analyze
from graphprune.errors import VerificationError
from graphprune.graph import bind_arguments, copy_graph_module, graph_info, op_name
from graphprune.interpret import run_masked
from graphprune.rules import registry
from graphprune.shrink import shrink
from graphprune.tracing.trace import trace
from tests.pruning_models import analysis, inputs, traced


def keep(size, *positions):
    mask = np.zeros(size, bool)
    mask[list(positions)] = True
    return mask


def pruned(name, **masks):
    plan = analysis(name).plan({key.replace("__", ".").replace("_at_", ":"): mask for key, mask in masks.items()})
    return shrink(traced(name), plan, analysis=analysis(name)), plan


def test_parameters_and_buffers_are_sliced_alike():
    gm = traced("residual")
    small, _ = pruned("residual", conv1__weight_at_0=keep(6, 0, 2, 5))
    kept = [0, 2, 5]
    for path in ("conv1.weight", "norm1.weight", "norm1.bias", "norm1.running_mean", "norm1.running_var"):
        assert torch.equal(small.get_parameter(path) if path in dict(small.named_parameters()) else
                           small.get_buffer(path), gm.state_dict()[path][kept])  # fmt: skip
    assert torch.equal(small.get_parameter("conv2.weight"), gm.state_dict()["conv2.weight"][:, kept])
    assert small.state_dict().keys() <= gm.state_dict().keys()


def test_the_input_graph_is_not_touched():
    gm = traced("residual")
    before = {name: value.clone() for name, value in gm.state_dict().items()}
    code = gm.code
    small, _ = pruned("residual", conv1__weight_at_0=keep(6, 1), stem__weight_at_0=keep(8, 0, 1, 2))
    with torch.no_grad():
        for value in small.parameters():
            value.fill_(7)
    assert gm.code == code
    assert all(torch.equal(value, before[name]) for name, value in gm.state_dict().items())


def test_an_empty_plan_copies():
    gm = traced("residual")
    small, _ = pruned("residual")
    assert torch.equal(small(*inputs("residual")), gm(*inputs("residual")))
    assert small.get_parameter("conv1.weight").data_ptr() != gm.get_parameter("conv1.weight").data_ptr()


def test_tied_weights_stay_tied():
    small, _ = pruned("attention", qkv__weight_at_1=keep(10, 1, 2, 3, 5, 8))
    readers = [n for n in small.graph.nodes if n.op == "get_attr" and n.meta["val"].shape == (20, 5)]
    assert {op_name(user) for n in readers for user in n.users} == {"embedding", "linear"}
    assert sum(p.shape == (20, 5) for p in small.parameters()) == 1


class TiedTwice(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.out = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 2)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.out(self.first(x) * self.second(x))


def test_a_tensor_with_two_names_is_shared():
    gm = trace(TiedTwice(), (torch.randn(3, 4),))
    found = analyze(gm)
    (dimension,) = found.dimensions
    small = shrink(gm, found.plan({dimension.name: keep(6, 1, 4)}))
    x = torch.randn(3, 4)
    with torch.no_grad():
        weight = next(p for p in small.parameters() if p.shape == (2, 4))
        before = small(x)
        weight.mul_(2)
        assert not torch.allclose(small(x), before)
    assert sum(p.shape == (2, 4) for p in small.parameters()) == 1


def test_weight_masks_are_sliced():
    gm = copy_graph_module(traced("residual"))
    mask = torch.rand(6, 8, 3, 3) > 0.5
    graph_info(gm).weight_masks["conv1.weight"] = mask
    small = shrink(gm, analysis("residual").plan({"conv1.weight:0": keep(6, 0, 3)}))
    assert torch.equal(graph_info(small).weight_masks["conv1.weight"], mask[[0, 3]])
    assert graph_info(gm).weight_masks["conv1.weight"].shape == (6, 8, 3, 3)


def test_attention_keeps_its_scale_when_heads_get_narrower():
    small, plan = pruned("attention", qkv__weight_at_0__2=keep(4, 0, 3))
    (node,) = [n for n in small.graph.nodes if op_name(n) == "scaled_dot_product_attention"]
    assert bind_arguments(node)["scale"] == pytest.approx(0.5)
    found = analysis("attention")
    expected = run_masked(found.gm, found.typing, found.masks(plan), *inputs("attention"))
    torch.testing.assert_close(small(*inputs("attention")), expected)


def test_attention_without_narrower_heads_stays_as_it_was():
    small, _ = pruned("attention", qkv__weight_at_0__1=keep(3, 1))
    (node,) = [n for n in small.graph.nodes if op_name(n) == "scaled_dot_product_attention"]
    assert bind_arguments(node)["scale"] is None


def test_the_history_survives():
    small, _ = pruned("residual", conv1__weight_at_0=keep(6, 1))
    assert graph_info(small).example_args[0].shape == (2, 3, 8, 8)


# ------------------------------------------------------------------------------------------------------ the self-check


def broken(monkeypatch, op, **faces):
    from dataclasses import replace

    monkeypatch.setitem(registry._RULES, op, replace(registry._RULES[op], **faces))


def test_a_rule_that_forgets_to_resize_is_caught(monkeypatch):
    broken(monkeypatch, "aten::view", resize=None)
    with pytest.raises(VerificationError) as caught:
        pruned("attention", qkv__weight_at_0__1=keep(3, 1))
    assert "view" in str(caught.value)
    assert "bug in graphprune" in str(caught.value)


def test_a_rule_that_resizes_wrongly_is_caught_at_the_node(monkeypatch):
    def off_by_one(resizing, node, arguments):
        arguments["end"] = 3

    class Sliced(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.out = nn.Linear(4, 8), nn.Linear(5, 2)

        def forward(self, x):
            return self.out(self.first(x)[:, :5].relu()).sum(1)

    gm = trace(Sliced(), (torch.randn(3, 4),))
    found = analyze(gm)
    plan = found.plan({found.dimensions[0].name: keep(found.dimensions[0].size, 0, 1)})
    broken(monkeypatch, "aten::slice", resize=off_by_one)
    with pytest.raises(VerificationError) as caught:
        shrink(gm, plan, analysis=found)
    assert "slice" in str(caught.value) or "linear" in str(caught.value)


def test_a_rule_that_types_a_wrong_shape_is_caught_at_once(monkeypatch):
    broken(monkeypatch, "aten::relu", infer=lambda context, node, arguments: context.axes(node.args[0])[::-1])
    with pytest.raises(VerificationError) as caught:
        analyze(traced("residual"))
    text = str(caught.value)
    assert "the rule for aten::relu predicts shape" in text
    assert "node:   relu" in text
    assert "pruning_models.py" in text
