"""What a cluster has to give, and what it may come to have."""

import pytest
import ray
from ray._private.state import state

from recsys.cluster import num_cpus, num_gpus, require
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
