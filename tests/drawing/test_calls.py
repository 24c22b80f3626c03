"""The call tree: runs of nodes by module, without wrappers, also where the trace knows no modules."""

import torch
from torch import fx, nn

from graphprune.drawing.calls import call_tree, parents
from graphprune.drawing.nesting import arrange_calls
from graphprune.tracing.trace import trace


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.act = nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU()

    def forward(self, x):
        return self.act(x + self.second(self.act(self.first(x))))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block(), Block()])

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x * self.blocks[0].first(x)


def drawn_nodes(gm: fx.GraphModule) -> list[fx.Node]:
    return [node for node in gm.graph.nodes if node.op != "get_attr"]


def test_calls_are_runs_of_nodes_and_wrappers_are_left_out():
    nodes = drawn_nodes(trace(Model().eval(), (torch.randn(2, 4),)))
    calls = call_tree(nodes)
    assert [call.path for call in calls] == ["", "blocks.0", "blocks.1"]
    assert [call.class_name for call in calls[1:]] == ["Block", "Block"]
    names = [[nodes[child].name for child in call.children] for call in calls[1:]]
    assert [len(run) for run in names] == [5, 5]
    # the last call of a linear layer is one node: the layer is drawn as that node, beside the blocks
    assert sum(child < len(nodes) for child in calls[0].children) == 4


def test_every_node_is_in_one_call_and_calls_are_consecutive():
    nodes = drawn_nodes(trace(Model().eval(), (torch.randn(2, 4),)))
    calls = call_tree(nodes)
    parent = parents(calls)
    assert set(range(len(nodes))) <= set(parent)
    for call in calls:
        assert call.children == sorted(call.children, key=lambda child: first_node(child, calls, len(nodes)))


def first_node(number: int, calls, count: int) -> int:
    by_identity = {call.identity: call for call in calls}
    while number >= count:
        number = by_identity[number].children[0]
    return number


def test_paths_of_parameters_stand_in_for_unknown_modules():
    gm = trace(Model().eval(), (torch.randn(2, 4),))
    for node in gm.graph.nodes:
        node.meta.pop("nn_module_stack", None)
    paths = [call.path for call in call_tree(drawn_nodes(gm))]
    assert paths[0] == "" and {"blocks", "blocks.0.first"} <= set(paths)


def test_edges_are_cut_at_the_borders_of_calls():
    nodes = drawn_nodes(trace(Model().eval(), (torch.randn(2, 4),)))
    calls = call_tree(nodes)
    number = {node: position for position, node in enumerate(nodes)}
    edges = [(number[s], number[n]) for n in nodes for s in n.all_input_nodes if s in number]
    inside = arrange_calls(calls, edges)[calls[1].identity]
    assert [kind for kind, _ in inside.items] == ["in", *["child"] * 5, "out"]
    assert inside.items[0] == ("in", 0)  # the placeholder
