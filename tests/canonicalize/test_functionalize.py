"""In-place ops become functional: chosen cases, and random programs of views and writes against eager."""

import copy

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import fx, nn

from graphprune.tracing.trace import trace


def is_functional(gm: fx.GraphModule) -> bool:
    schemas = [getattr(node.target, "_schema", None) for node in gm.graph.nodes if node.op == "call_function"]
    return not any(schema is not None and schema.is_mutable for schema in schemas)


class Program(nn.Module):
    """A linear layer followed by a given function."""

    def __init__(self, function) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(6, 6)
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.linear(x) * 1.0, x)


def check(function, functional: bool = True) -> fx.GraphModule:
    """Trace a program, compare it with eager on new data, and return the graph."""
    torch.manual_seed(1)
    x, other = torch.randn(4, 6), torch.randn(4, 6)
    model = Program(function).eval()
    gm = trace(model, (x,))
    with torch.no_grad():
        torch.testing.assert_close(gm(other.clone()), model(other.clone()), equal_nan=True)
    assert is_functional(gm) == functional
    return gm


def write_column(y, x):
    y[:, 0] = 1.0
    return y


def write_block_from_input(y, x):
    y[1:3, ::2] = x[:2, :3]
    return y * 2


def earlier_view_sees_a_later_write(y, x):
    view = y[:, :2]
    y.relu_()
    return view + 1


def write_through_two_views(y, x):
    y.view(2, 2, 6).transpose(0, 1)[1].mul_(3)
    return y


def sibling_views(y, x):
    a, b = y[:3], y[1:]
    a.add_(1)
    b.mul_(2)
    a.sub_(x[:3])
    return torch.cat([a, b, y])


def result_of_an_in_place_op_is_the_same_tensor(y, x):
    z = y.add_(1)
    y.mul_(2)
    return z


def fresh_mask(y, x):
    mask = torch.zeros(4, 6)
    mask[0] = 1
    mask[:, 1:3] += x[:, :2]
    return y + mask


def shape_changing(y, x):
    y.unsqueeze_(0).squeeze_()
    y.t_()
    y.add_(1)
    return y


def lower_precision_target(y, x):
    z = y.half()
    z += x
    return z.float()


def random_drop_out_in_place(y, x):
    return nn.functional.dropout(y.reshape(24), 0.5, training=False, inplace=True)


def assignment_where(y, x):
    y[x > 0] = 0
    return y


@pytest.mark.parametrize(
    "function",
    [
        write_column,
        write_block_from_input,
        earlier_view_sees_a_later_write,
        write_through_two_views,
        sibling_views,
        result_of_an_in_place_op_is_the_same_tensor,
        fresh_mask,
        shape_changing,
        lower_precision_target,
        random_drop_out_in_place,
        assignment_where,
    ],
)
def test_cases(function):
    check(function)


def write_spectrum(y, x):
    spectrum = torch.zeros(4, 4, dtype=torch.cfloat)
    spectrum[:2, :2] = torch.fft.rfft(y)[:2, :2].conj()
    spectrum[3] = torch.view_as_complex(y[:, :2])
    return torch.fft.irfft(spectrum, n=6)


def write_broadcast_row(y, x):
    z = torch.zeros_like(y)
    z[:, 1:4] = y[:1, 2:5]
    z[-1].copy_(y.double().sum(0))
    return z * y


@pytest.mark.parametrize("function", [write_spectrum, write_broadcast_row, write_block_from_input])
def test_writes_have_gradients(function):
    gm = check(function)
    x, model = torch.randn(4, 6), Program(function)
    gm(x).square().sum().backward()
    model(x).square().sum().backward()
    torch.testing.assert_close(gm.get_parameter("linear.weight").grad, model.linear.weight.grad)


def test_a_view_that_may_be_a_copy_is_left_alone_where_it_matters():
    def function(y, x):
        flat = y.reshape(24)
        y.add_(1)
        return flat * 2

    check(function, functional=False)


def test_writes_to_an_input_are_seen_by_the_caller():
    def function(y, x):
        x.add_(1)
        return y

    gm = check(function, functional=False)
    x = torch.zeros(4, 6)
    gm(x)
    assert torch.equal(x, torch.ones(4, 6))


VIEWS = {
    "rows": lambda t: t[1:],
    "row": lambda t: t[0],
    "every_other": lambda t: t[..., ::2],
    "transpose": lambda t: t.transpose(0, -1),
    "unsqueeze": lambda t: t.unsqueeze(0),
    "squeeze": lambda t: t.squeeze(0),
    "permute": lambda t: t.permute(*range(t.dim())[::-1]),
    "half": lambda t: t.chunk(2, 0)[0],
    "unbind": lambda t: t.unbind(0)[-1],
}
WRITES = {
    "add": lambda t, x: t.add_(1.5),
    "mul": lambda t, x: t.mul_(2),
    "relu": lambda t, x: t.relu_(),
    "copy": lambda t, x: t.copy_(x.sum()),
    "set": lambda t, x: t.__setitem__(0, x[0, 0]),
    "masked": lambda t, x: t.masked_fill_(t > 0, 0.25),
}
STEP = st.tuples(st.sampled_from([*VIEWS, *WRITES, "read"]), st.integers(0, 9))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEP, min_size=2, max_size=9))
def test_random_programs_of_views_writes_and_reads(steps):
    def function(y, x):
        values, results = [y], [y.sum()]
        for name, which in steps:
            target = values[which % len(values)]
            if name in VIEWS and target.dim() and target.shape[0] > 1:
                values.append(VIEWS[name](target))
            elif name in WRITES and target.dim():
                WRITES[name](target, x)
            else:
                results.append(target.flatten().sum())
        return torch.stack(results + [value.sum() for value in values])

    torch.manual_seed(1)
    x = torch.randn(4, 6)
    model = Program(function).eval()
    with torch.no_grad():
        expected = copy.deepcopy(model)(x)
        gm = trace(model, (x,))
        torch.testing.assert_close(gm(x), expected)
        for node in gm.graph.nodes:
            assert "val" in node.meta or node.op == "output", node.name
