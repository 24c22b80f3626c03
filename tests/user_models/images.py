"""Networks over images and volumes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def _block3d(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv3d(inputs, outputs, 3, padding=1), nn.InstanceNorm3d(outputs, affine=True), nn.LeakyReLU()
    )


class VolumeUNet(nn.Module):
    """A 3-D U-Net of two levels with transposed convolutions and concatenated skips."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = _block3d(1, 6), _block3d(6, 10), _block3d(10, 12)
        self.up2, self.up1 = nn.ConvTranspose3d(12, 10, 2, stride=2), nn.ConvTranspose3d(10, 6, 2, stride=2, groups=2)
        self.join2, self.join1 = _block3d(20, 10), _block3d(12, 6)
        self.leave = nn.Conv3d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(functional.max_pool3d(first, 2))
        y = self.bottom(functional.max_pool3d(second, 2))
        y = self.join2(torch.cat([self.up2(y), second], 1))
        return self.leave(self.join1(torch.cat([self.up1(y), first], 1)))


class Generator(nn.Module):
    """Makes images from noise by transposed convolutions, as in DCGAN."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(8, 16 * 4)
        self.layers = nn.Sequential(
            nn.BatchNorm2d(16), nn.ReLU(), nn.ConvTranspose2d(16, 12, 4, 2, 1, bias=False),
            nn.BatchNorm2d(12), nn.ReLU(), nn.ConvTranspose2d(12, 8, 4, 2, 1, groups=4),
            nn.BatchNorm2d(8), nn.ReLU(), nn.ConvTranspose2d(8, 3, 3, 2, 1, output_padding=1), nn.Tanh(),
        )  # fmt: skip

    def forward(self, noise: Tensor) -> Tensor:
        return self.layers(self.enter(noise).view(-1, 16, 2, 2))


class SuperResolution(nn.Module):
    """Upscales by pixel shuffle, with residual blocks and a bicubic skip."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 10, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(10, 14, 3, padding="same"), nn.PReLU(14), nn.Conv2d(14, 10, 1, padding="same"))
            for _ in range(2)
        )
        self.grow, self.leave = nn.Conv2d(10, 40, 3, padding=1), nn.Conv2d(10, 3, 3, padding=1, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        y = self.enter(x)
        for block in self.blocks:
            y = y + 0.1 * block(y)
        y = functional.pixel_shuffle(self.grow(y), 2)
        return self.leave(y) + functional.interpolate(x, scale_factor=2, mode="bicubic")


class SplitAttention(nn.Module):
    """Splits features in cardinal groups and weighs them by a softmax over the split, as in ResNeSt."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 12, 3, padding=1)
        self.split = nn.Conv2d(12, 24, 3, padding=1, groups=4)
        self.squeeze, self.expand = nn.Conv2d(12, 8, 1, groups=2), nn.Conv2d(8, 24, 1, groups=2)
        self.leave = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.split(functional.relu(self.enter(x))))
        n, c, h, w = x.shape
        parts = x.reshape(n, 2, c // 2, h, w)
        gap = functional.adaptive_avg_pool2d(parts.sum(1), 1)
        weights = self.expand(functional.relu(self.squeeze(gap))).view(n, 2, 2, -1).transpose(1, 2).softmax(1)
        y = (parts * weights.reshape(n, 2, c // 2, 1, 1)).sum(1)
        return self.leave(y.mean((2, 3)))


class GlobalResponse(nn.Module):
    """A ConvNeXt V2 block: depthwise convolution, channels last, global response normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 12, 2, stride=2)
        self.depthwise, self.norm = nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.LayerNorm(12)
        self.up, self.down = nn.Linear(12, 24), nn.Linear(24, 12)
        self.gamma, self.beta = nn.Parameter(torch.zeros(24)), nn.Parameter(torch.zeros(24))
        self.leave = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        y = functional.gelu(self.up(self.norm(self.depthwise(x).permute(0, 2, 3, 1))))
        response = torch.norm(y, p=2, dim=(1, 2), keepdim=True)
        y = self.gamma * (y * (response / (response.mean(-1, keepdim=True) + 1e-6))) + self.beta + y
        return self.leave((x + self.down(y).permute(0, 3, 1, 2)).flatten(2).mean(-1))


class PatchNet(nn.Module):
    """Takes images apart with unfold, mixes patches, and puts them together with fold."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 6, 3, padding=1)
        self.mix, self.back = nn.Linear(24, 20), nn.Linear(20, 24)
        self.leave = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        patches = functional.unfold(x, 2, stride=2).transpose(1, 2)
        patches = self.back(functional.silu(self.mix(patches))).transpose(1, 2)
        return self.leave(x + functional.fold(patches, x.shape[-2:], 2, stride=2))


class ShuffledGroups(nn.Module):
    """Grouped convolutions with a channel shuffle between them, pixel unshuffle, and squeeze-and-excite."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(12, 12, 1)
        self.first, self.second = nn.Conv2d(12, 12, 1, groups=3), nn.Conv2d(12, 12, 3, padding=1, groups=3)
        self.squeeze, self.excite = nn.Conv2d(12, 4, 1), nn.Conv2d(4, 12, 1)
        self.leave = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(functional.pixel_unshuffle(x, 2))
        x = self.second(functional.channel_shuffle(self.first(x).relu(), 3))
        gate = self.excite(functional.relu(self.squeeze(x.mean((2, 3), keepdim=True))))
        return self.leave((x * gate.sigmoid()).amax((2, 3)))


IMAGE_MODELS = {
    "volume_unet": lambda: (VolumeUNet(), (torch.randn(1, 1, 8, 8, 8),)),
    "generator": lambda: (Generator(), (torch.randn(2, 8),)),
    "super_resolution": lambda: (SuperResolution(), (torch.randn(1, 3, 6, 6),)),
    "split_attention": lambda: (SplitAttention(), (torch.randn(2, 3, 6, 6),)),
    "global_response": lambda: (GlobalResponse(), (torch.randn(2, 3, 8, 8),)),
    "patch_net": lambda: (PatchNet(), (torch.randn(2, 3, 6, 6),)),
    "shuffled_groups": lambda: (ShuffledGroups(), (torch.randn(2, 3, 8, 8),)),
}
