"""Taylor, SNIP and Fisher against autograd on the eager model."""

import pytest
import torch

from graphprune.criteria import Criterion, Fisher, Gradient, Taylor
from graphprune.errors import PassError
from graphprune.tracing.trace import trace
from tests.small_models import conv_net, cross_entropy, texture_batches

PATHS = ["conv1.weight", "conv2.weight", "bn1.weight", "head.weight", "head.bias"]


def eager_gradients(model, batches):
    """Return one dictionary of gradients for each batch, by plain ``backward``."""
    gradients = []
    for batch in batches:
        model.zero_grad()
        cross_entropy(model(batch[0]), batch).backward()
        gradients.append({name: value.grad.clone() for name, value in model.named_parameters()})
    model.zero_grad()
    return gradients


@pytest.fixture(scope="module")
def setting():
    batches = texture_batches(3)
    model = conv_net()
    return trace(conv_net(), (batches[0][0],)), model, batches, eager_gradients(model, batches)


def test_taylor_is_weight_times_mean_gradient_with_its_sign(setting):
    gm, model, batches, gradients = setting
    saliency = Taylor(batches, cross_entropy).saliency(gm, PATHS)
    for path in PATHS:
        mean = torch.stack([g[path] for g in gradients]).mean(0)
        torch.testing.assert_close(saliency[path], model.get_parameter(path).detach() * mean, rtol=1e-4, atol=1e-7)
    assert (saliency["conv1.weight"] < 0).any()
    unit = saliency["conv1.weight"].sum((1, 2, 3))
    assert torch.equal(Taylor(batches, cross_entropy).finish(unit), unit.abs())


def test_taylor_predicts_the_change_of_the_loss(setting):
    gm, _, batches, _ = setting
    saliency = Taylor(batches[:1], cross_entropy).saliency(gm, ["head.weight"])["head.weight"]
    with torch.no_grad():
        before = cross_entropy(gm(batches[0][0]), batches[0])
        weight = gm.get_parameter("head.weight")
        original = weight.clone()
        weight.mul_(1 - 1e-3)
        after = cross_entropy(gm(batches[0][0]), batches[0])
        weight.copy_(original)
    torch.testing.assert_close((before - after) / 1e-3, saliency.sum(), rtol=2e-2, atol=1e-3)


def test_snip_is_the_absolute_product(setting):
    gm, model, batches, gradients = setting
    saliency = Gradient(batches, cross_entropy, batches=1).saliency(gm, PATHS)
    for path in PATHS:
        expected = (model.get_parameter(path).detach() * gradients[0][path]).abs()
        torch.testing.assert_close(saliency[path], expected, rtol=1e-4, atol=1e-7)


def test_fisher_averages_squared_gradients_of_batches(setting):
    gm, model, batches, gradients = setting
    saliency = Fisher(batches, cross_entropy).saliency(gm, PATHS)
    for path in PATHS:
        mean_square = torch.stack([g[path].square() for g in gradients]).mean(0)
        expected = 0.5 * model.get_parameter(path).detach().square() * mean_square
        torch.testing.assert_close(saliency[path], expected, rtol=1e-4, atol=1e-9)


def test_frozen_parameters_are_scored_too(setting):
    gm, _, batches, _ = setting
    weight = gm.get_parameter("conv1.weight").requires_grad_(False)
    saliency = Taylor(batches, cross_entropy).saliency(gm, ["conv1.weight"])["conv1.weight"]
    assert saliency.abs().sum() > 0
    assert not weight.requires_grad
    weight.requires_grad_(True)


def test_parameter_the_loss_does_not_reach_gets_zeros(setting):
    gm, _, batches, _ = setting

    def first_class_bias(output, batch):
        return output[:, 0].sum() + 0 * batch[1].sum()

    saliency = Gradient(batches, first_class_bias).saliency(gm, ["head.bias"])["head.bias"]
    assert saliency[0] > 0 and not saliency[1:].any()


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda output, batch: output, "not a scalar"),
        (lambda output, batch: 0.5, "not a scalar but float"),
        (lambda output, batch: output.sum() * torch.inf, "is -?inf"),
        (lambda output, batch: output.detach().sum(), "does not depend"),
    ],
)
@pytest.mark.parametrize("criterion", [Taylor, Gradient, Fisher])
def test_a_bad_loss_is_named(setting, loss, message, criterion: type[Criterion]):
    gm, _, batches, _ = setting
    with pytest.raises(PassError, match=message):
        criterion(batches, loss).saliency(gm, PATHS)  # pyright: ignore[reportCallIssue]
