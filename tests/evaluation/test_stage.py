"""The evaluate stage: where it writes, and what is printed of it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recsys.cli import print_report
from recsys.config.run import EvaluateConfig, RerankConfig, load_config
from recsys.data.ragged import Ragged
from recsys.evaluation.baselines.simple import random_order
from recsys.evaluation.metrics.interactions import RankingSet, VideoTable
from recsys.evaluation.report.assemble import assemble
from recsys.evaluation.report.page import render
from recsys.evaluation.report.wording import baseline_lines
from recsys.evaluation.stage import Workers, evaluate, plan_workers
from recsys.inference.predict import drawn_users
from tests.conftest import TrainedRun


def report(k: tuple[int, ...]) -> dict[str, Any]:
    """Of 40 users and 60 videos, ten of them cold, with a model that knows something."""
    rng = np.random.default_rng(0)
    relevant = [sorted(rng.choice(np.arange(1, 61), 3, replace=False)) for _ in range(40)]
    videos = VideoTable(np.arange(61) > 50, rng.integers(0, 9, 61))
    users = [str(user) for user in range(40)]
    data = RankingSet(users, Ragged.from_lists(relevant), Ragged.empty(40), videos)
    scores = torch.rand(40, 61, generator=torch.Generator().manual_seed(0))
    for user, rows in enumerate(relevant):
        scores[user, [int(row) for row in rows]] += 0.5
    config = EvaluateConfig(k=k, bootstrap=0, tradeoff_users=0)
    rankers = {"model": lambda a, b: scores[a:b], "random": random_order(61)}
    about = {"baselines": {"users": 9, "half_life_days": 1.0, "neighbours": 50}}
    return assemble(data, rankers, config, RerankConfig(), about=about)[0]


@pytest.mark.parametrize(
    ("k", "headline"),
    [((10, 50), 10), ((5,), 5), ((20, 50), 20), ((50, 20), 20), ((5, 10, 50), 10), ((1, 5, 50), 5)],
)
def test_table_page_and_verdict_go_by_a_cutoff_that_is_there(
    k: tuple[int, ...], headline: int, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = report(k)
    assert whole["setup"]["metric"] == f"ndcg@{headline}"
    print_report("evaluate", whole)
    printed = capsys.readouterr().out
    for ranker in ("model", "random"):
        figures = whole["evaluation"][ranker]
        (row,) = (line.split() for line in printed.splitlines() if line.startswith(ranker))
        names = ("ndcg", "hr", "recall", "mrr")
        expected = [figures["all"][f"{name}@{headline}"] for name in names]
        for part in ("warm", "cold", "warm_among_warm", "cold_among_cold"):
            expected.append(figures[part][f"ndcg@{headline}"])
        assert row[1:] == [f"{value:.4f}" for value in expected]
    assert f"NDCG@{headline}" in whole["verdict"]["evidence"]
    page = render(whole, title="x")
    assert f"NDCG@{headline}, all users" in page and "Warm among warm (" in page
    others = [f"First {other} instead" for other in k if other != headline]
    assert all(text in page for text in others) and f"First {headline} instead" not in page


def test_a_lost_slice_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """The random order is made better on cold videos than the model, which never shows them."""
    whole = report((10,))
    assert "better than every baseline: warm" in " ".join(
        finding["text"] for finding in whole["verdict"]["findings"]
    )
    rng = np.random.default_rng(0)
    videos = VideoTable(np.arange(61) > 50, rng.integers(0, 9, 61))
    relevant = Ragged.from_lists([[1 + user % 50, 51 + user % 10] for user in range(200)])
    data = RankingSet([str(u) for u in range(200)], relevant, Ragged.empty(200), videos)
    scores = torch.zeros(200, 61)
    for user in range(200):
        scores[user, 1 + user % 50], scores[user, 51:] = 1.0, -1.0
    rankers = {"model": lambda a, b: scores[a:b], "random": random_order(61)}
    config = EvaluateConfig(k=(10,), bootstrap=0, tradeoff_users=0)
    verdict = assemble(data, rankers, config, RerankConfig())[0]["verdict"]
    assert verdict["decision"] == "better"
    texts = [finding["text"] for finding in verdict["findings"]]
    assert any(text.startswith("Cold videos: the model is worse than random.") for text in texts)
    assert any(
        text.startswith("Cold among cold videos: the model is not shown to be better than random.")
        for text in texts
    )
    assert any(
        text.endswith("better than every baseline: warm, warm among warm.") for text in texts
    )


def test_each_slice_has_a_rival_of_its_own() -> None:
    """One ranker knows warm videos alone, another cold ones alone, and the model half of both."""
    videos = VideoTable(np.arange(61) > 50, np.ones(61, np.int64))
    relevant = Ragged.from_lists([[1 + user % 50, 51 + user % 10] for user in range(200)])
    data = RankingSet([str(u) for u in range(200)], relevant, Ragged.empty(200), videos)
    warm, cold = torch.zeros(200, 61), torch.zeros(200, 61)
    for user in range(200):
        warm[user, 1 + user % 50], cold[user, 51 + user % 10] = 1, 1
    half = (warm + cold) * (torch.arange(200) % 2)[:, None]
    rankers = {
        "model": lambda a, b: half[a:b],
        "warm only": lambda a, b: warm[a:b],
        "cold only": lambda a, b: cold[a:b],
    }
    config = EvaluateConfig(k=(10,), bootstrap=0, tradeoff_users=0)
    verdict = assemble(data, rankers, config, RerankConfig())[0]["verdict"]
    texts = " ".join(finding["text"] for finding in verdict["findings"])
    for part in ("Warm", "Warm among warm"):
        assert f"{part} videos: the model is worse than warm only." in texts
    for part in ("Cold", "Cold among cold"):
        assert f"{part} videos: the model is worse than cold only." in texts


@pytest.mark.ray
def test_all_that_it_writes_lies_in_out(trained_run: TrainedRun, tmp_path: Path) -> None:
    def files(folder: Path) -> dict[str, int]:
        return {str(p): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}

    before = files(trained_run.run)
    config = load_config(trained_run.config_path, list(trained_run.settings))
    out = tmp_path / "elsewhere"
    report = evaluate(config, str(out))
    assert files(trained_run.run) == before
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert names == {"report.html", "users/model.parquet", "users/model-tasks.parquet"}
    assert {"EASE", "EASE + recent popularity", "content-kNN"} <= set(report["evaluation"])
    for figures in report["evaluation"].values():
        assert {"warm", "cold", "warm_among_warm", "cold_among_cold"} <= set(figures)


@pytest.mark.parametrize("users", [1, 7, 20, 10**6])
def test_users_are_drawn_from_all_partitions_alike(users: int) -> None:
    """So many in all, each once and of its own partition; the draw follows from the seed."""
    config = EvaluateConfig(users=users)
    parts = [np.arange(number * 10, number * 10 + 5 + number) for number in range(4)]
    drawn = [drawn_users(part, config, number, 4) for number, part in enumerate(parts)]
    assert sum(map(len, drawn)) == min(users, 26)
    for part, some in zip(parts, drawn, strict=True):
        assert set(some) <= set(part) and len(set(some)) == len(some)
        assert some.tolist() == sorted(some)
    again = [drawn_users(part, config, number, 4) for number, part in enumerate(parts)]
    assert [part.tolist() for part in again] == [part.tolist() for part in drawn]


def test_every_user_is_measured_without_the_setting() -> None:
    assert drawn_users(np.arange(9), EvaluateConfig(), 3, 4).tolist() == list(range(9))


def test_the_page_says_that_users_were_drawn() -> None:
    whole = report((10,))
    whole["setup"]["drawn"] = {"users": 40, "of": 123_456}
    text = "40 drawn at random of 123,456 users with an event in the test"
    assert text in render(whole, title="x")
    made = {"users": 9, "half_life_days": 1.0, "neighbours": 50, "neighbours_share": 0.12}
    lines = [line.replace("\xa0", " ") for line in baseline_lines(made)]
    assert "Item-kNN is made of 12 % of the users, drawn at random." in lines
    lines = [line.replace("\xa0", " ") for line in baseline_lines({**made, "users_share": 0.5})]
    assert lines[-2:] == [
        "Recent popularity, item-kNN and EASE are made of the likes of 50 % of the users, drawn at "
        "random.",
        "Item-kNN is made of 12 % of these users, drawn at random.",
    ]


@pytest.mark.parametrize(
    ("free", "use_gpu", "workers"),
    [
        ({"CPU": 16.0}, True, Workers(8, 1.0)),
        ({"CPU": 3.0, "GPU": 2.0}, False, Workers(3, 1.0)),
        ({"CPU": 3.0, "GPU": 2.0}, True, Workers(2, 0.0, 1.0)),
        ({"GPU": 99.0}, True, Workers(8, 0.0, 1.0)),
        ({"CPU": 4.0, "GPU": 0.33339}, True, Workers(1, 0.0, 0.3333)),
        ({"CPU": 4.0, "GPU": 0.00001}, True, Workers(4, 1.0)),
        ({"CPU": 0.5}, True, Workers(1, 0.5)),
        ({}, True, Workers(1, 0.0)),
    ],
)
def test_workers_ask_for_what_is_free(
    free: dict[str, float], use_gpu: bool, workers: Workers
) -> None:
    """Of eight partitions."""
    assert plan_workers(free, 8, use_gpu=use_gpu) == workers


ON_A_GPU = """
import sys
import ray
from recsys import cluster
from recsys.config.run import load_config
from recsys.evaluation import stage

device, sees = sys.argv[1].split(",")
wanted = device == "auto" and sees == "seen"

class OnAGpu(stage.PredictPartitions):
    def __init__(self, held):
        assert cluster.has_gpu() == wanted
        super().__init__(held)

stage.PredictPartitions = OnAGpu
cluster.gpus_compute = lambda: sees == "seen"
ray.init(num_cpus=0, num_gpus=1, include_dashboard=False, log_to_driver=False)
config = load_config(sys.argv[2], [*sys.argv[4:], "train.device=" + device])
report = stage.evaluate(config, sys.argv[3])
print(report["evaluation"]["model"]["all"]["ndcg@10"])
"""


@pytest.mark.ray
@pytest.mark.parametrize("device", ["auto,seen", "auto,hidden", "cpu,seen"])
def test_predicts_on_a_gpu_where_one_is_free(
    device: str, trained_run: TrainedRun, tmp_path: Path
) -> None:
    """On a node that offers a GPU (which is none) and not one core, and PyTorch sees it or not."""
    settings = [str(trained_run.config_path), str(tmp_path / "out"), *trained_run.settings]
    done = subprocess.run(
        [sys.executable, "-c", ON_A_GPU, device, *settings],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert ("evaluate: on the nodes with a GPU PyTorch sees none" in done.stderr) == (
        device == "auto,hidden"
    )
    known = json.loads((trained_run.run / "report.json").read_text())["evaluation"]["model"]
    assert float(done.stdout.split()[-1]) == pytest.approx(known["all"]["ndcg@10"])
