"""Synthesised harmonic tones with noise, whose pitch is known exactly."""

import math

import torch
from crepe import FRAME, SAMPLE_RATE

LOWEST_HZ, HIGHEST_HZ = 55.0, 1500.0


def harmonic_tones(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return frames [count, 1024], normalised as CREPE wants them, and their pitch in cents above 10 Hz [count].

    Pitches are uniform on the logarithmic scale; the number, decay and phases of the harmonics and the level of the
    noise (from 3 dB above the tone to 25 dB below it, white or brown) vary from frame to frame.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, generator=generator)

    pitch = torch.exp(uniform(math.log(LOWEST_HZ), math.log(HIGHEST_HZ)))
    number = torch.arange(1, 25).view(1, -1, 1)
    time = (torch.arange(FRAME) - FRAME / 2) / SAMPLE_RATE
    phase = 2 * math.pi * torch.rand(count, 24, 1, generator=generator)
    loudness = number.float() ** -uniform(0.3, 2.0) * (0.3 + torch.rand(count, 24, 1, generator=generator))
    audible = (number <= uniform(3, 24)) & (number * pitch < 0.45 * SAMPLE_RATE)
    tone = (loudness * audible * torch.sin(2 * math.pi * number * pitch * time + phase)).sum(1)

    white = torch.randn(count, FRAME, generator=generator)
    brown = white.cumsum(1)
    brown = brown - brown.mean(1, keepdim=True)
    noise = torch.where(torch.rand(count, 1, generator=generator) < 0.5, white, brown)
    level = 10 ** (-uniform(-3, 25)[:, 0] / 20)
    frames = _normalise(_normalise(tone) + level * _normalise(noise))
    return frames, 1200 * torch.log2(pitch.flatten() / 10)


def _normalise(signal: torch.Tensor) -> torch.Tensor:
    signal = signal - signal.mean(1, keepdim=True)
    return signal / signal.std(1, keepdim=True, unbiased=False).clamp(min=1e-10)
