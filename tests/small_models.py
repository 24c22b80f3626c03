"""Small models and data sets that train in seconds, for tests of criteria, sparsity and training."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from graphprune.tracing.trace import trace


class ConvNet(nn.Module):
    """Two convolutions with batch norm, a grouped one, drop-out and a classifier of 8 x 8 images."""

    def __init__(self, classes: int = 4, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(4, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, groups=2)
        self.bn2 = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu_(self.bn2(self.conv2(x)))
        return self.head(self.dropout(x).mean((2, 3)))


def conv_net(seed: int = 0, **options: Any) -> ConvNet:
    """Return an evaluating ConvNet whose norms have drawn scales and statistics rather than ones and zeros."""
    torch.manual_seed(seed)
    model = ConvNet(**options).eval()
    for norm in (model.bn1, model.bn2):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0, 0.2)
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean.normal_(0, 0.2)
        norm.running_var.uniform_(0.5, 1.5)
    return model


def traced_conv_net(seed: int = 0, batch: int = 8, **options: Any) -> fx.GraphModule:
    """Return a traced ConvNet that takes ``[batch, 4, 8, 8]``."""
    return trace(conv_net(seed, **options), (torch.randn(batch, 4, 8, 8),))


def texture_batches(
    count: int, batch: int = 8, classes: int = 4, seed: int = 0
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return batches of noisy images whose class is the pattern in them: stripes, checks and the like."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.randn(classes, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    batches = []
    for _ in range(count):
        target = torch.randint(0, classes, (batch,), generator=generator)
        noise = torch.randn(batch, 4, 8, 8, generator=generator)
        batches.append((patterns[target] + noise, target))
    return batches


def cross_entropy(output: torch.Tensor, batch: Any) -> torch.Tensor:
    """The loss of a classifier on an ``(inputs, targets)`` batch."""
    return functional.cross_entropy(output, batch[1])


def accuracy(model: nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """Return the fraction of examples that ``model`` classifies right."""
    with torch.no_grad():
        right = [(model(x).argmax(1) == y).float().mean() for x, y in batches]
    return float(torch.stack(right).mean())
