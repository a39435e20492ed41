"""What the Run view says of the last evaluation, as the evaluation itself wrote it.

Videos 1 and 2 are of creator 1, video 3 of creator 2 and video 4 of creator 3; nobody knows who
made video 5. All 150 viewers of group "a" like video 1 and get 1, 2; of the 100 of group "b", who
get 1, 4, half like 4 and half 5.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recsys.bundle.contents import Bundle
from recsys.config.run import EvaluateConfig
from recsys.data.ragged import Ragged
from recsys.evaluation.metrics.interactions import RankingSet, VideoTable
from recsys.evaluation.ranking import evaluate_ranker
from recsys.evaluation.report.figures import summarise
from tests.bundles import make_run
from tests.serve.web._server import PageServer, listening
from tests.serve.web.test_page import BROWSER, DESK, PHONE, browser, opened, violations

pytest.importorskip("playwright", reason="playwright, which drives the browser, is not installed")
from playwright.sync_api import Browser, Page, expect

pytestmark = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")
__all__ = ["browser"]
CONFIG = EvaluateConfig(k=(2,), bootstrap=50, mask_history=False)
NUM_A, NUM_B = 150, 100


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    videos = VideoTable(
        cold_N=np.zeros(6, np.bool_),
        popularity_N=np.array([0, 10, 4, 2, 0, 4]),
        creator_row_N=np.array([0, 1, 1, 2, 3, 0], np.int32),
    )
    half = NUM_B // 2
    relevant = Ragged.from_lists([[1]] * NUM_A + [[4]] * half + [[5]] * half)
    groups = {
        "region": ["a"] * NUM_A + ["b"] * NUM_B,
        "age": [*["young"] * 200, *["old"] * 50],  # too few for a gap
    }
    num_users = NUM_A + NUM_B
    names = [str(user) for user in range(num_users)]
    data = RankingSet(names, relevant, Ragged.empty(num_users), videos, groups)
    scores = torch.tensor([[0.0, 5, 4, 3, 2, 1]] * NUM_A + [[0.0, 5, 1, 2, 4, 3]] * NUM_B)
    result = evaluate_ranker(data, lambda begin, end: scores[begin:end], CONFIG)
    return summarise(data, result, CONFIG)


@pytest.fixture
def server(figures: dict[str, Any], tmp_path: Path) -> Iterator[PageServer]:
    make_run(tmp_path / "run")
    bundle = Bundle.load(str(tmp_path / "run"))
    manifest = {**bundle.manifest, "metrics": {"model": figures}}
    with listening(replace(bundle, manifest=manifest), tmp_path / "live.sqlite") as server:
        yield server


def lines(page: Page, caption: str) -> list[list[str]]:
    """The cells of a table, line by line, the first of each its name."""
    figures = page.get_by_role("table", name=caption)
    expect(figures).to_be_visible()
    cells: list[list[str]] = figures.locator("tbody tr").evaluate_all(
        "all => all.map((line) => [...line.cells].map((cell) => cell.textContent))"
    )
    return [[text.replace("\u00a0", " ") for text in line] for line in cells]


def between(form: str, language: str, value: str, ends: list[float]) -> str:
    """A figure with its interval, as a language writes it."""
    low, high = (_plain(format(end, form)) for end in ends)
    return f"{value} ({low} – {high})" if language == "en" else f"{value}（{low} – {high}）"


def _plain(text: str) -> str:
    """Without the zeros that say nothing: 0.50 and 50.0% are 0.5 and 50%."""
    number, percent = text.removesuffix("%"), "%" if text.endswith("%") else ""
    return number.rstrip("0").rstrip(".") + percent


@pytest.mark.parametrize(
    ("language", "screen"), [("en", DESK), ("zh", PHONE)], ids=["en-desk", "zh-phone"]
)
def test_fairness_is_told_as_it_was_measured(
    browser: Browser,
    server: PageServer,
    figures: dict[str, Any],
    language: str,
    screen: dict[str, Any],
) -> None:
    """Places of creators 1, 2, 3: 400, 0, 100. So Gini is (2 · 400) / (3 · 500), the largest of
    three has 400 of 500, two of three are shown; of the likes of known creators, 150 and 50 of
    200, the shares are 0.75 and 0.25 beside 0.8 and 0.2 shown. NDCG@2 is 1 in "a"; in "b" half
    have it in the second place, 1 / log2(3) = 0.6309, and half not at all.
    """
    words = {
        "en": (
            "Creators' exposure, first 2 places",
            "Gaps between groups of viewers",
            "not compared",
        ),
        "zh": ("作者曝光（前 2 位）", "观众群体间的差距", "未比较"),
    }
    exposure, gaps, not_compared = words[language]
    with opened(browser, server, f"?user=u9&lang={language}#run", **screen) as page:
        ends = figures["creators"]["ci"]
        assert [value for _, value in lines(page, exposure)] == [
            "3",
            "66.7%",
            between(".4f", language, "0.5333", ends["gini"]),
            between(".1%", language, "80%", ends["top_1_percent"]),
            "5%",
        ]
        (region, metric, gap, best, worst, p), (age, _, no_gap, *_) = lines(page, gaps)
        assert (region, metric, best, worst) == ("region", "ndcg@2", "a: 1", "b: 0.3155")
        assert gap == between(".4f", language, "0.6845", figures["groups"]["region"]["ci"])
        assert p == "0.001"  # one of 999 permutations and the truth
        assert age == "age" and not_compared in no_gap
        assert page.evaluate("document.documentElement.scrollWidth") <= screen["viewport"]["width"]
        assert not violations(page)
