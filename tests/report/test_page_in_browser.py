"""The page as a browser lays it out, on a desk and on a phone. Needs Chromium, which nothing else here does."""

import json
import re
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

from report.judge import judge
from report.page import render_page
from tests.report.records import two_fixed

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome-headless-shell"))), None
)
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
MEASURE = """<script>
const boxed = element => element.closest('.scroll') !== null;
const beyond = element => element.getBoundingClientRect().right > innerWidth + 0.5;
const all = [...document.body.querySelectorAll('*')];
const plot = [...document.querySelectorAll('.plot')].find(each => each.getBoundingClientRect().width > 0);
const frame = plot.getBoundingClientRect();
const outside = text => {
  const box = text.getBoundingClientRect();
  return box.left < frame.left - 1 || box.right > frame.right + 1;
};
const sizes = [...plot.querySelectorAll('text')].map(text => text.getBoundingClientRect().height);
parent.document.body.dataset.found = JSON.stringify({
  width: innerWidth,
  page: document.documentElement.scrollWidth,
  beyond: all.filter(element => !boxed(element) && beyond(element)).map(element => element.outerHTML.slice(0, 80)),
  scrolling: [...document.querySelectorAll('.scroll')].filter(each => each.scrollWidth > each.clientWidth + 1)
    .map(each => each.ariaLabel),
  outside: [...plot.querySelectorAll('text')].filter(outside).map(text => text.textContent),
  smallest: Math.min(...sizes),
});
</script></body>"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine's PATH")


def laid_out(page: str, width: int, folder: Path) -> dict[str, Any]:
    """What a script in the page measures in a frame of that width; a browser's own window cannot be as narrow as a
    phone. The page forbids scripts, so the policy is taken out of this copy."""
    told = POLICY.sub("", page).replace("</body>", MEASURE)
    frame = f'<iframe style="width:{width}px;height:900px;border:0" srcdoc="{escape(told, quote=True)}"></iframe>'
    path = folder / "frame.html"
    path.write_text(f"<!DOCTYPE html><meta charset=utf-8><body style='margin:0'>{frame}</body>", encoding="utf-8")
    done = subprocess.run(
        [
            str(CHROMIUM),
            *("--headless", "--disable-gpu", "--no-sandbox", "--hide-scrollbars", "--virtual-time-budget=5000"),
            f"--user-data-dir={folder / 'profile'}",
            "--window-size=1400,1000",
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    found = re.search(r'data-found="([^"]*)"', done.stdout)
    assert found, done.stdout[-500:]
    told_back: dict[str, Any] = json.loads(unescape(found[1]))
    return told_back


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_stands_out_at_the_side(width: int, tmp_path: Path) -> None:
    records = two_fixed({"torch-cpu/bf16": 0.002})
    found = laid_out(render_page(judge(records), records), width, tmp_path)
    assert found["width"] == width
    assert found["page"] <= width
    assert found["beyond"] == []
    assert found["outside"] == []
    assert found["smallest"] >= 11


def test_on_a_desk_no_table_needs_scrolling(tmp_path: Path) -> None:
    records = two_fixed({})
    assert laid_out(render_page(judge(records), records), 1280, tmp_path)["scrolling"] == []


def test_what_stands_out_is_noticed(tmp_path: Path) -> None:
    page = render_page(judge(two_fixed({})), two_fixed({}))
    page = page.replace("<main>", '<main><p style="width:2000px">wide</p>')
    found = laid_out(page, 390, tmp_path)
    assert found["page"] >= 2000
    assert len(found["beyond"]) == 1
