"""The networks of the CPU benchmarks, with random weights, and the ways they are pruned."""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import fx, nn

import graphprune as gp
from graphprune.pass_base import Pass
from graphprune.passes import PruneChannels, PruneWeights

Inputs = tuple[torch.Tensor, ...]
TOKENS = 128


def _pointwise(model: nn.Module, sparsity: float) -> Pass:
    """Return the pass that prunes the 1x1 convolutions, of a network that has depthwise ones between them."""
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    chosen = [f"{name}.weight" for name in names if model.get_submodule(name).kernel_size == (1, 1)]
    if not chosen:
        raise SystemExit("this network has no 1x1 convolutions to prune")
    return PruneWeights(sparsity=sparsity, scope="layer", include=tuple(chosen))


PRUNINGS: dict[str, Pass | Callable[[nn.Module], Pass] | None] = {
    "dense": None,
    "70%": PruneWeights(sparsity=0.7, scope="layer"),
    "80%": PruneWeights(sparsity=0.8, scope="layer"),
    "85%": PruneWeights(sparsity=0.85, scope="layer"),
    "90%": PruneWeights(sparsity=0.9, scope="layer"),
    "95%": PruneWeights(sparsity=0.95, scope="layer"),
    "85%-1x1": lambda model: _pointwise(model, 0.85),
    "half": PruneChannels(ratio=0.5),
}


def prune_network(model: nn.Module, inputs: Inputs, pruning: str) -> tuple[fx.GraphModule, nn.Module | None]:
    """Return the pruned graph and, where its weights still fit, a copy of ``model`` that holds them."""
    chosen = PRUNINGS[pruning]
    prune_pass = chosen if chosen is None or isinstance(chosen, Pass) else chosen(model)
    graph = gp.prune(model, [] if prune_pass is None else prune_pass, inputs)
    plain, weights = copy.deepcopy(model), graph.state_dict()
    own = plain.state_dict()
    if any(name not in weights or weights[name].shape != value.shape for name, value in plain.named_parameters()):
        return graph, None
    plain.load_state_dict({name: weights.get(name, value) for name, value in own.items()})
    return graph, plain.eval()


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which networks to measure, pruned how, in batches of which sizes."""
    parser.add_argument("networks", nargs="*", choices=[*NETWORKS, []], default=list(NETWORKS))
    parser.add_argument("--prunings", nargs="+", choices=PRUNINGS, default=["dense", "90%", "half"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1])


def build(name: str, batch: int) -> tuple[nn.Module, Inputs]:
    """Return a network in eval mode and inputs for it; the same ones every time."""
    torch.manual_seed(0)
    model, inputs = NETWORKS[name](batch)
    return settle(model), inputs


def settle(model: nn.Module) -> nn.Module:
    """Give batch norms statistics that keep activations near one, so that errors show."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.uniform_(module.weight, 0.3, 0.6)
            nn.init.normal_(module.bias, 0, 0.1)
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model.eval()


def _image_network(name: str) -> Callable[[int], tuple[nn.Module, Inputs]]:
    def make(batch: int) -> tuple[nn.Module, Inputs]:
        import torchvision.models

        return torchvision.models.get_model(name, weights=None), (torch.randn(batch, 3, 224, 224),)

    return make


def _vit_small(batch: int) -> tuple[nn.Module, Inputs]:
    from torchvision.models import VisionTransformer

    model = VisionTransformer(image_size=224, patch_size=16, num_layers=12, num_heads=6, hidden_dim=384, mlp_dim=1536)
    nn.init.normal_(model.get_parameter("heads.head.weight"), 0, 0.05)  # torchvision starts the classifier at zero
    return model, (torch.randn(batch, 3, 224, 224),)


def _encoder(width: int, layers: int) -> Callable[[int], tuple[nn.Module, Inputs]]:
    def make(batch: int) -> tuple[nn.Module, Inputs]:
        from transformers import BertConfig, BertModel

        config = BertConfig(
            hidden_size=width, num_hidden_layers=layers, num_attention_heads=12, intermediate_size=4 * width
        )
        model = _HiddenStates(BertModel(config, add_pooling_layer=False))
        return model, (torch.randint(0, config.vocab_size, (batch, TOKENS)),)

    return make


class _HiddenStates(nn.Module):
    """A text encoder that takes token ids and returns one tensor."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.encoder(input_ids=ids).last_hidden_state


def _feed_forward(batch: int) -> tuple[nn.Module, Inputs]:
    """The feed-forward halves of BERT's 12 layers on one token at a time: bound by reading the weights."""
    layers = [nn.Sequential(nn.Linear(768, 3072), nn.GELU(), nn.Linear(3072, 768)) for _ in range(12)]
    return nn.Sequential(*layers), (torch.randn(batch, 768),)


def _crepe(batch: int) -> tuple[nn.Module, Inputs]:
    sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
    from crepe import load_crepe  # pyright: ignore[reportMissingImports]

    return load_crepe(), (torch.randn(batch, 1024),)


class _ConvUnit(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        conv = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, bias=False)
        super().__init__(conv, nn.BatchNorm2d(outputs), nn.SiLU())


class _SplitStage(nn.Module):
    """A cross-stage partial block: half of the channels go through residual units, the other half pass by."""

    def __init__(self, channels: int, units: int) -> None:
        super().__init__()
        half = channels // 2
        self.left, self.right = _ConvUnit(channels, half), _ConvUnit(channels, half)
        self.units = nn.ModuleList(nn.Sequential(_ConvUnit(half, half), _ConvUnit(half, half, 3)) for _ in range(units))
        self.join = _ConvUnit(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left = self.left(x)
        for unit in self.units:
            left = left + unit(left)
        return self.join(torch.cat([left, self.right(x)], 1))


class _Detector(nn.Module):
    """A one-stage detector of YOLO's size: a split-stage backbone and a top-down path with three outputs."""

    def __init__(self, width: int = 32, outputs: int = 85 * 3) -> None:
        super().__init__()
        sizes = [width * 2**i for i in range(5)]
        self.stem = _ConvUnit(3, sizes[0], 6, 2)
        self.stages = nn.ModuleList(
            nn.Sequential(_ConvUnit(small, large, 3, 2), _SplitStage(large, units))
            for small, large, units in zip(sizes, sizes[1:], (1, 2, 3, 1))
        )
        self.lateral = nn.ModuleList(_ConvUnit(size, sizes[2]) for size in sizes[2:])
        self.heads = nn.ModuleList(nn.Conv2d(sizes[2], outputs, 1) for _ in sizes[2:])

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = []
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        tops = [lateral(feature) for lateral, feature in zip(self.lateral, features[1:])]
        for i in (1, 0):
            tops[i] = tops[i] + nn.functional.interpolate(tops[i + 1], scale_factor=2.0, mode="nearest")
        return tuple(head(top) for head, top in zip(self.heads, tops))


NETWORKS: dict[str, Callable[[int], tuple[nn.Module, Inputs]]] = {
    "resnet50": _image_network("resnet50"),
    "mobilenet_v2": _image_network("mobilenet_v2"),
    "efficientnet_b0": _image_network("efficientnet_b0"),
    "vit_small": _vit_small,
    "bert_base": _encoder(768, 12),
    "minilm": _encoder(384, 6),
    "ffn_token": _feed_forward,
    "crepe": _crepe,
    "detector": lambda batch: (_Detector(), (torch.randn(batch, 3, 320, 320),)),
}
