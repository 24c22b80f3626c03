"""The page in a real browser, where there is one: it draws, searches, selects, opens modules, sorts."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

import graphprune
from graphprune.drawing import render_page
from graphprune.passes import PruneChannels
from graphprune.tracing.trace import trace

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")

DRIVER = """
<script>
const report = {errors: []};
addEventListener("error", (event) => report.errors.push(event.message));
const all = (selector) => [...document.querySelectorAll(selector)];
const click = (element) => element.dispatchEvent(new MouseEvent("click", {bubbles: true}));
const titles = () => all("#picture .frame > text, #picture .box > text").map((text) => text.textContent);
addEventListener("load", () => {
  try { STEPS } catch (error) { report.errors.push(String(error)); }
  const pre = document.createElement("pre");
  pre.id = "report";
  pre.textContent = JSON.stringify(report);
  document.body.append(pre);
});
</script></body>
"""


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.grow, self.shrink = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x):
        return x + self.shrink(torch.relu(self.grow(x)))


def small_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), *[Block() for _ in range(16)], nn.Linear(8, 3)).eval()


def visit(tmp_path: Path, steps: str, *, hash: str = "") -> dict:
    graph = trace(small_model(), (torch.randn(2, 5),))
    plan = PruneChannels(ratio=0.5, ignore=("1.*",)).plan(graph)
    page = tmp_path / "page.html"
    text = render_page(graphprune.inspect(graph), title="small", plan=plan)
    page.write_text(text.replace("</body>", DRIVER.replace("STEPS", steps)), encoding="utf-8")
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    result = subprocess.run(
        [*command, "--window-size=1400,900", "--dump-dom", page.as_uri() + hash],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = re.search(r'<pre id="report">(.*?)</pre>', result.stdout, re.DOTALL)
    assert found is not None, result.stderr
    report = json.loads(found[1].replace("&gt;", ">").replace("&lt;", "<").replace("&amp;", "&"))
    assert report["errors"] == []
    return report


def test_modules_open_and_close(tmp_path: Path):
    report = visit(
        tmp_path,
        """
        report.before = titles().length;
        click(document.getElementById("close-all"));
        report.closed = all("#picture .box.call").length;
        click(document.querySelector("#picture [data-toggle]"));
        report.opened = all("#picture .frame").length;
        click(document.getElementById("open-all"));
        report.frames = all("#picture .frame").length;
        report.boxes = all("#picture .box").length;
        """,
    )
    assert report["closed"] == 16 and report["opened"] == 1 and report["frames"] == 16
    assert report["boxes"] == 2 + 2 + 16 * 4  # input and output, first and last layer, four nodes a block


def test_a_dimension_lights_up_where_it_is(tmp_path: Path):
    report = visit(
        tmp_path,
        """
        const row = all("#list tbody tr").find((row) => row.textContent.includes("residual stream"));
        click(row);
        report.chosen = row.classList.contains("chosen");
        report.heading = document.querySelector("#details h2").textContent;
        report.members = all("#details tbody tr").length;
        report.hit = all("#picture .box.hit").length;
        report.all = all("#picture .box").length;
        report.bars = all("#list .bar").length;
        report.units = all("#details .units").length;
        """,
    )
    assert report["chosen"] and "residual stream (8)" in report["heading"]
    assert report["members"] == 2 + 3 * 16 + 1 and 0 < report["hit"] < report["all"]
    assert report["bars"] == 17


def test_search_finds_and_reveals(tmp_path: Path):
    report = visit(
        tmp_path,
        """
        const query = document.getElementById("query");
        click(document.getElementById("close-all"));
        query.value = "9.grow weight";
        query.dispatchEvent(new Event("input"));
        report.found = all("#results .option").map((option) => option.querySelector(".found").textContent);
        query.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter"}));
        report.selected = document.querySelector("#picture .selected > text").textContent;
        report.frames = all("#picture .frame > text.title").map((text) => text.textContent);
        report.heading = document.querySelector("#details h2").textContent;
        query.value = "no such thing";
        query.dispatchEvent(new Event("input"));
        report.nothing = document.getElementById("results").textContent;
        """,
    )
    assert "9.grow.weight" in report["found"]
    assert report["selected"] == "linear" and report["heading"].startswith("linear")
    assert report["frames"] == ["9Block"]
    assert report["nothing"] == "nothing found"


def test_the_list_sorts_and_pins_are_explained(tmp_path: Path):
    report = visit(
        tmp_path,
        """
        const units = () => all("#list tbody tr td:nth-child(3)").map((cell) => Number(cell.textContent));
        click(document.querySelector("#list th:nth-child(3) button"));
        report.falling = units();
        click(document.querySelector("#list th:nth-child(3) button"));
        report.rising = units();
        click(document.getElementById("tab-pins"));
        const row = all("#list tbody tr").find((row) => row.textContent.includes("model output"));
        click(row);
        report.pin = document.getElementById("details").textContent;
        """,
    )
    assert report["falling"] == sorted(report["falling"], reverse=True) and report["rising"] == report["falling"][::-1]
    assert "17.weight" in report["pin"] and "output" in report["pin"]


def test_an_address_selects(tmp_path: Path):
    steps = 'report.heading = document.querySelector("#details h2").textContent;'
    assert visit(tmp_path, steps, hash="#dimension=3.grow.weight%3A0")["heading"] == "3 hidden neurons (16)"
    assert visit(tmp_path, steps, hash="#box=5")["heading"] == "5"
