"""``import graphprune.torch_compile`` makes ``torch.compile(model, backend="graphprune")`` known.

An installed graphprune is found without it, by its entry point; a copy on ``PYTHONPATH`` alone is not.
"""

from torch._dynamo.backends.registry import list_backends, register_backend

from graphprune.dynamo import backend

NAME = "graphprune"

if NAME not in list_backends():
    register_backend(backend, name=NAME)
