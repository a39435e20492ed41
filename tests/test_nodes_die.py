"""A worker node is killed at its work, and another one comes: all ends as if undisturbed.

The head has no CPUs, so that all work is on the node that dies. All tests share one head.
"""

import contextlib
import json
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import lance
import pyarrow.parquet as pq
import pytest

from recsys.live.log.events import EventLog
from recsys.serve.client import Client
from tests.benchmarks._postgres import make_database
from tests.conftest import TrainedRun
from tests.nodes import (
    BIN,
    PATIENCE_S,
    PROJECT,
    Nodes,
    cluster,
    kill,
    num_workers,
    quiet_port,
    wait_for,
    works_on,
)

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]  # each starts Ray several times


@pytest.fixture(scope="module")
def head() -> Iterator[Nodes]:
    with cluster() as nodes:
        yield nodes


@pytest.fixture
def nodes(head: Nodes) -> Iterator[Nodes]:
    """The head alone; workers of the test end with it."""
    yield head
    head.kill_workers()


@contextlib.contextmanager
def driver(nodes: Nodes, arguments: list[str], **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command of ours on the cluster; what it said is shown where the test fails."""
    command = [str(BIN / "python"), "-m", "recsys", *arguments]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, env=nodes.driver_env | env, cwd=PROJECT, stdout=log, stderr=log
        )
        try:
            yield process
        finally:
            process.kill()
            log.seek(0)
            print(log.read())


def survive(
    nodes: Nodes, arguments: list[str], is_at_work: Callable[[subprocess.Popen[bytes]], bool]
) -> None:
    """Runs a command, kills its node at work, and has another node come."""
    first = nodes.add(2)
    with driver(nodes, arguments) as command:
        wait_for(lambda: command.poll() is not None or is_at_work(first), "the work")
        assert command.poll() is None, "it was over before its node could be killed"
        kill(first)
        nodes.add(2)
        assert command.wait(PATIENCE_S) == 0


def copied(trained: TrainedRun, target: Path, *stages: str) -> list[str]:
    """A run folder with these stages done; returns the arguments of a command on it."""
    for stage in stages:
        shutil.copytree(trained.run / stage, target / stage)
    settings = [text for text in trained.settings if not text.startswith("run=")]
    return ["--config", trained.config_path, f"run={target}", *settings]


def report(run: Path, stage: str) -> dict[str, Any]:
    whole: dict[str, Any] = json.loads((run / stage / "report.json").read_text())
    return without(whole, {"seconds", "videos_per_s", "busy"})


def test_prepare(nodes: Nodes, trained_run: TrainedRun, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = copied(trained_run, run)
    spilt = tmp_path / "run" / "prepare" / ".spill"
    survive(
        nodes,
        ["prepare", *arguments],
        lambda node: works_on(node, "SpillEvents") or spilt.exists(),
    )
    assert report(run, "prepare") == report(trained_run.run, "prepare")
    parts = sorted((trained_run.run / "prepare" / "timelines").glob("*.parquet"))
    assert parts
    for part in parts:
        assert pq.read_table(run / part.relative_to(trained_run.run)) == pq.read_table(part)


def test_decode(nodes: Nodes, trained_run: TrainedRun, tmp_path: Path) -> None:
    run = tmp_path / "run"
    arguments = copied(trained_run, run, "prepare")
    survive(nodes, ["decode", *arguments], lambda node: works_on(node, "DecodeClips"))
    assert report(run, "decode") == report(trained_run.run, "decode")
    ours, theirs = (clips(folder) for folder in (run, trained_run.run))
    assert len(ours) == 24 and ours == theirs


def clips(run: Path) -> list[dict[str, Any]]:
    """All that decode wrote, by address; frames are the bytes of a row."""
    table = lance.dataset(str(run / "decode" / "clips.lance")).to_table()
    rows: list[dict[str, Any]] = table.sort_by("uri").to_pylist()
    return rows


def test_train(nodes: Nodes, trained_run: TrainedRun, tmp_path: Path) -> None:
    """It goes on from the checkpoint of the first epoch: each timeline is learnt once an epoch."""
    run = tmp_path / "run"
    arguments = copied(trained_run, run, "prepare", "decode")
    survive(
        nodes,
        ["train", *arguments],
        lambda node: any((run / "train").glob("fit-*/checkpoint_*/.metadata")),
    )
    ours, theirs = (report(folder, "train") for folder in (run, trained_run.run))
    assert ours["epochs"] == theirs["epochs"]
    for mine, other in zip(ours["history"], theirs["history"], strict=True):
        assert mine["timelines"] == other["timelines"]
        assert mine["retrieval_loss"] == pytest.approx(other["retrieval_loss"], rel=1e-3)


def test_a_node_that_announces_its_end(
    nodes: Nodes, trained_run: TrainedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One checkpoint more, inside the epoch; at the end announced training moves, uncounted.

    What is told of the epochs goes on too.
    """
    run = tmp_path / "run"
    arguments = copied(trained_run, run, "prepare", "decode")
    arguments += ["train.epochs=20", "train.patience=20", "train.refit=false"]
    arguments += ["train.max_failures=0", "train.checkpoint_every_partitions=100"]
    both, poll = (nodes.add(1), nodes.add(1)), {"RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "0.1"}
    with driver(nodes, ["train", *arguments], **poll) as command:
        wait_for(lambda: command.poll() is not None or bool(places(run)), "the first epoch")
        goes, stays = sorted(both, key=lambda node: works_on(node, TRAINING), reverse=True)
        assert all(partitions == 0 for _, partitions in places(run)), "at the end of epochs alone"
        nodes.announce_end(goes, within_s=8)
        wait_for(lambda: any(partitions for _, partitions in places(run)), "the checkpoint")
        wait_for(lambda: works_on(stays, TRAINING), "the other node")
        kill(goes)
        assert command.wait(PATIENCE_S) == 0
    epochs = report(run, "train")["history"]
    (timelines,) = {epoch["timelines"] for epoch in report(trained_run.run, "train")["history"]}
    assert [epoch["timelines"] for epoch in epochs] == [timelines] * 20
    told = re.findall(r"train: epoch (\d+) of at most 20", capsys.readouterr().out)
    assert told == [str(number) for number in range(1, 21)]


TRAINING = "RayTrainWorker"


def places(run: Path) -> list[tuple[int, int]]:
    """The epoch, and the partitions of it, of each checkpoint that is there."""
    seen = []
    for path in (run / "train").glob("fit-*/checkpoint_*/progress.json"):
        with contextlib.suppress(FileNotFoundError, ValueError):  # it comes or goes just now
            progress = json.loads(path.read_text())
            seen.append((progress["epoch"], progress["partitions"]))
    return seen


def test_sweep(nodes: Nodes, trained_run: TrainedRun, tmp_path: Path) -> None:
    """The trial goes on from its newest checkpoint; it is what `recsys train` did."""
    run = tmp_path / "run"
    arguments = copied(trained_run, run, "prepare", "decode")
    trials = run / "tune" / "trials"
    survive(
        nodes,
        ["tune", "--space", "tuning/spaces/quick.yaml", *arguments, "tune.trials=1"],
        lambda node: (trials / "0000" / "kept.json").exists(),
    )
    trial = json.loads((trials / "0000.json").read_text())
    assert (trial["state"], trial["error"]) == ("finished", None)
    times = {"epoch_s", "events_per_s", "waiting_share", "validate_s", "best_epoch"}
    ours = [without(epoch, times) for epoch in trial["epochs"]]
    theirs = [without(epoch, times) for epoch in report(trained_run.run, "train")["history"]]
    assert ours == theirs
    assert report(run, "tune")["test"]["test_ndcg@10"] > 0


def without(figures: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in figures.items() if name not in names}


REPLICA = "ServeReplica:recsys:Endpoint"
TOKEN = "the-token-of-this-test"


def test_serve(nodes: Nodes, trained_run: TrainedRun, postgres: str, tmp_path: Path) -> None:
    """Every call is answered; a replica comes on the node that is left, and knows every event."""
    port, log = quiet_port(), make_database(postgres, "a_node_dies")
    token = tmp_path / "token"
    token.write_text(TOKEN)
    arguments = copied(trained_run, tmp_path / "run", "bundles")
    arguments += ["serve.replicas=2", "serve.host=0.0.0.0", f"serve.port={port}"]
    arguments += [f"serve.events={log}"]
    arguments += [f"serve.{scope}_token=file:{token}" for scope in ("read", "events", "videos")]
    dies, stays = nodes.add(1), nodes.add(2)
    address = f"http://127.0.0.1:{port}"
    with (
        driver(nodes, ["serve", *arguments]) as server,
        Client(address, token=TOKEN, timeout_s=30.0, deadline_s=60.0) as client,
    ):
        known: set[str] = set()

        def answer(count: int) -> Callable[[], bool]:
            """Whether so many replicas have answered by now."""

            def heard() -> bool:
                known.update(replica_of(address))
                return server.poll() is not None or len(known) >= count

            return heard

        wait_for(answer(2), "both replicas")
        assert [num_workers(node, REPLICA) for node in (dies, stays)] == [1, 1]
        sent = 0

        def another_answers() -> bool:
            nonlocal sent
            user_id = f"u{sent % 7}"
            assert len(client.recommend(user_id, k=3)["items"]) == 3
            video_id = f"v{sent % 5:04d}"
            client.send_events({"user_id": user_id, "video_id": video_id, "watched": 3.0})
            sent += 1
            return answer(3)()

        another_answers()
        kill(dies)
        wait_for(another_answers, "another replica")
        assert num_workers(stays, REPLICA) == 2
        with EventLog(log) as kept:
            assert kept.counts().events == sent, "each once, whatever was tried again"
        for _ in range(10):  # whichever replica it is that answers
            shown = client.history("u0", limit=1)["events"]
            assert [event["video_id"] for event in shown] == [f"v{(sent - 1) // 7 * 7 % 5:04d}"]
        server.send_signal(signal.SIGINT)
        assert server.wait(PATIENCE_S) == 0


def replica_of(address: str) -> set[str]:
    """The name of the replica that answers this once; none where none does."""
    with contextlib.suppress(httpx.TransportError):
        answer = httpx.get(f"{address}/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        return set(re.findall(r'replica="([^"]+)"', answer.text))
    return set()
