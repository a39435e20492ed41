"""The page in a real browser, on a phone and on a desk."""

import re
import shutil
import subprocess
from html import escape
from pathlib import Path

import pytest

from recsys.config.run import EvaluateConfig, RerankConfig
from recsys.evaluation.baselines.simple import popularity, random_order
from recsys.evaluation.report.assemble import assemble
from recsys.evaluation.report.page import render
from tests.evaluation.report.test_assemble import data, informed

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
FRAME = """<!doctype html><link rel="icon" href="data:,"><body style="margin:0">
<iframe style="width:{width}px;height:2000px;border:0" srcdoc="{page}"
onload="document.title = this.contentDocument.documentElement.scrollWidth"></iframe>"""
"""Browsers have a least width, and their windows a scroll bar: a frame is as narrow as is asked."""


@pytest.fixture(scope="module")
def page() -> str:
    """A whole report."""
    ranking_set = data()
    scores = informed(ranking_set, 1.0)
    report, _ = assemble(
        ranking_set,
        {
            "model": lambda a, b: scores[a:b],
            "popularity": popularity(ranking_set.videos.popularity_N),
            "random": random_order(ranking_set.num_videos),
        },
        EvaluateConfig(k=(5,), bootstrap=20, tradeoff_users=50),
        RerankConfig(creator_exposure=0.1),
    )
    against = {"run": "a/very/long/path/" * 8, "rows": report["comparisons"]["random"]}
    return render({**report, "against": against}, title="Evaluation of a run")


@pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_screen_or_complains(
    page: str, width: int, tmp_path: Path
) -> None:
    assert BROWSER is not None
    path = tmp_path / "report.html"
    path.write_text(FRAME.format(width=width, page=escape(page)))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    options += ["--disable-background-networking", "--enable-logging=stderr", "--dump-dom"]
    options += [f"--user-data-dir={tmp_path / 'browser'}", "--window-size=1400,2000"]
    done = subprocess.run(
        [BROWSER, *options, path.as_uri()], capture_output=True, text=True, timeout=60, check=True
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    title = re.search("<title>(.*?)</title>", done.stdout)
    assert title is not None and int(title.group(1)) <= width
