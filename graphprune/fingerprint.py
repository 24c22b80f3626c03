"""A fingerprint of a graph's structure, which ties plans to the graphs they were made for."""

from __future__ import annotations

import hashlib

import torch
from torch import fx

from graphprune.graph import get_attribute


def fingerprint(gm: fx.GraphModule) -> str:
    """Return a SHA-256 hex digest of the nodes, their arguments and the shapes of attributes; values do not count."""
    digest = hashlib.sha256()
    for node in gm.graph.nodes:
        digest.update(f"{node.op}|{node.name}|{node.target}|{node.args}|{node.kwargs}\n".encode())
        if node.op == "get_attr":
            value = get_attribute(gm, str(node.target))
            if isinstance(value, torch.Tensor):
                digest.update(f"{tuple(value.shape)}|{value.dtype}\n".encode())
    return digest.hexdigest()
