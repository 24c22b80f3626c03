"""Traced graphs train like modules, and pruned weights stay zero while they do."""

import copy

import pytest
import torch
from torch import fx, nn
from torch.nn import functional

from graphprune.errors import MaskError
from graphprune.graph import copy_graph_module, get_attribute, graph_info
from graphprune.passes import PruneChannels, PruneWeights
from graphprune.tracing.trace import trace
from graphprune.training import MaskKeeper, eval_mode, hold_masks, train_mode
from tests.small_models import accuracy, conv_net, cross_entropy, texture_batches, traced_conv_net

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-2),
    "adam": lambda p: torch.optim.Adam(p, lr=2e-2, weight_decay=1e-2),
    "adamw": lambda p: torch.optim.AdamW(p, lr=2e-2, weight_decay=1e-1),
}


def masked_weights_are_zero(gm, masks):
    return all(not get_attribute(gm, path)[~mask].any() for path, mask in masks.items())


def one_step(gm, optimizer, batch):
    optimizer.zero_grad()
    loss = cross_entropy(gm(batch[0]), batch)
    loss.backward()
    optimizer.step()
    return float(loss.detach())


def test_training_a_traced_graph_equals_training_the_module():
    """Same gradients, same running statistics, step by step; drop-out off since its numbers differ in order."""
    model, batches = conv_net(), texture_batches(4)
    model.dropout.p = 0.0
    gm = trace(copy.deepcopy(model), (batches[0][0],))
    model.train()
    gm.train()
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9) for m in (model, gm)]
    for batch in batches:
        for m, optimizer in zip((model, gm), optimizers, strict=True):
            one_step(m, optimizer, batch)
    expected = model.state_dict()
    for name, value in gm.state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=name)
    model.eval()
    gm.eval()
    torch.testing.assert_close(gm(batches[0][0]), model(batches[0][0]))


@pytest.mark.parametrize("make", [traced_conv_net, lambda: copy_graph_module(traced_conv_net()), "pass"])
def test_train_and_eval_switch_drop_out_and_batch_norm(make):
    gm = PruneWeights(sparsity=0.5)(traced_conv_net()) if make == "pass" else make()
    x = torch.randn(8, 4, 8, 8)
    before, statistics = gm(x), gm.get_buffer("bn1.running_mean").clone()
    assert gm.train() is gm and gm.training
    assert not torch.equal(gm(x), gm(x))
    assert not torch.equal(gm.get_buffer("bn1.running_mean"), statistics)
    gm.get_buffer("bn1.running_mean").copy_(statistics)
    gm.eval()
    assert not gm.training
    assert torch.equal(gm(x), gm(x))
    assert not torch.equal(gm(x), before)  # the second norm's statistics have moved


def test_frozen_batch_norm_keeps_its_statistics_while_drop_out_is_active():
    gm = train_mode(traced_conv_net(), freeze_batch_norm=True)
    x, statistics = torch.randn(8, 4, 8, 8), gm.get_buffer("bn1.running_var").clone()
    assert not torch.equal(gm(x), gm(x))
    assert torch.equal(gm.get_buffer("bn1.running_var"), statistics)


def test_norms_without_running_statistics_are_not_flipped():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.batch = nn.BatchNorm2d(3, track_running_stats=False)
            self.instance = nn.InstanceNorm2d(3, affine=True)
            self.tracking = nn.InstanceNorm2d(3, track_running_stats=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.tracking(self.instance(self.batch(x)))

    torch.manual_seed(0)
    model, x = Model().eval(), torch.randn(4, 3, 5, 5) + 2
    gm = trace(copy.deepcopy(model), (x,))
    torch.testing.assert_close(gm(x), model(x))
    torch.testing.assert_close(gm.train()(x), model.train()(x))
    torch.testing.assert_close(gm.eval()(x), model.eval()(x))
    torch.testing.assert_close(gm.get_buffer("tracking.running_mean"), model.tracking.running_mean)


def test_recurrent_and_attention_drop_out():
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 8, num_layers=2, dropout=0.5, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y, _ = self.lstm(x)
            return functional.scaled_dot_product_attention(y, y, y, dropout_p=0.3)

    torch.manual_seed(0)
    x = torch.randn(2, 5, 4)
    gm = trace(Recurrent(), (x,))
    assert torch.equal(gm(x), gm(x))  # drop-out that the code asks for always is off in evaluation too
    gm.train()
    assert not torch.equal(gm(x), gm(x))
    [attention] = [node for node in gm.graph.nodes if "scaled_dot" in node.name]
    assert attention.args[4] == 0.3
    gm.eval()
    assert torch.equal(gm(x), gm(x))


def test_modes_of_a_graph_that_export_made_itself():
    x = torch.randn(8, 4, 8, 8)
    exported = torch.export.export(conv_net(), (x,)).module(check_guards=False)
    assert isinstance(exported, fx.GraphModule)
    before = exported(x)
    train_mode(exported)
    assert exported.training and not torch.equal(exported(x), exported(x))
    eval_mode(exported)
    assert not exported.training and exported(x).shape == before.shape


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_pruned_weights_stay_zero_through_fine_tuning(name):
    batches = texture_batches(4) * 6
    gm = PruneWeights(sparsity=0.7)(traced_conv_net(width=32))
    masks = dict(graph_info(gm).weight_masks)
    gm.train()
    optimizer = OPTIMIZERS[name](gm.parameters())
    losses = []
    with hold_masks(gm, optimizer):
        for batch in batches:
            losses.append(one_step(gm, optimizer, batch))
            assert masked_weights_are_zero(gm, masks)
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4])
    assert all(get_attribute(gm, path)[mask].all() for path, mask in masks.items())


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("known", [True, False])
def test_momentum_from_before_the_pruning_revives_nothing(name, known):
    batches = texture_batches(8)
    gm = traced_conv_net().train()
    optimizer = OPTIMIZERS[name](gm.parameters())
    for batch in batches[:4]:
        one_step(gm, optimizer, batch)
    gm.train()
    masks, _ = PruneWeights(sparsity=0.8).choose_masks(gm)
    keeper = MaskKeeper(gm, *([optimizer] if known else []))
    keeper.update(masks)
    for batch in batches[4:]:
        one_step(gm, optimizer, batch)
        if known:
            assert masked_weights_are_zero(gm, masks)
        assert all(not gm.state_dict()[path][~mask].any() for path, mask in masks.items())
    assert masked_weights_are_zero(keeper.finalize(), masks)
    if known:
        state = optimizer.state[get_attribute(gm, "conv2.weight")]
        averages = [value for value in state.values() if isinstance(value, torch.Tensor) and value.dim() == 4]
        assert averages and all(not value[~masks["conv2.weight"]].any() for value in averages)


def test_an_optimiser_that_moves_weights_without_gradients_revives_nothing():
    class Noisy(torch.optim.SGD):
        def step(self, closure=None):
            super().step(closure)
            with torch.no_grad():
                for group in self.param_groups:
                    for parameter in group["params"]:
                        parameter.add_(0.01)

    gm = PruneWeights(sparsity=0.7)(traced_conv_net()).train()
    optimizer = Noisy(gm.parameters(), lr=0.01)
    with hold_masks(gm, optimizer):
        one_step(gm, optimizer, texture_batches(1)[0])
        assert masked_weights_are_zero(gm, graph_info(gm).weight_masks)


def test_without_a_keeper_weights_do_revive():
    """What the keeper is for: this is the control of the tests above."""
    gm = PruneWeights(sparsity=0.7)(traced_conv_net()).train()
    masks = graph_info(gm).weight_masks
    optimizer = OPTIMIZERS["sgd"](gm.parameters())
    one_step(gm, optimizer, texture_batches(1)[0])
    assert not masked_weights_are_zero(gm, masks)


def test_finalising_removes_every_hook():
    gm = PruneWeights(sparsity=0.7)(traced_conv_net()).train()
    optimizer = OPTIMIZERS["sgd"](gm.parameters())
    keeper = hold_masks(gm, optimizer)
    assert keeper.finalize() is gm
    assert not gm._forward_pre_hooks and not gm._state_dict_pre_hooks and not optimizer._optimizer_step_post_hooks
    keeper.finalize()
    one_step(gm, optimizer, texture_batches(1)[0])
    assert not masked_weights_are_zero(gm, graph_info(gm).weight_masks)


def test_masks_are_released_when_training_fails():
    gm = PruneWeights(sparsity=0.7)(traced_conv_net()).train()
    with pytest.raises(KeyboardInterrupt), hold_masks(gm):
        raise KeyboardInterrupt
    assert not gm._forward_pre_hooks


def test_two_forwards_may_share_a_backward():
    gm = PruneWeights(sparsity=0.5)(traced_conv_net())
    (x, _), (y, _) = texture_batches(2)
    with hold_masks(gm):
        (gm(x) - gm(y)).square().sum().backward()
    mask = graph_info(gm).weight_masks["conv1.weight"]
    grad = gm.get_parameter("conv1.weight").grad
    assert grad is not None and grad[mask].any() and not grad[~mask].any()


@pytest.mark.parametrize("mask", [torch.ones(16, 4, 3), torch.ones(16, 4, 3, 3), torch.ones(4, 16, 3, 3).bool()])
def test_a_mask_that_does_not_fit_is_an_error(mask):
    with pytest.raises(MaskError, match=r"mask of conv1\.weight"):
        hold_masks(traced_conv_net()).update({"conv1.weight": mask})


def test_masks_shrink_with_the_channels_and_hold_in_the_smaller_graph():
    batches = texture_batches(3)
    pruned = PruneWeights(sparsity=0.6)(traced_conv_net())
    small = PruneChannels(ratio=0.5)(pruned).train()
    masks = graph_info(small).weight_masks
    assert masks["conv1.weight"].shape == small.get_parameter("conv1.weight").shape == (8, 4, 3, 3)
    assert masked_weights_are_zero(small, masks)
    optimizer = OPTIMIZERS["sgd"](small.parameters())
    with hold_masks(small, optimizer):
        for batch in batches:
            one_step(small, optimizer, batch)
    assert masked_weights_are_zero(small, masks) and not any(bool(mask.all()) for mask in masks.values())


def test_half_of_the_weights_can_go_without_loss_of_accuracy():
    train, test = texture_batches(60, batch=16), texture_batches(10, batch=16, seed=99)
    gm = traced_conv_net(batch=16).train()
    optimizer = torch.optim.Adam(gm.parameters(), lr=3e-3)
    for batch in train:
        one_step(gm, optimizer, batch)
    dense = accuracy(gm.eval(), test)
    pruned = PruneWeights(sparsity=0.5)(gm).train()
    optimizer = torch.optim.Adam(pruned.parameters(), lr=1e-3)
    with hold_masks(pruned, optimizer):
        for batch in train[:30]:
            one_step(pruned, optimizer, batch)
    assert dense > 0.9
    assert accuracy(pruned.eval(), test) > dense - 0.05
