"""Tracing: every kind of model and input gives a graph that computes the same, in few spellings."""

import copy
import dataclasses
from typing import Any, NamedTuple

import pytest
import torch
from torch import fx, nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves

from graphprune.errors import TraceError
from graphprune.graph import copy_graph_module, graph_info
from graphprune.propagation import propagate_fake
from graphprune.tracing.trace import trace
from tests.small_models import conv_net

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


class Function(nn.Module):
    """A module with one linear layer that runs a given function of itself and the inputs."""

    def __init__(self, function, **attributes: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(4, 4)
        self.function = function
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, *args, **kwargs):
        return self.function(self, *args, **kwargs)


def check(model: nn.Module, args: tuple = (X,), kwargs: dict[str, Any] | None = None, **options: Any) -> fx.GraphModule:
    """Trace a model; require that the graph, its copy and its re-export compute and return what the model does."""
    kwargs = kwargs or {}
    expected = model.eval()(*copy.deepcopy(args), **copy.deepcopy(kwargs))
    gm = trace(model, args, kwargs, **options)
    again = torch.export.export(gm, args, kwargs, strict=False).module(check_guards=False)
    for made in (gm, copy_graph_module(gm), again):
        result = made(*copy.deepcopy(args), **copy.deepcopy(kwargs))
        assert type(result) is type(expected)
        assert len(tree_leaves(result)) == len(tree_leaves(expected))
        for value, wanted in zip(tree_leaves(result), tree_leaves(expected), strict=True):
            torch.testing.assert_close(value, wanted)
    assert all("val" in node.meta for node in gm.graph.nodes if node.op == "call_function")
    propagate_fake(copy_graph_module(gm))
    return gm


def ops(gm: fx.GraphModule) -> list[str]:
    return [str(node.target).removeprefix("aten.") for node in gm.graph.nodes if node.op == "call_function"]


def test_modules_symbolic_graphs_and_exported_programs_give_the_same_graph():
    model = conv_net()
    x = torch.randn(2, 4, 8, 8)
    from_module = check(model, (x,))
    from_symbolic = check(fx.symbolic_trace(model), (x,))
    from_program = trace(torch.export.export(model, (x,), strict=False))
    from_unlifted = trace(torch.export.export(model, (x,), strict=False).module(), (x,))  # type: ignore[arg-type]
    for gm in (from_symbolic, from_program, from_unlifted):
        assert ops(gm) == ops(from_module)
        assert list(gm.state_dict()) == list(from_module.state_dict())
        torch.testing.assert_close(gm(x), model(x))


def test_a_program_exported_for_training_is_traced_to_evaluation():
    model = conv_net().train()
    x = torch.randn(2, 4, 8, 8)
    gm = trace(torch.export.export(model, (x,), strict=False))
    torch.testing.assert_close(gm(x), model.eval()(x))


def test_parameters_are_shared_with_the_model_and_named_alike():
    model = conv_net().train()
    gm = trace(model, (torch.randn(2, 4, 8, 8),))
    assert model.training and model.bn1.training and not gm.training
    for name, parameter in model.named_parameters():
        assert gm.get_parameter(name) is parameter
    assert trace(gm, ()) is gm


def test_a_graph_in_training_is_traced_to_evaluation_and_goes_on_training():
    gm = trace(conv_net(), (torch.randn(2, 4, 8, 8),))
    x = torch.randn(2, 4, 8, 8)
    expected = gm(x)
    gm.train()
    evaluating = trace(gm)
    torch.testing.assert_close(evaluating(x), expected)
    assert evaluating.get_parameter("conv1.weight") is gm.get_parameter("conv1.weight")
    assert gm.training and not torch.equal(gm(x), gm(x))


def test_modes_of_submodules_are_restored():
    model = conv_net().train()
    model.bn2.eval()
    trace(model, (torch.randn(2, 4, 8, 8),))
    assert model.training and model.bn1.training and not model.bn2.training


class Pair(NamedTuple):
    first: torch.Tensor
    second: torch.Tensor


@dataclasses.dataclass
class Unregistered:
    value: torch.Tensor


@dataclasses.dataclass
class Registered:
    value: torch.Tensor
    count: int


torch.export.register_dataclass(Registered, serialized_type_name="tests.test_trace.Registered")


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: (m.linear(x), None, 3),
        lambda m, x: {"y": m.linear(x), "nested": [x + 1, (x,)]},
        lambda m, x: Pair(m.linear(x), x),
        lambda m, x: Registered(m.linear(x), 2),
        lambda m, x: m.linear.weight,
        lambda m, x: [x],
    ],
)
def test_outputs_keep_their_structure(function):
    check(Function(function))


def test_transformers_outputs_keep_their_class():
    modeling = pytest.importorskip("transformers.modeling_outputs")
    check(Function(lambda m, x: modeling.BaseModelOutput(last_hidden_state=m.linear(x))))


def test_inputs_by_keyword_and_in_structures():
    def function(m, pair, *, scale=None, options=None):
        y = m.linear(pair["a"]) + pair["b"][0]
        return y * scale if options["double"] else y

    check(Function(function), ({"a": X, "b": [X]},), {"scale": X, "options": {"double": True}})


def test_dynamic_batch():
    model = Function(lambda m, x: m.linear(x).reshape(x.shape[0] * 2, 2).sum(0) / x.shape[0])
    gm = check(model, dynamic_shapes=(({0: torch.export.Dim.DYNAMIC},),))
    x = torch.randn(7, 4)
    torch.testing.assert_close(gm(x), model(x))
    assert graph_info(gm).dynamic_shapes is not None


def test_a_dynamic_batch_survives_splits_and_writes():
    def function(m, x):
        a, b = m.linear(x).chunk(2, -1)
        y = torch.cat([b, a], -1) * 1
        y[:, 0] = x[:, 1]
        return y.relu_()

    model = Function(function)
    gm = check(model, dynamic_shapes=(({0: torch.export.Dim.DYNAMIC},),))
    x = torch.randn(7, 4)
    torch.testing.assert_close(gm(x), model(x))


@pytest.mark.parametrize(
    ("function", "sizes"),
    [
        (lambda m, x: m.linear(x).chunk(2, -1), [2, 2]),
        (lambda m, x: functional.pad(x, (0, 1)).chunk(3, -1), [2, 2, 1]),
        (lambda m, x: m.linear(x).split(3, 1), [3, 1]),
        (lambda m, x: m.linear(x).split([1, 3], 1), [1, 3]),
        (lambda m, x: torch.tensor_split(m.linear(x), 3, 1), [2, 1, 1]),
    ],
)
def test_every_way_to_split_becomes_one(function, sizes):
    gm = check(Function(lambda m, x: list(function(m, x))))
    [split] = [node for node in gm.graph.nodes if "split" in str(node.target)]
    assert split.target is torch.ops.aten.split_with_sizes.default
    assert list(split.args[1]) == sizes


def no_grad_part(m, x):
    with torch.no_grad():
        y = m.linear(x)
        with torch.enable_grad():
            z = m.linear(y)
    return m.linear(z) + y


@torch.no_grad()
def no_grad_whole(m, x):
    return m.linear(x), x.detach() * 2


def detached(m, x):
    return m.linear(x).detach() + m.linear(x)


def constant_in_region(m, x):
    with torch.no_grad():
        return m.linear(x) + torch.tensor([1.0, 2.0, 3.0, 4.0])


@pytest.mark.parametrize("function", [no_grad_part, no_grad_whole, detached, constant_in_region])
def test_regions_without_gradients_are_inlined(function):
    gm = check(Function(function))
    assert not [op for op in ops(gm) if "wrap" in op or "detach" in op or "lift" in op]


def under_autocast(m, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = functional.layer_norm(m.linear(x), [4])
        y = functional.scaled_dot_product_attention(y[None], y[None], x[None])
        with torch.autocast("cpu", enabled=False):
            y = m.linear(y.float())
        z = torch.cat([y, m.linear(y)], -1)
        return z, torch.einsum("bij,bkj->bik", y, y), functional.softmax(m.linear(y), -1), y.exp()


def autocast_without_effect(m, x):
    with torch.autocast("cpu", enabled=False):
        return m.linear(x)


def autocast_around_control_flow(m, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = m.linear(x)
        z = torch.cond(x.sum() > 0, lambda v: v + 1, lambda v: v - 1, (y,))
        return y, y.float(), y.t() @ x, z


@pytest.mark.parametrize("function", [under_autocast, autocast_without_effect, autocast_around_control_flow])
def test_casts_of_autocast_are_written_out(function):
    gm = check(Function(function))
    assert not [op for op in ops(gm) if "autocast" in op]
    dtypes = {node.meta["val"].dtype for node in gm.graph.nodes if "linear" in str(node.target)}
    assert (torch.bfloat16 in dtypes) == (function is not autocast_without_effect)


def test_parametrised_weights_and_masks_of_torch():
    from torch.nn.utils import parametrizations, prune

    model = nn.Sequential(
        parametrizations.weight_norm(nn.Linear(4, 4)), parametrizations.spectral_norm(nn.Linear(4, 4))
    )
    check(model)
    masked = nn.Linear(4, 4)
    prune.l1_unstructured(masked, "weight", 0.5)
    check(masked)


def test_recurrent_and_attention_modules():
    check(nn.LSTM(4, 5, 2).eval(), (torch.randn(2, 3, 4),))
    check(nn.MultiheadAttention(8, 2, batch_first=True), (torch.randn(2, 3, 8),) * 3)


def test_unused_parameters_are_left_out_and_tied_ones_stay_tied():
    model = Function(lambda m, x: m.second(m.linear(x)), second=nn.Linear(4, 4), unused=nn.Linear(4, 4))
    model.second.weight = model.linear.weight
    gm = copy_graph_module(check(model))
    assert not [name for name in gm.state_dict() if "unused" in name]
    weights = [node.target for node in gm.graph.nodes if node.op == "get_attr" and "weight" in node.name]
    assert len({id(gm.get_parameter(str(path))) for path in weights}) == 1


def test_models_without_values():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        gm = trace(model, (torch.randn(3, 4),))
    assert gm.get_parameter("0.weight").is_meta
    assert list(gm.graph.nodes)[-2].meta["val"].shape == (3, 2)


def test_frozen_parameters_stay_frozen():
    model = conv_net()
    model.conv1.weight.requires_grad_(False)
    gm = copy_graph_module(trace(model, (torch.randn(2, 4, 8, 8),)))
    assert not gm.get_parameter("conv1.weight").requires_grad
    assert gm.get_parameter("conv2.weight").requires_grad


def test_buffers_that_the_model_updates_are_updated():
    def count(m, x):
        m.steps.add_(1)
        return m.linear(x) * m.steps

    model = Function(count)
    model.register_buffer("steps", torch.zeros(1))
    gm = copy_graph_module(trace(model, (X,)))
    gm(X)
    gm(X)
    assert gm.get_buffer("steps") == 2 and model.steps == 0


def branch_on_data(m, x):
    return m.linear(x) if x.sum() > 0 else x


@pytest.mark.parametrize(
    ("model", "args", "message"),
    [
        (conv_net(), (torch.randn(2, 3, 8, 8),), "could not trace ConvNet"),
        (conv_net(), (), "could not trace ConvNet"),
        (conv_net(), torch.randn(2, 4, 8, 8), r"must be a tuple, got Tensor\n.*with the comma"),
        (Function(branch_on_data), (X,), "could not trace Function"),
        (Function(lambda m, x: Unregistered(m.linear(x))), (X,), "hint:.*register_dataclass.*tensors only"),
        (functional.relu, (X,), "cannot trace a function"),
    ],
)
def test_what_cannot_be_traced_is_named(model, args, message):
    modes = [module.training for module in model.modules()] if isinstance(model, nn.Module) else []
    with pytest.raises(TraceError, match=f"(?s){message}"):
        trace(model, args)
    if isinstance(model, nn.Module):
        assert modes == [module.training for module in model.modules()]


def test_a_graph_not_made_by_trace_has_no_info():
    with pytest.raises(TraceError, match="not traced by graphprune"):
        graph_info(fx.symbolic_trace(conv_net()))
