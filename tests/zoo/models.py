"""The zoo: 84 real architectures with random weights, each with example inputs, none of which needs a download.

A name is ``library/model``. Weights are drawn with a fixed seed; parameters that a library initialises to a constant
are drawn again, because a unit that contributes nothing to the output can be removed wrongly without anyone noticing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from tests.zoo import transformers_models
from tests.zoo.unseen_models import unseen_makers

os.environ.setdefault("HF_HUB_OFFLINE", "1")

TORCHVISION_CLASSIFIERS = """
alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3 maxvit_t mnasnet1_0
mobilenet_v2 mobilenet_v3_large mobilenet_v3_small regnet_x_400mf regnet_y_400mf resnet18 resnet50 resnext50_32x4d
shufflenet_v2_x1_0 squeezenet1_0 swin_t vgg11_bn vit_b_16 wide_resnet50_2
""".split()
TORCHVISION_SEGMENTERS = ["deeplabv3_resnet50", "fcn_resnet50", "lraspp_mobilenet_v3_large"]
TORCHVISION_VIDEO = ["r2plus1d_18", "r3d_18"]
TIMM = """
beit_base_patch16_224 coat_tiny coatnet_nano_rw_224 convnextv2_atto cspresnet50 deit_tiny_distilled_patch16_224
deit_tiny_patch16_224 dla34 eca_nfnet_l0 ecaresnet26t edgenext_xx_small efficientformer_l1 efficientnetv2_rw_t
eva02_tiny_patch14_224 fastvit_t8 ghostnet_100 hrnet_w18_small inception_next_tiny levit_128s maxvit_nano_rw_256
mixer_s32_224 mobilenetv4_conv_small mobilevit_xxs mobilevitv2_050 poolformer_s12 pvt_v2_b0 repvgg_a0 resmlp_12_224
resnest14d resnet50 resnetv2_50 rexnet_100 selecsls42 seresnet50 skresnet18 swin_tiny_patch4_window7_224
tiny_vit_5m_224 twins_svt_small visformer_tiny vit_small_patch16_224 vovnet39a
""".split()


@dataclass(frozen=True)
class Example:
    """A model in evaluation mode with inputs that fit it."""

    model: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


def zoo_names() -> list[str]:
    """Return all names, in the order of the table."""
    return list(_makers())


def make(name: str) -> Example:
    """Build the model ``name``, of the zoo or of ``tests.zoo.unseen_models``, the same one every time.

    Raises:
        KeyError: if there is no such name.
    """
    maker = (_makers() | unseen_makers())[name]
    torch.manual_seed(0)
    example = Example(*maker())
    redraw_constants(example.model.eval())
    return example


def redraw_constants(model: nn.Module) -> None:
    """Draw anew, in place, what initialisation left constant: scales, shifts, biases, running statistics."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in _tensors(model):
        if name.endswith("running_mean"):
            mean, deviation = 0.0, 0.2
        elif name.endswith("running_var"):
            mean, deviation = 1.0, 0.1
        elif isinstance(tensor, nn.Parameter) and _is_constant(tensor):
            mean, deviation = (0.8 if tensor.flatten()[0] == 1 else 0.0), 0.2
        else:
            continue
        drawn = mean + deviation * torch.randn(tensor.shape, generator=generator)
        tensor.data.copy_(drawn.clamp(min=0.5) if name.endswith("running_var") else drawn)


def _tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and tensor.numel() > 1:
            yield name, tensor


def _is_constant(tensor: torch.Tensor) -> bool:
    values = tensor.detach()
    return bool((values == values.flatten()[0]).all()) or float(values.abs().max()) < 0.01


def _makers() -> dict[str, Callable[[], tuple[Any, ...]]]:
    makers: dict[str, Callable[[], tuple[Any, ...]]] = {}
    for name in TORCHVISION_CLASSIFIERS:
        makers[f"torchvision/{name}"] = lambda name=name: _classifier(name)
    for name in TORCHVISION_SEGMENTERS:
        makers[f"torchvision/{name}"] = lambda name=name: _segmenter(name)
    for name in TORCHVISION_VIDEO:
        makers[f"torchvision/{name}"] = lambda name=name: _video(name)
    for name in TIMM:
        makers[f"timm/{name}"] = lambda name=name: _timm(name)
    for name, maker in transformers_models.MAKERS.items():
        makers[f"hf/{name}"] = maker
    return makers


def _classifier(name: str) -> tuple[Any, ...]:
    from torchvision import models

    # These two have auxiliary classifiers for training, and an initialisation that takes minutes.
    is_inception = name in ("googlenet", "inception_v3")
    model = models.get_model(
        name, weights=None, **({"aux_logits": False, "init_weights": False} if is_inception else {})
    )
    size = 299 if name == "inception_v3" else 224
    return model, (torch.randn(2, 3, size, size),)


def _segmenter(name: str) -> tuple[Any, ...]:
    from torchvision import models

    return models.get_model(name, weights=None, weights_backbone=None), (torch.randn(2, 3, 128, 128),)


def _video(name: str) -> tuple[Any, ...]:
    from torchvision import models

    return models.get_model(name, weights=None), (torch.randn(1, 3, 8, 64, 64),)


def _timm(name: str) -> tuple[Any, ...]:
    import timm

    model = timm.create_model(name, pretrained=False)
    _, height, width = model.default_cfg["input_size"]
    return model, (torch.randn(2, 3, height, width),)
