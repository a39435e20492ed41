"""The whole chain on the tiny demo world: mp4 files in, HTTP answers out."""

import json
import logging
import os
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recsys.cli import main
from recsys.config.run import RunConfig, load_config
from recsys.data.storage import remove, write_json
from recsys.errors import InputError
from recsys.features.batches import event_batch
from recsys.features.counts import trending
from recsys.model.user import states_at
from recsys.pipeline import BY_NAME, STAGES, Stage, is_current, run_stage
from recsys.schema import TEST
from recsys.serve.app import running
from recsys.train.trained import Trained, load_trained
from tests.conftest import TrainedRun
from tests.nodes import quiet_port
from tests.steps import repeat_scores

pytestmark = pytest.mark.ray

NAMES = [stage.name for stage in STAGES]


def config_of(trained: TrainedRun, *settings: str) -> RunConfig:
    return load_config(trained.config_path, [*trained.settings, *settings])


def test_the_report_holds_every_stages_figures(trained_run: TrainedRun) -> None:
    report = json.loads((trained_run.run / "report.json").read_text())
    assert list(report["seconds"]) == NAMES
    assert all(seconds > 0 for seconds in report["seconds"].values())
    assert report["prepare"]["videos"] == report["decode"]["ok"] == 24
    evaluation = report["evaluation"]
    assert {"model", "popularity", "random"} <= evaluation.keys()
    for ranker in ("model", "popularity", "random"):
        for part in ("all", "warm", "cold"):
            figures = evaluation[ranker][part]
            assert {"hr@10", "recall@10", "ndcg@10", "mrr@10"} <= figures.keys(), (ranker, part)
            assert 0 <= figures["ndcg@10"] <= figures["hr@10"] <= 1
    assert set(evaluation["model"]["tasks"]) == {"watched", "liked"}
    assert 0 <= evaluation["model"]["tasks"]["watched"]["auc"] <= 1
    assert len(report["train"]["history"]) == 2


def test_what_a_run_leaves_behind(trained_run: TrainedRun) -> None:
    run = trained_run.run
    version = (run / "bundles" / "CURRENT").read_text().strip()
    assert (run / "bundles" / version).is_dir()
    assert (run / "decode" / "clips.lance").is_dir()
    assert (run / "decode" / "quarantine.parquet").is_file()
    assert list((run / "train" / "tensorboard").iterdir())
    assert load_config(str(run / "config.yaml")) == config_of(trained_run)


def times(folder: Path) -> dict[str, int]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in files
        if path.name not in ("report.json", "config.yaml")
    }


def test_a_second_run_skips_every_stage(
    trained_run: TrainedRun, caplog: pytest.LogCaptureFixture
) -> None:
    before = times(trained_run.run)
    with caplog.at_level(logging.INFO, "recsys"):
        assert main(["run", "--config", trained_run.config_path, *trained_run.settings]) == 0
    assert caplog.messages == [f"{name}: up to date, skipped" for name in NAMES]
    assert times(trained_run.run) == before


@pytest.mark.parametrize(
    ("setting", "stale"),
    [
        ("train.lr=0.01", ["train", "evaluate", "publish"]),
        ("model.dim=8", ["train", "evaluate", "publish"]),
        ("prepare.min_video_events=2", ["train", "evaluate", "publish"]),
        ("decode.frames=2", ["decode", "train", "evaluate", "publish"]),
        ("prepare.partitions=5", NAMES),
        ("split.test_from=2024-03-19", NAMES),
        ("data.columns.tasks=[watched]", NAMES),
        ("evaluate.mask_history=false", ["train", "evaluate", "publish"]),
        ("rerank.diversity=0.1", ["evaluate", "publish"]),
        ("publish.index=pq", ["publish"]),
        ("serve.max_k=7", ["publish"]),
        ("train.workers=2", []),
        ("decode.workers=1", []),
        ("tune.trials=3", []),
    ],
)
def test_a_changed_setting_makes_what_follows_from_it_stale(
    trained_run: TrainedRun, setting: str, stale: list[str]
) -> None:
    config = config_of(trained_run, setting)
    assert [stage.name for stage in STAGES if not is_current(config, stage)] == stale


def test_changed_events_make_everything_stale(trained_run: TrainedRun) -> None:
    config, events = config_of(trained_run), trained_run.world / "events.parquet"
    before = events.stat()
    try:
        os.utime(events, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))
        assert not any(is_current(config, stage) for stage in STAGES)
    finally:
        os.utime(events, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert all(is_current(config, stage) for stage in STAGES)


def test_a_stage_does_not_take_what_other_settings_left(trained_run: TrainedRun) -> None:
    for name, setting in (("train", "split.test_from=2024-03-19"), ("evaluate", "train.lr=0.01")):
        with pytest.raises(InputError, match=f"{name} needs the .* run `recsys .*` first"):
            run_stage(config_of(trained_run, setting), BY_NAME[name])


def test_a_stage_that_failed_halfway_is_not_current(
    trained_run: TrainedRun, tmp_path: Path
) -> None:
    """Not even for the settings of the last time that it ended well."""
    config = config_of(trained_run, f"run={tmp_path}")
    good = Stage("extra", "extra", lambda c: 1, (), lambda *_: {"x": 1})

    def fail(*_: object) -> dict[str, Any]:
        raise RuntimeError("power cut")

    run_stage(config, good)
    assert is_current(config, good)
    with pytest.raises(RuntimeError, match="power cut"):
        run_stage(config, replace(good, settings=lambda c: 2, run=fail))
    assert not is_current(config, good)


def test_a_bundle_holds_the_figures_of_its_own_training_alone(
    trained_run: TrainedRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As after `recsys train` with other settings and `recsys publish` without evaluating."""
    for name in ("prepare", "decode", "train", "evaluate"):
        (tmp_path / name).symlink_to(trained_run.run / name)
    config = config_of(trained_run, f"run={tmp_path}")
    figures = json.loads((tmp_path / "evaluate" / "report.json").read_text())
    assert figures["evaluation"]["model"]["all"]["users"] > 0

    def published() -> Any:
        with caplog.at_level(logging.INFO, "recsys"):
            caplog.clear()
            version = run_stage(config, BY_NAME["publish"])["version"]
        return json.loads((tmp_path / "bundles" / version / "manifest.json").read_text())["metrics"]

    assert published() == figures["evaluation"]
    assert not any("figures" in line for line in caplog.messages)
    (tmp_path / "evaluate").unlink()
    for report in ({**figures, "trained": "another"}, {"evaluation": figures["evaluation"]}, None):
        if report is not None:
            write_json(report, str(tmp_path / "evaluate" / "report.json"))
        else:
            remove(str(tmp_path / "evaluate"))
        remove(str(tmp_path / "bundles" / "report.json"))
        assert not published()
        (line,) = [line for line in caplog.messages if "figures" in line]
        assert line.startswith("publish: no figures go into the bundle, for this training has not")
    write_json(figures, str(tmp_path / "evaluate" / "report.json"))
    assert published() == figures["evaluation"], "there are some now: it is out of date"


@pytest.fixture(scope="module")
def model(trained_run: TrainedRun) -> Trained:
    return load_trained(config_of(trained_run))


@pytest.fixture(scope="module")
def address(trained_run: TrainedRun) -> Iterator[str]:
    with running(str(trained_run.run), port=quiet_port()) as address:
        yield address


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def requests(trained: Trained, partition: int) -> Iterator[tuple[dict[str, Any], np.ndarray]]:
    """Test events as requests, with the trained model's own (score, probabilities …) of them."""
    timelines = trained.prepared.timelines(partition)
    tabs = trained.prepared.vocab("context_tab")
    ids = trained.prepared.catalog.video_ids().to_pylist()
    for user in np.flatnonzero(timelines.count_before(TEST + 1) > timelines.count_before(TEST))[:2]:
        start, stop = timelines.offsets[user : user + 2]
        arrays = timelines.windows([start], [stop])
        events = event_batch(arrays)
        with torch.no_grad():
            vectors = trained.vectors[torch.from_numpy(arrays.video_rows)]
            states = trained.model.encode_history(vectors, events)
            at = states_at(states, events.num_prior)
            scores = (trained.model.queries(at) * vectors[..., : trained.model.dim]).sum(-1)
            scores = (scores + repeat_scores(trained.model, arrays))[0]
            logits = trained.model.task_logits(at, vectors, events.context, events.count_features)[
                0
            ]
        i = int(timelines.count_before(TEST)[user])
        now_ms, row = int(timelines.time_ms[start + i]), timelines.video_rows[start + i]
        now = trending(trained.prepared.counts.shown(now_ms))
        scores[i] += trained.model.trending * float(now[row])
        yield (
            {
                "user_id": timelines.user_ids[user],
                "video_ids": [ids[row]],
                "now_ms": now_ms,
                "context": {"tab": tabs.id(int(timelines.context_rows[start + i, 0]))},
            },
            np.array([scores[i].item(), *logits[i].sigmoid().tolist()]),
        )


def test_scores_over_http_are_the_trained_models_own(model: Trained, address: str) -> None:
    """Same history, same time: retrieval score and task probabilities within 1e-4."""
    asked = [pair for part in range(3) for pair in requests(model, part)]
    assert len(asked) == 6
    for body, expected in asked:
        (item,) = post(f"{address}/v1/score", body)["items"]
        answered = [item["score"], item["probabilities"]["watched"], item["probabilities"]["liked"]]
        assert answered == pytest.approx(expected.tolist(), abs=1e-4), body


@pytest.mark.parametrize("masked", [True, False])
def test_lists_at_the_cut_are_those_of_the_evaluation(
    model: Trained, address: str, masked: bool
) -> None:
    """Without what a user liked before, in both, where nothing else is asked for.

    What is trending then is in both, with the weight that the validation days gave.
    """
    assert float(model.model.trending) != 0
    predictions = model.predictor.predict(model.prepared.timelines(0), split=TEST)
    scores = model.predictor.ranker(predictions)(0, len(predictions.user_ids))
    scores[:, 0] = -torch.inf
    if masked:
        owners, rows = predictions.known.pairs(0, len(predictions.user_ids))
        assert len(rows)
        scores[torch.from_numpy(owners), torch.from_numpy(rows).long()] = -torch.inf
    ids = model.prepared.catalog.video_ids().to_pylist()
    assert predictions.user_ids
    for user, best in zip(predictions.user_ids, scores.topk(10).indices.tolist(), strict=True):
        body = {"user_id": user, "k": 10, "now_ms": model.prepared.cut_ms(TEST)}
        body |= {} if masked else {"exclude_seen": False}
        answer = post(f"{address}/v1/recommend", body)
        assert [item["video_id"] for item in answer["items"]] == [ids[row] for row in best]


def test_cold_videos_are_recommended_from_their_content(model: Trained, address: str) -> None:
    """All of the catalogue is in the index, also what nobody has seen in training."""
    answer = post(f"{address}/v1/recommend", {"user_id": "stranger", "k": 24})
    recommended = {item["video_id"] for item in answer["items"]}
    cold = np.flatnonzero(model.cold_N)[1:]
    ids = model.prepared.catalog.video_ids().to_pylist()
    assert len(cold) > 0
    assert {ids[row] for row in cold} <= recommended
    assert len(recommended) == 24
