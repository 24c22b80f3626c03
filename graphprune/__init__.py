"""graphprune: structured and unstructured pruning of PyTorch models that really makes them smaller and faster."""

__version__ = "0.1.0"
