"""The contract of a pass: a frozen dataclass, called with a traced graph, returning a new one.

Its fields are its options; the command line's spelling (``prune-channels{ratio=0.5}``) is derived from them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

import torch
from torch import fx

from graphprune.errors import GraphPruneError, PassError
from graphprune.graph import PassRecord, copy_graph_module, graph_info


@dataclass(frozen=True)
class Pass:
    """Base of all passes. A subclass implements :meth:`run`; callers call the pass."""

    def run(self, gm: fx.GraphModule) -> tuple[fx.GraphModule, dict[str, Any]]:
        """Transform ``gm``, a private copy that may be changed, and return the result and a summary (JSON data)."""
        raise NotImplementedError

    def __call__(self, gm: fx.GraphModule) -> fx.GraphModule:
        """Return the transformed graph; ``gm`` itself stays as it is.

        Raises:
            GraphPruneError: any of its subclasses, as the pass documents; foreign exceptions arrive as PassError.
        """
        graph_info(gm)
        start = time.perf_counter()
        try:
            with torch.no_grad():
                result, summary = self.run(copy_graph_module(gm))
            result.graph.lint()
            result.recompile()
        except GraphPruneError:
            raise
        except Exception as error:
            raise PassError(f"{self.spec()} failed: {type(error).__name__}: {error}") from error
        graph_info(result).history.append(PassRecord(self.spec(), time.perf_counter() - start, summary))
        return result

    @classmethod
    def command_name(cls) -> str:
        """Return the pass's name on the command line: ``PruneChannels`` is ``prune-channels``."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__).lower()

    def spec(self) -> str:
        """Return the command-line spelling, options at their defaults left out: ``prune-channels{ratio=0.5}``."""
        options = [
            f"{f.name}={_spell(getattr(self, f.name))}"
            for f in fields(self)
            if f.repr and getattr(self, f.name) != (f.default if f.default_factory is MISSING else f.default_factory())
        ]
        return self.command_name() + ("{" + ",".join(options) + "}" if options else "")


def _spell(value: Any) -> str:
    if isinstance(value, Mapping):
        return _spell(tuple(value.items()))
    if isinstance(value, (list, tuple, frozenset, set)):
        return "[" + ",".join(_spell(item) for item in value) + "]"
    if isinstance(value, (int, float, str, bool)) or value is None:
        return str(value).lower() if isinstance(value, bool) else str(value)
    return type(value).__name__
