"""A batch size left open when tracing stays open through pruning."""

import torch
from torch import nn

import graphprune
from graphprune.passes import PruneChannels


def test_pooling_does_not_fix_the_batch_size():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.ZeroPad2d((1, 2, 0, 0)),
        nn.Conv2d(1, 8, (1, 4)),
        nn.BatchNorm2d(8),
        nn.MaxPool2d((1, 2)),
        nn.Flatten(),
        nn.Linear(64, 3),
    ).eval()
    batch = torch.export.Dim("batch", min=2, max=64)
    small = graphprune.prune(
        model,
        PruneChannels(ratio=0.5),
        example_inputs=(torch.randn(4, 1, 1, 16),),
        dynamic_shapes={"input": {0: batch}},
    )
    for count in (2, 5):
        assert small(torch.randn(count, 1, 1, 16)).shape == (count, 3)
