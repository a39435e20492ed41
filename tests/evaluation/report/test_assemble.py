"""The verdict and the page: what they say, and that all text is escaped and nothing fetched."""

import dataclasses
import json
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import torch

from recsys.config.run import EvaluateConfig, RerankConfig
from recsys.data.ragged import Ragged
from recsys.evaluation.baselines.simple import popularity, random_order
from recsys.evaluation.metrics.classification import TaskMeter
from recsys.evaluation.metrics.interactions import RankingSet, VideoTable
from recsys.evaluation.report.assemble import assemble
from recsys.evaluation.report.page import render
from recsys.evaluation.report.verdict import best_baseline, verdict

CONFIG = EvaluateConfig(k=(5, 50), bootstrap=40, tradeoff_users=100)


def data(num_users: int = 260) -> RankingSet:
    rng = np.random.default_rng(0)
    videos = VideoTable(
        cold_N=np.arange(61) > 50,
        popularity_N=rng.integers(0, 30, 61),
        creator_row_N=rng.integers(1, 20, 61).astype(np.int32),
        categories=Ragged.from_lists([[number % 5] for number in range(61)]),
        age_days_N=rng.uniform(-1, 40, 61),
    )
    relevant = [sorted(rng.choice(np.arange(1, 61), 3, replace=False)) for _ in range(num_users)]
    known = [
        np.setdiff1d(rng.choice(np.arange(1, 61), user % 9), relevant[user])
        for user in range(num_users)
    ]
    users = [str(user) for user in range(num_users)]
    groups = {
        "<b>place</b>": ["<i>north</i>" if user % 2 else "south" for user in range(num_users)]
    }
    return RankingSet(users, Ragged.from_lists(relevant), Ragged.from_lists(known), videos, groups)


def informed(ranking_set: RankingSet, strength: float) -> torch.Tensor:
    """Scores that know what is relevant, more or less."""
    scores = torch.randn(
        ranking_set.num_users, ranking_set.num_videos, generator=torch.Generator().manual_seed(0)
    )
    owners, rows = ranking_set.relevant.pairs(0, ranking_set.num_users)
    scores[torch.from_numpy(owners), torch.from_numpy(rows).long()] += strength
    return scores


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    ranking_set = data()
    scores = informed(ranking_set, 2.0)
    meter = TaskMeter()
    labels = np.arange(400) % 2
    meter.add(labels, labels - 0.5, np.arange(400) % 7 == 0, np.arange(400) // 4)
    whole, columns = assemble(
        ranking_set,
        {
            "model": lambda a, b: scores[a:b],
            "popularity": popularity(ranking_set.videos.popularity_N),
            "random": random_order(61),
        },
        CONFIG,
        RerankConfig(diversity=0.3, candidates=30),
        heads={"model": ({"click<&>": meter.result(bootstrap=20)}, {})},
    )
    assert set(columns) == {"model", "popularity", "random", "model_reranked"}
    return whole


def test_report_is_plain_json(report: dict[str, Any]) -> None:
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["setup"]["users"] == 260 and report["setup"]["videos"] == 60
    assert report["setup"]["cold_videos"] == 10 and report["setup"]["metric"] == "ndcg@5"
    assert set(report["comparisons"]) == {"popularity", "random", "model_reranked"}
    rows = {row["metric"]: row for row in report["comparisons"]["random"]}
    whole = report["evaluation"]["model"]["all"]
    assert rows["ndcg@5"]["ours"] == pytest.approx(whole["ndcg@5"])
    assert report["tradeoff"]["users"] == 100


def test_a_good_model_is_called_better(report: dict[str, Any]) -> None:
    decision = report["verdict"]
    assert decision["decision"] == "better" and "better than every baseline" in decision["headline"]
    levels = {item["text"].partition(":")[0]: item["level"] for item in decision["findings"]}
    assert levels["Videos without training events are found better than by chance"] == "good"
    assert levels["click<&>"] == "warn"  # logits of ±1/2 for labels that are certain


@pytest.mark.parametrize(("strength", "decision"), [(0.0, "unclear"), (-2.0, "worse")])
def test_other_models_are_not(strength: float, decision: str) -> None:
    ranking_set = data()
    scores = informed(ranking_set, strength)
    rankers = {"model": lambda a, b: scores[a:b], "random": random_order(61)}
    config = CONFIG.model_copy(update={"tradeoff_users": 0})
    whole, _ = assemble(ranking_set, rankers, config, RerankConfig())
    assert whole["verdict"]["decision"] == decision
    assert "random" in whole["verdict"]["headline"] and whole["tradeoff"] is None


def findings_of(report: dict[str, Any]) -> str:
    return " ".join(finding["text"] for finding in verdict(report)["findings"]).replace("\xa0", " ")


def test_what_the_lever_cannot_do_is_said_with_the_reason(report: dict[str, Any]) -> None:
    point = {"weights": {"creator_exposure": 0.1}, "gini_change": -0.05, "ndcg_change": -0.01}
    dear = {"weights": {"drawn_places": 2}, "gini_change": -0.22, "ndcg_change": -0.09}
    curve = {**report["tradeoff"], "levers": {"creator_exposure": [point], "drawn_places": [dear]}}
    text = findings_of({**report, "tradeoff": curve})
    assert "No setting of the re-ranking comes to -20 % Gini" in text
    changes = "changes the Gini of creator exposure by"
    assert f"does: rerank.drawn_places=2 {changes} -22 % and NDCG by -9.0 %" in text
    assert f"price: rerank.creator_exposure=0.1 {changes} -5.0 % and NDCG by -1.0 %" in text
    curve["levers"] = {"creator_exposure": [{**point, "gini_change": -0.3}]}
    text = findings_of({**report, "tradeoff": curve})
    assert "No setting" not in text and f"{changes} -30 % and NDCG by -1.0 %" in text


@pytest.mark.parametrize(
    ("difference", "p", "said"),
    [(0.02, 0.01, "is better than"), (-0.02, 0.01, "is worse than"), (0.02, 0.2, "is not shown")],
)
def test_the_verdict_speaks_of_the_previous_bundle(
    report: dict[str, Any], difference: float, p: float, said: str
) -> None:
    row = {"metric": "ndcg@5", "ours": 0.1, "theirs": 0.1, "difference": difference, "p": p}
    row |= {"low": None, "high": None, "users": 9}
    about = {"version": "v1", "created": "2024-05-01T00:00:00", "same_split": difference > 0}
    whole = {
        **report,
        "setup": {**report["setup"], "previous": about},
        "comparisons": {**report["comparisons"], "previous": [row]},
    }
    text = findings_of(whole)
    assert f"The model {said}" in text and "the previous bundle (v1, of 2024-05-01)" in text
    assert ("made with another split" in text) == (difference < 0)


def test_best_baseline_is_neither_the_model_nor_its_reranking() -> None:
    figures = {"model": 0.5, "model_reranked": 0.6, "popularity": 0.2, "random": 0.1}
    evaluation = {name: {"all": {"ndcg@5": value}} for name, value in figures.items()}
    report = {"setup": {"metric": "ndcg@5"}, "evaluation": evaluation}
    assert best_baseline(report) == "popularity"


def test_a_model_alone_gets_no_decision() -> None:
    ranking_set = data()
    config = CONFIG.model_copy(update={"tradeoff_users": 0})
    whole, _ = assemble(ranking_set, {"model": random_order(61)}, config, RerankConfig())
    assert verdict(whole)["decision"] == "unclear"
    assert "nothing to compare" in render(whole, title="x")


class Reader(HTMLParser):
    """Collects tags and texts, and checks that every element is closed."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.addresses: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src")]
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader


def test_page_is_whole_escaped_and_fetches_nothing(report: dict[str, Any]) -> None:
    training = [{"epoch": at, "click<&>_loss": 1 / at, "ndcg@10": 0.1 * at} for at in (1, 2, 3)]
    against = {"run": "runs/<other>", "rows": report["comparisons"]["random"]}
    page = render({**report, "training": training, "against": against}, title="a <run> & more")
    reader = read(page)
    assert not {"script", "img", "b", "iframe", "object", "other"} & set(reader.tags)
    assert "<i>north" not in page and "<b>place" not in page
    assert reader.addresses == ["data:,"]
    assert "http" not in page and "@import" not in page and "url(" not in page
    text = " ".join(reader.texts)
    for wanted in ("a <run> & more", "runs/<other>", "<i>north</i> (130)", "click<&>"):
        assert wanted in text
    assert "nan" not in text.lower().split() and "None" not in text
    # Verdict, rankers, slices, calibration, groups, creators, three levers, two training charts.
    assert reader.tags.count("svg") >= 11


def test_page_without_anything_optional() -> None:
    ranking_set = data()
    bare = VideoTable(ranking_set.videos.cold_N, ranking_set.videos.popularity_N)
    plain = dataclasses.replace(ranking_set, videos=bare, groups={})
    rankers = {"model": random_order(61), "random": random_order(61)}
    config = EvaluateConfig(k=(5,), bootstrap=0)
    whole, _ = assemble(plain, rankers, config, RerankConfig())
    reader = read(render(whole, title="x"))
    assert "No group columns are set" in " ".join(reader.texts)
