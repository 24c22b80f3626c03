"""The page: complete, self-contained, safe to open, written whole, refused for other graphs."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import graphprune
from graphprune.drawing import draw, render_page
from graphprune.errors import MaskError
from graphprune.passes import PruneChannels
from tests.pruning_models import analysis, traced


def content(page: str) -> dict:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


@pytest.mark.parametrize("name", ["residual", "attention", "grouped"])
def test_numbers_refer_to_what_they_should(name):
    known = analysis(name)
    data = content(render_page(known, title=name))
    assert [d["title"] for d in data["dimensions"]] == [d.title for d in known.dimensions]
    for row, dimension in zip(data["dimensions"], known.dimensions):
        members = [(data["parameters"][p]["path"], axis) for p, axis in row["members"]]
        assert members == list(dimension.members)
        assert [data["nodes"][n]["name"] for n in row["statistics"]] == list(dimension.statistics)
        for p, axis in row["members"]:
            number = data["parameters"][p]["axes"][axis]
            assert data["dimensions"].index(row) in data["axes"][number]["dimensions"]
    for node in data["nodes"]:
        shape = [data["axes"][axis]["size"] for axis in (node["values"] or [[]])[0]]
        value = next(n for n in known.gm.graph.nodes if n.name == node["name"]).meta.get("val")
        if isinstance(value, torch.Tensor):
            assert shape == [str(size) for size in value.shape]
    assert sum(len(pin["members"]) for pin in data["pins"]) == len(known.pins)


def test_a_plan_is_shown_by_kept_positions_and_new_sizes():
    plan = PruneChannels(ratio=0.5).plan(traced("residual"))
    data = content(render_page(analysis("residual"), plan=plan))
    names = [d["name"] for d in data["dimensions"]]
    for choice in plan.choices:
        shown = data["plan"]["choices"][str(names.index(choice.name))]
        [runs] = shown["rows"]
        kept = [start + i for start, length in runs for i in range(length)]
        assert kept == choice.keep.tolist() and shown["kept"] == len(kept) and shown["requested"] == choice.requested
    stem = next(p for p in data["parameters"] if p["path"] == "stem.weight")
    assert data["axes"][stem["axes"][0]]["kept"] == "4"
    assert data["plan"]["cost"]["macs"] == list(plan.cost["macs"])


def test_an_uneven_plan_has_a_row_for_each_block():
    plan = PruneChannels(ratio=0.5, kinds=("head_dim",), uneven=True).plan(traced("grouped"))
    data = content(render_page(analysis("grouped"), plan=plan))
    names = [d["name"] for d in data["dimensions"]]
    uneven = [choice for choice in plan.choices if choice.outer]
    assert uneven
    for choice in uneven:
        number = names.index(choice.name)
        rows = data["plan"]["choices"][str(number)]["rows"]
        assert [[start + i for start, length in row for i in range(length)] for row in rows] == choice.keep.tolist()
        assert data["dimensions"][number]["outer"]


def test_a_plan_for_another_graph_is_refused_and_nothing_is_written(tmp_path: Path):
    plan = PruneChannels(ratio=0.5).plan(traced("residual"))
    with pytest.raises(MaskError, match="the plan was made for graph"):
        draw(analysis("attention"), tmp_path / "page.html", plan=plan)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_loaded_from_elsewhere_and_no_text_is_markup():
    title = "</script><script>alert(1)</script><!-- DATA -->"
    page = render_page(analysis("residual"), title=title)
    assert not re.search(r"""(src|href)\s*=|url\(|@import|fetch\(|XMLHttpRequest|import\(""", page)
    assert page.count("<script") == 2 and "alert(1)</script>" not in page
    assert content(page)["title"] == title
    assert "<!--" not in page


def test_the_file_is_whole_and_alone(tmp_path: Path):
    path = graphprune.draw(analysis("residual"), tmp_path / "page.html", title="residual")
    assert path.read_text(encoding="utf-8") == render_page(analysis("residual"), title="residual")
    assert list(tmp_path.iterdir()) == [path]


def test_ops_without_a_rule_and_dynamic_sizes_are_shown():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(4, 6)

        def forward(self, x):
            return torch.linalg.svdvals(self.inner(x))

    batch = {"x": {0: torch.export.Dim("batch", min=2, max=8)}}
    known = graphprune.inspect(Odd().eval(), (torch.randn(3, 4),), dynamic_shapes=batch)
    data = content(render_page(known))
    assert set(data["unknown"]) == set(known.unknown_ops)
    placeholder = data["nodes"][0]
    assert not data["axes"][placeholder["values"][0][0]]["size"].isdigit()
