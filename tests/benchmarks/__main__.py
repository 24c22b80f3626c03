"""``python -m tests.benchmarks``: the CPU benchmarks, one after another, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent

RUNS = (
    ("bench_models.py",),
    ("bench_kernels.py", "--suite", "resnet50", "--sparsity", "0.9"),
    ("bench_kernels.py", "--suite", "resnet50"),
    ("bench_kernels.py", "--suite", "bert", "--sparsity", "0.9"),
    ("bench_kernels.py", "--suite", "ffn-token", "--sparsity", "0.9", "--cold"),
    ("bench_peers.py", "resnet50", "mobilenet_v2", "bert_base", "--prunings", "90%", "--repeats", "12"),
)


def main() -> int:
    """Run every benchmark, say what is run, and return 1 if one of them failed."""
    failed = False
    for script, *options in RUNS:
        print(f"\n$ python tests/benchmarks/{' '.join([script, *options])}", flush=True)
        failed |= subprocess.run([sys.executable, str(HERE / script), *options]).returncode != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
