"""How data reaches data-driven criteria, and that they leave the model exactly as they found it."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from graphprune.criteria import Fisher, Gradient, Taylor, Wanda
from graphprune.errors import PassError
from graphprune.tracing.trace import trace
from graphprune.training import train_mode
from tests.small_models import cross_entropy, texture_batches, traced_conv_net

PATHS = ["conv1.weight", "head.weight"]


def criteria(data, loss=cross_entropy):
    return [Taylor(data, loss), Gradient(data, loss), Fisher(data, loss), Wanda(data)]


def snapshot(gm):
    """Return everything a criterion could disturb."""
    return {
        "tensors": {name: value.clone() for name, value in [*gm.named_parameters(), *gm.named_buffers()]},
        "grads": {n: None if p.grad is None else p.grad.clone() for n, p in gm.named_parameters()},
        "requires_grad": {name: p.requires_grad for name, p in gm.named_parameters()},
        "modes": {name: module.training for name, module in gm.named_modules()},
        "code": gm.code,
    }


def assert_same(before, after):
    assert before["code"] == after["code"]
    assert before["requires_grad"] == after["requires_grad"]
    assert before["modes"] == after["modes"]
    for name, value in before["tensors"].items():
        assert torch.equal(value, after["tensors"][name]), name
    for name, value in before["grads"].items():
        grad = after["grads"][name]
        assert (value is None) == (grad is None) and (value is None or torch.equal(value, grad)), name


@pytest.mark.parametrize("index", range(4))
def test_model_is_left_bit_identical_even_while_training(index):
    gm = traced_conv_net()
    train_mode(gm, freeze_batch_norm=False)
    gm.get_parameter("conv2.bias").requires_grad_(False)
    gm.get_parameter("conv1.weight").grad = torch.ones(16, 4, 3, 3)
    before = snapshot(gm)
    criteria(texture_batches(2))[index].saliency(gm, PATHS)
    assert_same(before, snapshot(gm))


def test_model_is_restored_when_the_loss_raises():
    gm = train_mode(traced_conv_net())
    before = snapshot(gm)

    def failing(output, batch):
        raise ZeroDivisionError("user's own")

    with pytest.raises(ZeroDivisionError, match="user's own"):
        Taylor(texture_batches(1), failing).saliency(gm, PATHS)
    assert_same(before, snapshot(gm))


def test_batch_norm_runs_on_its_statistics_while_scoring():
    gm, batches = traced_conv_net(), texture_batches(2)
    evaluated = Fisher(batches, cross_entropy).saliency(gm, PATHS)
    trained = Fisher(batches, cross_entropy).saliency(train_mode(gm), PATHS)
    assert torch.equal(evaluated["conv1.weight"], trained["conv1.weight"])


def test_a_data_loader_serves_as_data_and_batches_limits_it():
    x, y = texture_batches(1, batch=24)[0]
    loader = DataLoader(TensorDataset(x, y), batch_size=8)
    gm = traced_conv_net()
    by_loader = Taylor(loader, cross_entropy, batches=2).saliency(gm, PATHS)
    by_list = Taylor([(x[:8], y[:8]), (x[8:16], y[8:16])], cross_entropy).saliency(gm, PATHS)
    assert torch.equal(by_loader["conv1.weight"], by_list["conv1.weight"])


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(
        self, a: torch.Tensor, b: torch.Tensor, *, scale: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        y = self.linear(a + b)
        return {"y": y if scale is None else y * scale}


def test_batches_of_several_inputs_positional_or_named():
    torch.manual_seed(0)
    a, b, scale, labels = torch.randn(3, 4), torch.randn(3, 4), torch.rand(3, 1), torch.randn(3, 2)
    model = TwoInputs().eval()

    def loss(output, batch):
        target = batch["labels"] if isinstance(batch, dict) else batch[1]
        return (output["y"] - target).square().mean()

    def saliency(gm, batch):
        return Taylor([batch], loss).saliency(gm, ["linear.weight"])["linear.weight"]

    positional = trace(model, (a, b))
    reference = saliency(positional, ((a, b), labels))
    assert reference.abs().sum() > 0
    assert torch.equal(saliency(positional, {"labels": labels, "b": b, "a": a}), reference)
    named = trace(model, (), {"a": a, "b": b, "scale": scale})
    by_name = saliency(named, {"scale": scale, "b": b, "a": a, "labels": labels})
    with torch.no_grad():
        model.linear.weight.grad = None
    loss(model(a, b, scale=scale), (None, labels)).backward()
    assert model.linear.weight.grad is not None
    torch.testing.assert_close(by_name, model.linear.weight.detach() * model.linear.weight.grad)
    inputs = {"scale": scale, "a": a, "b": b}
    wanda = Wanda([inputs]).saliency(named, ["linear.weight"])["linear.weight"]
    torch.testing.assert_close(wanda, model.linear.weight.detach().abs() * (a + b).norm(dim=0))


@pytest.mark.parametrize("index", range(4))
def test_no_batches_is_an_error_that_speaks_of_iterators(index):
    used_up = iter(texture_batches(1))
    next(used_up)
    with pytest.raises(PassError, match=r"no batches\n.*iterator is used up"):
        criteria(used_up)[index].saliency(traced_conv_net(), PATHS)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([torch.randn(8, 5, 8, 8)], "model failed on batch 0"),
        (["text"], "holds a str"),
        ([()], "empty sequence"),
        ([{"image": torch.randn(8, 4, 8, 8)}], "lacks the model's inputs x; it has image"),
        (7, "int, not an iterable"),
    ],
)
def test_a_bad_batch_is_named(data, message):
    with pytest.raises(PassError, match=message):
        Wanda(data).saliency(traced_conv_net(), PATHS)


def test_meta_weights_have_no_score():
    with torch.device("meta"):
        gm = trace(nn.Linear(4, 2), (torch.randn(1, 4),))
    with pytest.raises(PassError, match="meta device"):
        Taylor([torch.randn(1, 4)], lambda output, batch: output.sum()).saliency(gm, ["weight"])
