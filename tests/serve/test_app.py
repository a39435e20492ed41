import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from ray import serve
from ray.exceptions import ActorDiedError, GetTimeoutError

from recsys.config.run import ServeConfig
from recsys.errors import InputError
from recsys.serve import app
from recsys.serve.app import (
    ask_once,
    build,
    free_port,
    number_of_replicas,
    read_args,
    require_as_published,
    running,
)
from recsys.serve.ingress import SWITCH, has_haproxy
from tests.bundles import TASKS, TinyRun
from tests.nodes import quiet_port
from tests.serve.test_recommender import TABS, training_outputs


@pytest.fixture(scope="module")
def address(ray_local: None, tiny: TinyRun) -> Iterator[str]:
    with running(str(tiny.run), port=quiet_port()) as address:
        yield address


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


@pytest.mark.ray
@pytest.mark.parametrize("position", [1, 14, 26])
def test_score_over_http_is_the_models_own_output(
    address: str, tiny: TinyRun, position: int
) -> None:
    """The model's outputs at a position of a timeline, as training computes them."""
    timeline, dots, probabilities = training_outputs(tiny)
    tab = TABS[timeline.context_rows[position, 0]]
    body = {
        "user_id": "u9",
        "video_ids": [f"v{timeline.video_rows[position]}"],
        "now_ms": int(timeline.time_ms[position]),
        "context": {"tab": tab} if tab else {},
    }
    video = post(f"{address}/v1/score", body)["items"][0]
    assert video["score"] == pytest.approx(float(dots[position]), abs=1e-4)
    for i, task in enumerate(TASKS):
        expected = float(probabilities[position, i])
        assert video["probabilities"][task] == pytest.approx(expected, abs=1e-4)


@pytest.mark.ray
def test_asks_itself_once(address: str, tiny: TinyRun) -> None:
    answer = ask_once(address, k=4)
    assert answer["version"] == tiny.version
    assert (answer["user_id"], len(answer["items"])) == ("u0", 4)
    assert has_haproxy() == (os.environ.get(SWITCH) == "1"), "as Ray was started"


@pytest.mark.ray
def test_page_docs_and_ranges_pass_through_serve(address: str) -> None:
    for path in ("/", "/healthz", "/v1/model"):
        with urllib.request.urlopen(address + path, timeout=30) as answer:
            assert answer.status == 200
    with urllib.request.urlopen(f"{address}/docs", timeout=30) as answer:
        assert f"curl {address}/v1/model" in answer.read().decode(), "where it listens"
    request = urllib.request.Request(
        f"{address}/v1/videos/v1/file", headers={"Range": "bytes=10-19"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert (answer.status, answer.read()) == (206, bytes(range(10, 20)))
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{address}/v1/videos/..%2F..%2Fetc%2Fpasswd/file", timeout=30)


@pytest.mark.ray
def test_a_second_serve_on_the_cluster_is_refused(address: str, tiny: TinyRun) -> None:
    with pytest.raises(InputError, match="Ray Serve already runs"), running(str(tiny.run), port=0):
        pass
    with urllib.request.urlopen(f"{address}/healthz", timeout=30) as answer:
        assert answer.status == 200


@pytest.mark.ray
def test_more_replicas_than_the_cluster_has_are_refused(ray_local: None, tiny: TinyRun) -> None:
    with (
        pytest.raises(InputError, match="serve.replicas=9: .* the cluster has 2; set"),
        running(str(tiny.run), port=0, replicas=9),
    ):
        pass


@pytest.mark.parametrize(
    ("encoders", "share", "gpus", "room"),
    [(1, 0.5, 0, "0"), (3, 0.75, 2, "2"), (5, 0.5, 2, "4"), (2, 2, 3, "1")],
)
def test_encoders_that_no_gpu_has_room_for_are_refused(
    encoders: int, share: float, gpus: int, room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would wait for ever: of two GPUs none has room for a third share of 0.75."""
    monkeypatch.setattr(app, "num_gpus", lambda: gpus)
    monkeypatch.setattr(app, "tell_of_gpus", lambda *_: None)
    with pytest.raises(InputError, match=rf"serve.encoder_gpus={share}: .* room for {room};"):
        app._require_gpus(ServeConfig(encoders=encoders, encoder_gpus=share))
    app._require_gpus(ServeConfig(encoders=int(room), encoder_gpus=share))
    app._require_gpus(ServeConfig(encoders=encoders, encoder_gpus=0))


def test_a_gpu_that_pytorch_does_not_see_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders would take it, and compute on a core."""
    monkeypatch.setattr(app, "num_gpus", lambda: 1)
    monkeypatch.setattr(app, "gpus_compute", lambda: False)
    with pytest.raises(InputError, match="serve.encoder_gpus=0.5: .* PyTorch sees none"):
        app._require_gpus(ServeConfig(encoder_gpus=0.5))


@pytest.mark.parametrize("error", [ActorDiedError(), GetTimeoutError()], ids=["killed", "late"])
def test_a_proxy_that_is_not_ready_in_time_is_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine: Serve kills it, or waits no longer."""

    def start(**_: object) -> None:
        raise error

    monkeypatch.setattr(serve, "start", start)
    with pytest.raises(InputError, match=r"not ready in time.*RAY_SERVE_PROXY_READY_CHECK_TIMEO"):
        app._start_serve("127.0.0.1", 8000)


@pytest.mark.parametrize(
    ("through", "has_files", "settings", "is_told"),
    [
        (True, True, {}, True),
        (False, True, {}, False),
        (True, False, {}, False),
        (True, True, {"files": False}, False),
        (True, True, {"files_at": {"/data": "https://cdn.example/v"}}, False),
    ],
    ids=["told", "no HAProxy", "no files", "none served", "elsewhere"],
)
def test_one_line_says_that_haproxy_carries_videos(
    through: bool,
    has_files: bool,
    settings: dict[str, Any],
    is_told: bool,
    tiny: TinyRun,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    columns = tiny.config.data.video_columns.model_copy(
        update={"uri": "uri" if has_files else None}
    )
    data = tiny.config.data.model_copy(update={"video_columns": columns})
    config = tiny.config.model_copy(update={"data": data})
    monkeypatch.setattr(app, "read_config", lambda folder: config)
    monkeypatch.setattr(app, "has_haproxy", lambda: through)
    with caplog.at_level(logging.INFO, logger="recsys"):
        app._tell_of_files(str(tiny.run), ServeConfig(**settings))
    assert len(caplog.messages) == is_told
    assert not is_told or "serve.files_at={FOLDER: ADDRESS}" in caplog.messages[0]


def test_a_taken_port_is_named(tiny: TinyRun) -> None:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        with (
            pytest.raises(InputError, match=rf"127.0.0.1:{port}: cannot listen .*--port"),
            running(str(tiny.run), port=port),
        ):
            pass


def test_a_host_of_another_machine_is_named() -> None:
    with pytest.raises(InputError, match="192.0.2.77:0: cannot listen there"):
        free_port("192.0.2.77", 0)


def test_port_0_is_any_free_one() -> None:
    assert free_port("127.0.0.1", 0) > 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, "bundle: field required; give bundle=PATH"),
        ({"bundle": "x", "replica": 2}, "replica: extra inputs are not permitted"),
        ({"bundle": "x", "replicas": "0"}, "replicas: input should be greater"),
        ({"bundle": "/no/such/run"}, "/no/such/run: no bundle is there"),
    ],
)
def test_wrong_build_arguments_are_named(args: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(args)


def test_settings_given_take_the_place_of_the_bundles(tiny: TinyRun) -> None:
    """The bundle says max_k=20 max_videos=40; `serve run` gives texts."""
    source, settings = read_args({"bundle": str(tiny.run), "max_k": "5", "replicas": "2"})
    assert source.folder.endswith(tiny.version)
    assert (settings.max_k, settings.max_videos, settings.replicas) == (5, 40, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"port": 9000}, "port: Ray Serve listens where its own `http_options` say"),
        ({"replicas": 3, "max_replicas": 2}, "max_replicas=2 is below serve.replicas=3"),
        ({"rank": "shares"}, "^serve.rank=shares: must be one of retrieval, click, like$"),
        ({"front": "course"}, "serve.front=course shows courses, and .* names none"),
    ],
)
def test_settings_that_cannot_be_are_named(
    tiny: TinyRun, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        build({"bundle": str(tiny.run), **settings})


def test_replicas_come_and_go_where_there_may_be_more() -> None:
    assert number_of_replicas(ServeConfig(replicas=3)) == {"num_replicas": 3}
    assert number_of_replicas(ServeConfig(replicas=2, max_replicas=8)) == {
        "autoscaling_config": {
            "min_replicas": 2,
            "max_replicas": 8,
            "target_ongoing_requests": 16,
        }
    }


def test_what_waits_is_limited_and_told_to_come_again(tiny: TinyRun) -> None:
    app = build({"bundle": str(tiny.run), "max_queued_requests": 7})
    deployment = app._bound_deployment
    assert deployment.max_queued_requests == 7
    assert deployment.max_ongoing_requests == 256 + 64  # so that the replica itself refuses
    assert deployment._deployment_config.backpressure_config.status_code == 503
    assert deployment._deployment_config.backpressure_config.retry_after_s == 1


def test_what_a_server_cannot_change_is_refused(tiny: TinyRun) -> None:
    model = tiny.config.model.model_copy(update={"max_history": 5})
    config = tiny.config.model_copy(update={"model": model})
    same = ["run", "serve.max_k", "model.dim", "data.columns.tasks"]
    require_as_published(str(tiny.run), config, same)
    with pytest.raises(
        InputError, match=r"model.max_history=5: the bundle was published with 27, .* run the"
    ):
        require_as_published(str(tiny.run), config, [*same, "model.max_history"])


def test_importing_brings_in_nothing_of_training() -> None:
    code = (
        "import sys, recsys.serve.app\n"
        "names = {name.split('.')[0] for name in sys.modules}\n"
        "assert not names & {'torchrec', 'fbgemm_gpu'}, names\n"
        "assert not any(name.startswith('recsys.train') for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
