"""The table of rules: one for each op, all of them ops that exist."""

import importlib

import pytest
import torch

from graphprune.rules import registry, supported_ops
from graphprune.rules.equation import equation


def nothing(context, node, arguments):
    """Say nothing"""
    return []


def test_a_second_rule_for_an_op_is_refused():
    with pytest.raises(ValueError, match="two rules for aten::linear: contraction and test_registry"):
        registry.rule("linear")(nothing)
    with pytest.raises(ValueError, match="two rules for aten::conv2d"):
        equation("... i, o i -> ... o", "conv2d", family="test")


def test_a_second_face_for_an_op_is_refused():
    with pytest.raises(ValueError, match="two resize faces for aten::view"):
        registry.resize("view")(nothing)
    with pytest.raises(ValueError, match="two masked faces for aten::layer_norm"):
        registry.masked("layer_norm")(nothing)


def test_a_face_needs_a_rule():
    with pytest.raises(KeyError):
        registry.resize("no_such_op")(nothing)


def test_every_aten_op_exists():
    """A rule under a misspelt name would never run, and the op would be pinned without a word."""
    names = [rule.op.removeprefix("aten::") for rule in supported_ops() if rule.op.startswith("aten::")]
    assert len(names) > 250
    assert [name for name in names if not hasattr(torch.ops.aten, name)] == []


def test_rules_describe_themselves():
    for rule in supported_ops():
        assert rule.description.strip(), rule.op
        assert rule.family in dir(importlib.import_module("graphprune.rules")), rule.family


def test_the_table_is_sorted_and_has_no_duplicates():
    keys = [(rule.family, rule.op) for rule in supported_ops()]
    assert keys == sorted(set(keys))


def test_in_place_ops_share_the_rule_of_their_twin():
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    twin = graph.call_function(torch.ops.aten.relu_.default, (x,))
    special = graph.call_function(torch.ops.aten.__and__.Tensor, (x, x))
    assert registry.rule_name(twin) == "aten::relu"
    assert registry.rule_name(special) == "aten::__and__"
    assert registry.rule_for(twin) is not None
