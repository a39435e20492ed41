"""What a cluster has to give, and what it may come to have."""

import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray._private.state import state
from ray.data import DataContext

from recsys import cluster
from recsys.cluster import connect, num_cpus, num_gpus, require, tell_of_gpus
from recsys.errors import InputError


@pytest.mark.parametrize(
    ("with_all_nodes", "cpus", "gpus"),
    [
        (None, 8, 0),  # no autoscaler
        ({"CPU": 72, "GPU": 4, "memory": 2**40}, 72, 4),
        ({"CPU": 4}, 8, 0),  # nodes that it does not know of are there
    ],
)
def test_nodes_that_are_still_to_come_count(
    with_all_nodes: dict[str, int] | None, cpus: int, gpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU node comes when training asks for it: before, there is none."""
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0})
    monkeypatch.setattr(state, "get_max_resources_from_cluster_config", lambda: with_all_nodes)
    assert (num_cpus(), num_gpus()) == (cpus, gpus)


@pytest.mark.parametrize(
    ("own", "limits", "cores"),
    [
        ("0::/\n", {"": "200000 100000\n"}, 2),  # a container's own
        ("0::/\n", {"": "150000 100000\n"}, 1),
        ("0::/\n", {"": "50000 100000\n"}, 1),  # half a core is one
        ("0::/\n", {"": "max 100000\n"}, 6),
        ("0::/\n", {"": "900000 100000\n"}, 6),  # more than there are
        ("0::/\n", {}, 6),
        ("4:memory:/pod\n0::/pods/a\n", {"pods/a": "max 100000", "pods": "300000 100000"}, 3),
        ("4:memory:/pod\n", {"": "200000 100000\n"}, 6),  # version 1
        (None, {"": "200000 100000\n"}, 6),  # no Linux
    ],
)
def test_cores_are_those_that_the_container_may_use(
    own: str | None,
    limits: dict[str, str],
    cores: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of six cores that the process may run on."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr(cluster, "OWN_CGROUP", tmp_path / "own")
    monkeypatch.setattr(cluster, "CGROUPS", tmp_path / "cgroups")
    if own is not None:
        (tmp_path / "own").write_text(own)
    for name, limit in limits.items():
        (tmp_path / "cgroups" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "cgroups" / name / "cpu.max").write_text(limit)
    assert cluster.num_cores() == cores


def test_a_node_has_what_ray_says_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [
        {"NodeID": "head", "Resources": {"CPU": 4.0}},
        {"NodeID": "a", "Resources": {"CPU": 8.0, "GPU": 2.0}},
    ]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    for name, has in (("head", (4, 0)), ("a", (8, 2)), ("gone", (0, 0))):
        here = SimpleNamespace(get_node_id=lambda name=name: name)
        monkeypatch.setattr(ray, "get_runtime_context", lambda here=here: here)
        assert (cluster.node_has("CPU"), cluster.node_has("GPU")) == has


def test_more_workers_than_there_can_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0})
    monkeypatch.setattr(state, "get_max_resources_from_cluster_config", lambda: {"GPU": 4})
    require(4, gpu=True)
    with pytest.raises(InputError, match="train.workers=5: each takes one GPU .* has 4"):
        require(5, gpu=True)


@pytest.mark.parametrize(
    ("free", "num", "share", "line"),
    [
        (2.0, 2, 1.0, None),
        (1.0, 1, 0.0, None),  # none is asked for
        (1.0, 1, 1.0, "decode: 1 × 1 GPUs are needed, each on one GPU, and others have 1 of 2: w"),
        (0.5, 1, 0.5, "decode: 1 × 0.5 GPUs are needed, each on one GPU, and others have 1.5 of 2"),
        (2.0, 3, 0.75, "decode: 3 × 0.75 GPUs are needed, each on one GPU, and others have 0 of 2"),
    ],
    ids=["all free", "none asked for", "two halves or a whole", "a half", "more than there is"],
)
def test_what_may_wait_for_gpus_says_so(
    free: float,
    num: int,
    share: float,
    line: str | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"GPU": 2.0})
    monkeypatch.setattr(ray, "available_resources", lambda: {"GPU": free})
    tell_of_gpus("decode", num, share)
    assert [message[: len(line or "")] for message in caplog.messages] == ([line] if line else [])


def test_nothing_is_asked_where_no_gpu_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(ray, "remote", lambda **_: pytest.fail("it would wait for a GPU"))
    assert cluster.on_a_gpu(lambda: 1, otherwise=2) == 2


def test_a_program_that_has_joined_by_itself_keeps_rays_output(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("joined once more"))
    context = DataContext.get_current()
    monkeypatch.setattr(context, "enable_progress_bars", True)
    logger = logging.getLogger("ray.data")
    monkeypatch.setattr(logger, "level", logging.INFO)
    connect()
    assert context.enable_progress_bars
    assert logger.level == logging.INFO
