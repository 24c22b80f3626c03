"""Makes a Markdown table and plots of the rows that ``bench_peers.py --results`` wrote.

    python tests/benchmarks/plot_peers.py rows.jsonl [--folder plots]

Each plot shows, for one network, batch and number of threads, how many times faster than eager PyTorch on the dense
network the engines are at each sparsity; the line at 1 is break-even, that of the fastest dense engine is dashed.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Setting = tuple[str, int, int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--folder", type=Path, help="where to write one PNG for each network, batch and thread count")
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.rows.read_text().splitlines()]
    print(table(rows))
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
        for setting, group in _by_setting(rows).items():
            _plot(setting, group, options.folder)


def table(rows: list[Row]) -> str:
    """Return a Markdown table: milliseconds of each engine, and our speed-up over the best of the others."""
    engines = list(dict.fromkeys(engine for row in rows for engine in row["milliseconds"]))
    lines = [
        f"| network | pruning | batch | threads | {' | '.join(engines)} | against the best peer |",
        "|---" * (5 + len(engines)) + "|",
    ]
    for row in rows:
        times = row["milliseconds"]
        cells = [f"{times[engine]:.2f}" if engine in times else "" for engine in engines]
        peers = [value for engine, value in times.items() if not engine.startswith("graphprune")]
        best = f"{min(peers) / times['graphprune']:.2f}×" if peers else ""
        setting = f"{row['network']} | {row['pruning']} | {row['batch']} | {row['threads']}"
        lines.append(f"| {setting} | {' | '.join(cells)} | {best} |")
    return "\n".join(lines)


def _by_setting(rows: list[Row]) -> dict[Setting, list[Row]]:
    groups: dict[Setting, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row["network"], row["batch"], row["threads"]].append(row)
    return groups


def _sparsity(row: Row) -> float | None:
    """Return the share of zeros in percent; None for rows that are not on this axis."""
    if row["pruning"] == "dense":
        return 0.0
    found = re.fullmatch(r"(\d+)%", row["pruning"])
    return float(found[1]) if found else None


def _plot(setting: Setting, rows: list[Row], folder: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    points = sorted((sparsity, row["milliseconds"]) for row in rows if (sparsity := _sparsity(row)) is not None)
    dense = next((times for sparsity, times in points if sparsity == 0), {})
    if len(points) < 2 or "torch" not in dense:
        return
    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for engine in dict.fromkeys(engine for _, times in points for engine in times):
        xs = [sparsity for sparsity, times in points if engine in times]
        ys = [dense["torch"] / times[engine] for _, times in points if engine in times]
        axes.plot(xs, ys, marker="o", label=engine, linewidth=2.5 if engine.startswith("graphprune") else 1.2)
    fastest = min(dense, key=lambda engine: dense[engine])
    worth_it = dense["torch"] / dense[fastest]
    axes.axhline(worth_it, color="grey", linewidth=0.8, linestyle="--", label=f"break-even: {fastest}, dense")
    network, batch, threads = setting
    axes.set(xlabel="zeros, %", ylabel="times faster than PyTorch, dense", ylim=(0, None))
    axes.set_title(f"{network}, batch {batch}, {threads} thread{'s' if threads > 1 else ''}")
    axes.legend(fontsize=8)
    figure.savefig(folder / f"{network}-b{batch}-t{threads}.png", dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
