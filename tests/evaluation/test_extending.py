"""A new baseline, metric or lever is one entry of its table, and is then seen everywhere."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from recsys.cli import print_report
from recsys.config.run import EvaluateConfig, RerankConfig, RunConfig
from recsys.data.ragged import Ragged
from recsys.errors import InputError
from recsys.evaluation.baselines import table as baselines
from recsys.evaluation.baselines.likes import Likes
from recsys.evaluation.metrics import table as metrics
from recsys.evaluation.metrics.expected import HitSums
from recsys.evaluation.metrics.interactions import RankingSet, VideoTable
from recsys.evaluation.report.assemble import assemble
from recsys.evaluation.report.files import LISTS, TASKS, compare_runs, write_users
from recsys.evaluation.report.page import render
from recsys.evaluation.report.verdict import verdict
from recsys.inference import rerank

CONFIG = EvaluateConfig(k=(5,), bootstrap=30, tradeoff_users=40)
EVEN_N = np.arange(61) % 2 == 0


class WithEvenRows(RerankConfig):
    """The section with the setting of a new lever."""

    even_rows: float = 0.0


def first_hit_is_first(sums: HitSums, num_relevant_B: torch.Tensor, k: int) -> torch.Tensor:
    return sums.hits(1)


def even(videos: VideoTable, new_days: float) -> NDArray[np.bool_]:
    return EVEN_N


NEW_METRICS = (
    metrics.Metric(
        "top",
        "first place",
        "Share of users whose first video is relevant.",
        metrics.OfHits(first_hit_is_first),
        is_main=True,
        is_share=True,
    ),
    metrics.Metric(
        "even",
        "even rows",
        "Share of videos with an even row.",
        metrics.MeanOfVideos(even),
        is_share=True,
        on_curve=True,
    ),
)
NEW_BASELINE = baselines.Baseline(
    "by row",
    "The last row first.",
    lambda known: lambda start, stop: torch.arange(61.0).expand(stop - start, -1),
    lambda about: "by row with nothing",
)
NEW_LEVER = rerank.Lever(
    "even_rows",
    lambda traits: traits.is_new_N is not None,
    "even rows",
    "even",
    "even rows in a list",
    (0.5, 2.0),
    lambda traits: EVEN_N.astype(np.float64),
)


@pytest.fixture
def extended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "METRICS", (*metrics.METRICS, *NEW_METRICS))
    monkeypatch.setattr(baselines, "BASELINES", (*baselines.BASELINES, NEW_BASELINE))
    monkeypatch.setattr(rerank, "LEVERS", (*rerank.LEVERS, NEW_LEVER))


def data() -> RankingSet:
    rng = np.random.default_rng(0)
    relevant = [sorted(rng.choice(np.arange(1, 61), 3, replace=False)) for _ in range(40)]
    videos = VideoTable(np.arange(61) > 50, rng.integers(0, 9, 61), age_days_N=np.full(61, 9.0))
    users = [str(user) for user in range(40)]
    return RankingSet(users, Ragged.from_lists(relevant), Ragged.empty(40), videos)


def evaluated(settings: RerankConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """A model that ranks by row, from the first on, beside all baselines."""
    test = data()
    likes = Likes(Ragged.empty(40), np.zeros(0, np.int64), np.zeros(0, np.int8))
    made = baselines.make_baselines(likes, test, CONFIG.model_copy(update={"ease_videos": 0}))
    scores = -torch.arange(61.0) / 100
    rankers = {"model": lambda a, b: scores.expand(b - a, -1), **made.rankers}
    return assemble(test, rankers, CONFIG, settings, about={"baselines": made.about})


@pytest.fixture
def report(extended: None) -> dict[str, Any]:
    """Of a model whose lists are re-ranked by the new lever."""
    return evaluated(WithEvenRows(even_rows=2.0, candidates=20, page=5))[0]


def share_with(row: int) -> float:
    """The share of users who have a video among their relevant ones."""
    return float(np.mean([row in rows for rows in np.split(data().relevant.values, 40)]))


def test_a_new_metric_is_in_the_report(report: dict[str, Any]) -> None:
    evaluation = report["evaluation"]
    assert evaluation["model"]["all"]["top@5"] == pytest.approx(share_with(1))
    assert evaluation["by row"]["all"]["top@5"] == share_with(60)
    assert evaluation["model"]["even@5"] == pytest.approx(2 / 5)  # rows 1 to 5
    assert evaluation["by row"]["even@5"] == pytest.approx(3 / 5)  # rows 60 to 56
    assert evaluation["model_reranked"]["even@5"] == 1
    assert "top@5" in evaluation["model"]["warm"]


@pytest.mark.usefixtures("extended")
def test_a_new_metric_has_a_value_for_each_user() -> None:
    _, columns = evaluated(WithEvenRows())
    assert columns["model"]["even@5"][0] == 2 / 5


def test_a_new_metric_is_compared_with_the_new_baseline(report: dict[str, Any]) -> None:
    rows = {row["metric"]: row for row in report["comparisons"]["by row"]}
    assert rows["top@5"]["ours"] == pytest.approx(share_with(1))
    assert rows["top@5"]["p_holm"] is not None
    assert "even@5" not in rows  # it is no main metric


def test_a_new_lever_has_a_trade_off_curve(report: dict[str, Any]) -> None:
    points = report["tradeoff"]["levers"]["even_rows"]
    assert [point["even"] for point in points] == [1, 1]
    assert report["tradeoff"]["plain"]["even"] == pytest.approx(2 / 5)
    assert report["tradeoff"]["configured"]["weights"]["even_rows"] == 2.0


def test_new_entries_are_on_the_terminal(
    report: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    print_report("evaluate", report)
    printed = capsys.readouterr().out
    assert "first place" in printed and "by row with nothing" in printed
    (row,) = (line for line in printed.splitlines() if line.startswith("by row "))
    assert f"{report['evaluation']['by row']['all']['top@5']:.4f}" in row


def test_new_entries_are_on_the_page(report: dict[str, Any]) -> None:
    page = render(report, title="x")
    for wanted in (
        "first place@5",
        "<dt>First place@k</dt><dd>Share of users whose first video is relevant.</dd>",
        "<dt>Even rows@k</dt><dd>Share of videos with an even row.</dd>",
        "<dt>by row</dt><dd>The last row first.</dd>",
        "by row with nothing",
        "<figcaption>rerank.even_rows</figcaption>",
        "NDCG against even rows in a list",
        '<th scope="col">Even rows</th>',
    ):
        assert wanted in page, wanted
    assert "<td>60\xa0%" in page and "<td>40\xa0%" in page  # a share, in per cent


@pytest.mark.usefixtures("extended")
def test_a_new_metric_is_in_the_comparison_of_two_runs(tmp_path: Path) -> None:
    ours, theirs = (str(tmp_path / name) for name in ("ours", "theirs"))
    report, columns = evaluated(WithEvenRows())
    for run, name in ((ours, "model"), (theirs, "by row")):
        write_users(f"{run}/evaluate", LISTS, data().user_ids, columns[name])
        write_users(f"{run}/evaluate", TASKS, data().user_ids, {})
    Path(ours, "evaluate", "report.json").write_text(json.dumps(report))
    config = RunConfig.model_construct(run=ours, evaluate=CONFIG)
    rows = {row["metric"]: row for row in compare_runs(config, theirs)}
    assert rows["top@5"]["p_holm"] is not None
    assert rows["even@5"]["p_holm"] is None
    assert rows["even@5"]["difference"] == pytest.approx(-1 / 5)
    page = Path(ours, "evaluate", "report.html").read_text()
    assert "<td>even rows@5</td>" in page


@pytest.mark.usefixtures("extended")
def test_a_new_lever_is_active_and_says_what_it_needs() -> None:
    assert rerank.is_active(WithEvenRows(even_rows=1))
    with pytest.raises(InputError, match="rerank.even_rows=1.0: needs even rows"):
        rerank.Reranker(WithEvenRows(even_rows=1), rerank.VideoTraits())


@pytest.mark.usefixtures("extended")
def test_the_verdict_speaks_of_a_lever_that_evens_out_creators(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report, _ = evaluated(WithEvenRows())
    point = {"weights": {"even_rows": 0.5}, "gini_change": -0.3, "ndcg_change": -0.01}
    report["tradeoff"] = {**report["tradeoff"], "levers": {"even_rows": [point]}}
    assert "rerank.even_rows" not in str(verdict(report))
    evening = dataclasses.replace(NEW_LEVER, figure="gini")
    monkeypatch.setattr(rerank, "LEVERS", (*rerank.LEVERS[:-1], evening))
    assert "rerank.even_rows=0.5 changes the Gini" in str(verdict(report))
