"""`recsys refresh`: what is compared, what is published, and what a killed one goes on with."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from recsys import cli
from recsys.bundle.contents import Bundle
from recsys.bundle.versions import CURRENT, FORMAT, MANIFEST, new_version
from recsys.cli import main
from recsys.config.run import RunConfig, load_config
from recsys.data.run_folder import RunFolder
from recsys.data.vocab import Vocab
from recsys.errors import InputError
from recsys.evaluation.report.files import LISTS, write_users
from recsys.evaluation.report.verdict import PREVIOUS
from recsys.live.log.event import Event
from recsys.live.log.events import EventLog
from recsys.pipeline import BY_NAME, fingerprint
from recsys.prepare.showings import Showings
from recsys.refresh import RefreshDecision, refresh
from recsys.serve.app import running
from recsys.serve.client import Client
from tests.conftest import TrainedRun
from tests.inputs import event_rows, plus, write_input, write_rows
from tests.nodes import quiet_port, wait_for

USERS = 40


class Stages:
    """Stages that take no time: what ran, and how good the next model is.

    A "model" is the text in its folder; the vocabulary holds the number of the events' file.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ran: list[str] = []
        self.better = 0.0
        self.killed_in = ""
        self.started_from: list[str | None] = []
        for name in BY_NAME:
            stage = replace(BY_NAME[name], run=self._runs(name, getattr(self, f"_{name}")))
            monkeypatch.setitem(BY_NAME, name, stage)

    def _runs(self, name: str, work: Callable[..., dict[str, Any]]) -> Callable[..., Any]:
        def run(config: RunConfig, out: str, wanted: str) -> dict[str, Any]:
            if self.killed_in == name:
                raise KeyboardInterrupt
            self.ran.append(name)
            return work(config, RunFolder(config.run))

        return run

    def _prepare(self, config: RunConfig, folder: RunFolder) -> dict[str, Any]:
        size = str(Path(config.data.events).stat().st_size)
        Vocab([size]).write(folder.vocab("video"))
        return {}

    def _decode(self, config: RunConfig, folder: RunFolder) -> dict[str, Any]:
        return {}

    def _train(self, config: RunConfig, folder: RunFolder) -> dict[str, Any]:
        start = config.train.start_from
        self.started_from.append(start and Path(RunFolder(start).model, "model").read_text())
        Path(folder.model).mkdir(parents=True, exist_ok=True)
        Path(folder.model, "model").write_text(f"model {len(self.started_from)}")
        return {"prepared": fingerprint(config, BY_NAME["prepare"])}

    def _evaluate(self, config: RunConfig, folder: RunFolder) -> dict[str, Any]:
        users = [f"u{i}" for i in range(USERS)]
        figures = {LISTS: 0.5 + self.better, PREVIOUS: 0.5}
        for name, value in figures.items():
            write_users(folder.evaluate, name, users, {"ndcg@10": np.full(USERS, value)})
        return {"trained": fingerprint(config, BY_NAME["train"]), "evaluation": {}}

    def _publish(self, config: RunConfig, folder: RunFolder) -> dict[str, Any]:
        version = new_version()
        bundle = Path(folder.bundles, version)
        bundle.mkdir(parents=True)
        manifest = {
            "format": FORMAT,
            "version": version,
            "created": "",
            "sizes": {},
            "metrics": {},
            "files": {},
            "trained": fingerprint(config, BY_NAME["train"]),
        }
        (bundle / MANIFEST).write_text(json.dumps(manifest))
        Path(folder.bundles, CURRENT).write_text(version)
        return {"version": version}


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Stages:
    return Stages(monkeypatch)


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return load_config(str(write_input(tmp_path)))


def new_day(config: RunConfig, number: int = 1) -> None:
    """More events than there were."""
    more = {name: values[0] for name, values in event_rows().items()}
    rows = plus(event_rows(), *[more | {"user_id": f"new{i}"} for i in range(number)])
    write_rows(rows, Path(config.data.events))


def serving(config: RunConfig) -> str:
    return Path(RunFolder(config.run).bundles, CURRENT).read_text()


def test_without_a_bundle_the_first_model_is_published(stages: Stages, config: RunConfig) -> None:
    decision = refresh(config)
    assert stages.ran == ["prepare", "decode", "train", "evaluate", "publish"]
    assert stages.started_from == [None]
    assert decision["decision"] == "published" and decision["version"] == serving(config)
    assert (decision["previous"], decision["gate"]) == (None, None)
    assert json.loads(Path(config.run, "refresh", "report.json").read_text()) == decision


def test_nothing_new_is_nothing_to_do(stages: Stages, config: RunConfig) -> None:
    first = refresh(config)["version"]
    stages.ran.clear()
    decision = refresh(config)
    assert stages.ran == []
    assert (decision["decision"], decision["version"]) == ("kept", first)
    assert decision["reason"] == "nothing has happened since it was trained"


def test_each_model_starts_from_the_one_that_serves(stages: Stages, config: RunConfig) -> None:
    first = refresh(config)["version"]
    new_day(config)
    second = refresh(config)
    assert (second["decision"], second["previous"]) == ("published", first)
    assert second["version"] == serving(config) != first
    new_day(config, 2)
    stages.better = -0.3  # of 0.5, where 5 % may be lost
    refused = refresh(config)
    assert (refused["decision"], refused["version"]) == ("kept", second["version"])
    assert serving(config) == second["version"]
    assert refused["gate"] is not None and refused["gate"]["passed"] is False
    assert "not shown to be as good: ndcg@10 0.2000 against 0.5000 of 40 users" in refused["reason"]
    new_day(config, 3)
    stages.better = 0.0
    assert refresh(config)["decision"] == "published"
    # Never from the refused one, which was the third.
    assert stages.started_from == [None, "model 1", "model 2", "model 2"]


def test_the_start_has_the_vocabulary_of_its_model(stages: Stages, config: RunConfig) -> None:
    refresh(config)
    before = Vocab.read(RunFolder(config.run).vocab("video")).ids.to_pylist()
    new_day(config)
    refresh(config)
    start = RunFolder(RunFolder(config.run).refresh_start)
    assert Vocab.read(start.vocab("video")).ids.to_pylist() == before
    assert Vocab.read(RunFolder(config.run).vocab("video")).ids.to_pylist() != before


def test_a_model_of_other_tables_is_no_start(
    stages: Stages, config: RunConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """Prepared anew by hand: the vocabulary beside the model is not its own any more."""
    from recsys.pipeline import run_stages

    refresh(config)
    new_day(config)
    run_stages(config, ["prepare"])
    caplog.set_level("INFO", "recsys")
    refresh(config)
    assert "is not in the run folder; training starts anew" in caplog.text
    assert stages.started_from == [None, None]


@pytest.mark.parametrize("stage", ["decode", "train", "evaluate", "publish"])
def test_a_killed_refresh_goes_on_as_the_same(
    stages: Stages, config: RunConfig, stage: str
) -> None:
    first = refresh(config)["version"]
    new_day(config)
    stages.ran.clear()
    stages.killed_in = stage
    with pytest.raises(KeyboardInterrupt):
        refresh(config)
    assert serving(config) == first
    stages.killed_in = ""
    decision = refresh(config)
    assert stages.ran == list(BY_NAME), "each once"
    assert (decision["decision"], decision["previous"]) == ("published", first)
    assert stages.started_from == [None, "model 1"]
    assert not Path(RunFolder(config.run).refresh_underway).exists()


def test_a_killed_refresh_keeps_its_copy_of_the_log(stages: Stages, config: RunConfig) -> None:
    """The server's log grows all the time; a refresh that began anew each time would never end."""
    folder = RunFolder(config.run)
    with EventLog(str(Path(config.run, "live.sqlite"))) as log:
        log.append([Event(user_id="u0", video_id="v1")])
        stages.killed_in = "train"
        with pytest.raises(KeyboardInterrupt):
            refresh(config)
        log.append([Event(user_id="u0", video_id="v2")])
        stages.killed_in = ""
        stages.ran.clear()
        refresh(config)
        assert stages.ran == ["train", "evaluate", "publish"]
        copied = Showings.read(folder.showings)
        assert copied is not None and copied.latest_seq == 1
        assert refresh(config)["decision"] == "published", "of what came since"
        copied = Showings.read(folder.showings)
        assert copied is not None and copied.latest_seq == 2


def test_a_version_that_was_taken_back_stays_so(stages: Stages, config: RunConfig) -> None:
    first = refresh(config)["version"]
    new_day(config)
    second = refresh(config)["version"]
    Path(RunFolder(config.run).bundles, CURRENT).write_text(first)
    decision = refresh(config)
    assert decision["decision"] == "kept" and serving(config) == first
    assert decision["reason"] == f"this model was published as {second} and taken back"


def test_a_wrong_metric_is_found_before_anything_runs(stages: Stages, config: RunConfig) -> None:
    wrong = config.model_copy(
        update={"refresh": config.refresh.model_copy(update={"metric": "ndcg@11"})}
    )
    with pytest.raises(InputError, match="refresh.metric=ndcg@11: not a metric of lists; take one"):
        refresh(wrong)
    assert stages.ran == []


def test_the_command_ends_with_0_whatever_it_decides(
    stages: Stages,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(cli, "print_report", lambda *_: None)
    arguments = ["refresh", "--config", str(write_input(tmp_path))]
    assert main(arguments) == 0
    assert main(arguments) == 0
    assert main([*arguments, "refresh.confidence=2"]) == 2
    assert "refresh.confidence=2: input should be less than 1" in capsys.readouterr().err


@contextmanager
def endpoint_of(run: Path) -> Iterator[Client]:
    """A client of an endpoint that looks often for another version, on a slow machine too."""
    with (
        running(str(run), port=quiet_port(), watch_s=0.2) as address,
        Client(address, timeout_s=30.0, deadline_s=60.0) as client,
    ):
        yield client


@pytest.mark.ray
def test_from_live_events_to_a_swapped_endpoint(
    trained_run: TrainedRun, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Real stages beside a real endpoint, which changes to the new model by itself, or does not.

    The log's events are in the new bundle, whose model went on from the old one. A model that is
    not shown to be better where that is asked for, and one that is worse, never serve.
    """
    run = tmp_path / "run"
    shutil.copytree(trained_run.run, run)
    seen = pq.read_table(trained_run.world / "events.parquet").slice(0, 3).to_pylist()
    events: list[Any] = [{"user_id": e["user_id"], "video_id": e["video_id"]} for e in seen]

    arguments = [*trained_run.settings, f"run={run}", "train.epochs=1"]

    def refreshed(*settings: str) -> RefreshDecision:
        return refresh(load_config(trained_run.config_path, [*arguments, *settings]))

    before = Bundle.load(str(run))
    with endpoint_of(run) as client:
        assert client.model()["version"] == before.version
        client.send_events(events[0])
        new = refreshed("refresh.allowed_loss=0.99")
        assert (new["decision"], new["previous"]) == ("published", before.version)
        report = json.loads((run / "report.json").read_text())
        wait_for(lambda: client.model()["version"] == new["version"], "the swap")
        client.send_events(events[1])
        # It learns next to nothing, and only a proven gain will do.
        same = refreshed("train.lr=1e-6", "train.table_lr=1e-6", "refresh.allowed_loss=0")
        assert (same["decision"], same["version"]) == ("kept", new["version"])
        assert same["gate"] is not None and same["gate"]["passed"] is False
        assert client.model()["version"] == new["version"]
        client.send_events(events[2])
        # Steps that are far too large make a model that is worse; now as it is typed.
        broken = [*arguments, "train.lr=0.5", "train.table_lr=5"]
        assert main(["refresh", "--config", trained_run.config_path, *broken]) == 0
        worse = json.loads((run / "refresh" / "report.json").read_text())
        assert (worse["decision"], worse["version"]) == ("kept", new["version"])
        assert worse["gate"]["ours"] < worse["gate"]["theirs"] - worse["gate"]["allowed"]
        assert worse["reason"].startswith("the new model is not shown to be as good: ndcg@10 0.")
        assert f"kept, {new['version']} serves: {worse['reason']}" in caplog.text
        assert (run / "bundles" / CURRENT).read_text().strip() == new["version"]
        assert client.recommend(events[2]["user_id"])["version"] == new["version"]
    after = Bundle.load(str(run))
    assert (before.live_seq, after.live_seq) == (0, 1)
    assert after.version == new["version"]
    assert report["prepare"]["live"]["showings"] == 1
    assert report["evaluate"]["setup"]["previous"]["version"] == before.version
    assert (run / "train" / "start").is_dir(), "a warm start"
