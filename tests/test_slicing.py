"""Cutting tensors by masks: large ones, which are cut a few rows at a time, like small ones."""

import numpy as np
import pytest
import torch

from graphprune import slicing
from graphprune.axes import Axis, KeepMasks
from graphprune.slicing import take_kept


@pytest.mark.parametrize("block", [1, 100, 1 << 20])
@pytest.mark.parametrize("kept", [(0,), (1,), (0, 1), (0, 2), (1, 2), (0, 1, 2)])
def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, block: int, kept: tuple[int, ...]):
    monkeypatch.setattr(slicing, "BLOCK", block)
    tensor = torch.randn(7, 5, 3)
    axes = [Axis(size) for size in tensor.shape]
    masks = {axes[d].identity: np.arange(tensor.shape[d]) % 2 == 0 for d in kept}
    expected = tensor
    for d in kept:
        expected = expected.index_select(d, torch.arange(0, tensor.shape[d], 2))
    assert torch.equal(take_kept(tensor, axes, KeepMasks(masks)), expected)
