"""Settings that every test shares: few threads, and random programs that are the same on every run."""

import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(min(2, torch.get_num_threads()))

settings.register_profile(
    "graphprune",
    deadline=None,
    derandomize=True,
    max_examples=50,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile("thorough", parent=settings.get_profile("graphprune"), derandomize=False, max_examples=1000)
settings.load_profile("graphprune")
