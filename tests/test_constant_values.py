"""Which values of a graph count as constant, and what they are."""

import pytest
import torch
from torch import Tensor, nn

from graphprune.constant_values import MAX_ELEMENTS, ConstantValues
from graphprune.rules.registry import rule_name
from graphprune.tracing.trace import trace


class Tables(nn.Module):
    """Uses values of every origin, so that each has a node."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6))
        self.register_buffer("table", torch.tensor([4, 0, 2, 1, 5, 3]))
        self.register_buffer("seen", torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        order = torch.cat([self.table.flip(0)[:3] + 1, torch.arange(3)])
        halves = order.split(3)
        noise = torch.rand(6)
        self.seen.add_(x.sum(0))
        return x[:, self.table] * self.weight * self.seen + order + halves[1].sum() + noise * self.weight.sigmoid()


@pytest.fixture(scope="module")
def graph():
    return trace(Tables(), (torch.randn(2, 6),))


def value_of(graph, op: str):
    (node,) = [n for n in graph.graph.nodes if rule_name(n) == f"aten::{op}"]
    return ConstantValues(graph)(node)


def attribute(graph, name: str):
    (node,) = [n for n in graph.graph.nodes if n.op == "get_attr" and n.target == name][:1]
    return ConstantValues(graph)(node)


def test_what_is_computed_from_buffers_and_numbers_is_constant(graph):
    expected = torch.cat([torch.tensor([3, 5, 1]) + 1, torch.arange(3)])
    assert value_of(graph, "cat").tolist() == expected.tolist()
    assert value_of(graph, "arange").tolist() == [0, 1, 2]
    assert attribute(graph, "table").tolist() == [4, 0, 2, 1, 5, 3]


def test_results_of_several_tensors_are_constant_one_by_one(graph):
    nodes = [n for n in graph.graph.nodes if n.op == "call_function" and getattr(n.target, "__name__", "") == "getitem"]
    assert [ConstantValues(graph)(n).tolist() for n in nodes] == [[0, 1, 2]]
    (split,) = [n for n in graph.graph.nodes if "split" in str(n.target)]
    assert ConstantValues(graph)(split) is None, "a list is no tensor"


def test_parameters_are_not(graph):
    assert attribute(graph, "weight") is None
    assert value_of(graph, "sigmoid") is None


def test_inputs_and_random_numbers_are_not(graph):
    (x,) = [n for n in graph.graph.nodes if n.op == "placeholder"]
    assert ConstantValues(graph)(x) is None
    assert value_of(graph, "rand") is None
    assert value_of(graph, "index") is None


def test_buffers_that_are_written_to_are_not(graph):
    written = [n for n in graph.graph.nodes if n.op == "get_attr" and n.target == "seen"]
    assert written and all(ConstantValues(graph)(n) is None for n in written)


def test_nothing_large_or_on_the_meta_device_is_computed():
    class Large(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.arange(MAX_ELEMENTS + 1)[:4]

    gm = trace(Large(), (torch.randn(4),))
    assert value_of(gm, "arange") is None and value_of(gm, "slice") is None

    class OnMeta(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.arange(6, device="meta"))

        def forward(self, x: Tensor) -> Tensor:
            return x[:, self.table]

    assert attribute(trace(OnMeta(), (torch.randn(2, 6, device="meta"),)), "table") is None
