"""The layer shapes of real networks, for benchmarks of single kernels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from graphprune.backend.fused_layer import FusedLayer
from graphprune.backend.kernels import ConvShape, Epilogue, Tiled
from graphprune.backend.kernels.contract import NOT_TILED


@dataclass(frozen=True)
class Layer:
    """One layer shape: ``count`` times in the network; ``kernel`` 0 stands for a linear layer on ``size`` tokens.

    ``tiled`` says in which form a sparse layer takes and gives activations there.
    """

    count: int
    out_channels: int
    in_channels: int
    size: int
    kernel: int = 0
    stride: int = 1
    activation: str = "relu"
    tiled: Tiled = NOT_TILED

    def __str__(self) -> str:
        what = f"{self.kernel}x{self.kernel}/{self.stride}" if self.kernel else "linear"
        return f"{what:7} {self.in_channels:5} -> {self.out_channels:5} @ {self.size:3}"

    @property
    def matrix(self) -> tuple[int, int, int]:
        """The layer as a product: output channels, reduction length, positions."""
        positions = (-(-self.size // self.stride)) ** 2 if self.kernel else self.size
        return self.out_channels, self.in_channels * max(self.kernel, 1) ** 2, positions

    def fused(self, sparsity: float, seed: int = 0) -> FusedLayer:
        """Return the layer with random float32 weights, a share ``sparsity`` of them zero."""
        generator = np.random.default_rng(seed)
        shape = (self.out_channels, self.in_channels) + ((self.kernel, self.kernel) if self.kernel else ())
        weight = generator.standard_normal(shape, dtype=np.float32)
        if sparsity:
            weight *= generator.random(shape, dtype=np.float32) >= sparsity
        epilogue = Epilogue(bias=True, activation=self.activation)
        bias = np.ones(self.out_channels, np.float32)
        if not self.kernel:
            return FusedLayer(weight, bias, (self.size, self.in_channels), epilogue)
        x_shape = (1, self.in_channels, self.size, self.size)
        conv = ConvShape(x_shape, (self.stride,) * 2, (self.kernel // 2,) * 2)
        return FusedLayer(weight, bias, x_shape, epilogue, conv)


def resnet50(width: float = 1.0) -> list[Layer]:
    """Return the convolutions of torchvision's ResNet-50, with channels scaled by ``width``.

    The stream between the blocks of a stage is in tiles, if 1x1s are sparse.
    """
    layers = [Layer(1, int(64 * width), 3, 224, 7, 2)]
    inputs, size = 64, 56
    for stage, (base, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)]):
        inner, outer, stride = int(base * width), int(base * 4 * width), 1 if stage == 0 else 2
        previous = int(inputs * width)
        layers += [
            Layer(1, inner, previous, size * stride if stage else size, 1),
            Layer(1, inner, inner, size * stride if stage else size, 3, stride),
            Layer(1, outer, previous, size * stride if stage else size, 1, stride, "none"),
            Layer(blocks - 1, outer, inner, size, 1, tiled=Tiled(out=True)),
            Layer(1, outer, inner, size, 1),
            Layer(blocks - 1, inner, outer, size, 1, tiled=Tiled(x=True)),
            Layer(blocks - 1, inner, inner, size, 3),
        ]
        inputs, size = base * 4, size // 2
    return layers


def transformer(width: int, blocks: int, tokens: int = 128) -> list[Layer]:
    """Return the linear layers of a BERT-like encoder of ``width`` features, in the forms that lowering gives them.

    Queries, keys and values go to attention, and its result comes from there; the rest stays in tiles.
    """
    tiles = tokens > 1
    return [
        Layer(3 * blocks, width, width, tokens, activation="none", tiled=Tiled(x=tiles)),
        Layer(blocks, width, width, tokens, activation="none", tiled=Tiled(residual=tiles, out=tiles)),
        Layer(blocks, 4 * width, width, tokens, activation="gelu", tiled=Tiled(tiles, tiles, tiles)),
        Layer(blocks, width, 4 * width, tokens, activation="none", tiled=Tiled(tiles, tiles, tiles)),
    ]


def feed_forward(width: int, blocks: int, tokens: int) -> list[Layer]:
    """Return the linear layers of ``blocks`` feed-forward blocks of a transformer."""
    return [Layer(blocks, 4 * width, width, tokens, activation="gelu"),
            Layer(blocks, width, 4 * width, tokens, activation="none")]  # fmt: skip


SUITES: dict[str, Callable[[], list[Layer]]] = {
    "resnet50": resnet50,
    "resnet50-half": lambda: resnet50(0.5),
    "minilm": lambda: transformer(384, 6),
    "bert": lambda: transformer(768, 12),
    "minilm-token": lambda: transformer(384, 6, tokens=1),
    "bert-token": lambda: transformer(768, 12, tokens=1),
    "ffn-token": lambda: feed_forward(768, 12, tokens=1),
    "llm-token": lambda: [Layer(1, 4096, 4096, 1, activation="none"), Layer(1, 11008, 4096, 1, activation="none")],
}
