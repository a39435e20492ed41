"""What a cluster has to give, and what it may come to have."""

import logging

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
