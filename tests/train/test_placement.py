import pytest
import torch

from recsys.model.embeddings import TableSpec
from recsys.train.placement import Card, Kernel, choose_kernels, table_bytes
from recsys.train.sharding import have_torchrec

GIB = 2**30
HOST, CARD = "fused_uvm_caching", "fused"
# dim 63: 63 numbers of 4 bytes and one of the optimizer's are 256 bytes a row, so 2^22 rows a GiB.
A_GIB = TableSpec(2**22, 63)


def test_bytes_of_a_table() -> None:
    assert table_bytes(A_GIB) == GIB


@pytest.mark.parametrize(
    ("gib_of_tables", "gib_of_card", "workers", "kernels"),
    [
        # 0.7 of 10 GiB are 7 GiB.
        ([4, 3], 10, 1, [CARD, CARD]),
        ([4, 3.1], 10, 1, [HOST, CARD]),
        ([3.1, 4], 10, 1, [CARD, HOST]),  # the largest goes first, whatever its place
        # 20 GiB on the host keep 4 GiB of cache on the card: 4 + 3 fit, 4 + 3.5 do not.
        ([20, 3], 10, 1, [HOST, CARD]),
        ([20, 3.5], 10, 1, [HOST, HOST]),
        # Two workers hold half of each.
        ([8, 6], 10, 2, [CARD, CARD]),
        ([40], 10, 1, [HOST]),  # no cache fits either; the planner says so
        ([], 10, 1, []),
    ],
)
def test_the_largest_tables_go_to_the_host(
    gib_of_tables: list[float], gib_of_card: int, workers: int, kernels: list[Kernel]
) -> None:
    tables = {
        f"t{number}": TableSpec(int(gib * 2**22), 63) for number, gib in enumerate(gib_of_tables)
    }
    chosen = choose_kernels(tables, Card(gib_of_card * GIB, workers))
    assert list(chosen) == list(tables) and list(chosen.values()) == kernels


@pytest.mark.skipif(not have_torchrec(), reason="torchrec is not installed")
def test_the_planner_is_told_of_card_and_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    from recsys.train import sharding

    monkeypatch.setattr(
        sharding, "card_of", lambda device, workers: Card(10 * GIB, workers) if workers else None
    )
    tables = {"video": TableSpec(20 * 2**22, 63), "creator": A_GIB}
    planner = sharding.make_planner(tables, torch.device("cuda", 0), workers=1)
    topology = planner._topology
    assert [device.storage.hbm for device in topology.devices] == [10 * GIB]
    constraints = planner._constraints
    assert constraints["video"].compute_kernels == [HOST]
    assert constraints["video"].cache_params.load_factor == 0.2
    assert "creator" not in constraints  # the planner has the choice of what fits


@pytest.mark.skipif(not have_torchrec(), reason="torchrec is not installed")
@pytest.mark.parametrize(("host_gib", "fits"), [(400, True), (150, False)])
def test_the_plan_is_that_of_the_hosts_memory(
    monkeypatch: pytest.MonkeyPatch, host_gib: int, fits: bool
) -> None:
    """A table of 200 GiB is cached on a card of 80; TorchRec takes any host for one of 128."""
    from torchrec.distributed.embedding import EmbeddingCollectionSharder
    from torchrec.distributed.planner.types import PlannerError

    from recsys.train import sharding

    monkeypatch.setattr(sharding, "card_of", lambda _, workers: Card(80 * GIB, workers))
    monkeypatch.setattr(sharding, "host_bytes", lambda: host_gib * GIB)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    tables = {"video": TableSpec(200 * 2**22, 63), "creator": A_GIB}
    planner = sharding.make_planner(tables, torch.device("cuda", 0), workers=1)
    module, sharders = sharding.ShardedTables(tables), [EmbeddingCollectionSharder()]
    if not fits:
        with pytest.raises(PlannerError):
            planner.plan(module, sharders)
        return
    (plan,) = planner.plan(module, sharders).plan.values()
    assert {name: table.compute_kernel for name, table in plan.items()} == {
        "video": HOST,
        "creator": CARD,
    }


@pytest.mark.skipif(not have_torchrec(), reason="torchrec is not installed")
def test_the_planner_knows_which_workers_share_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    from recsys.train import sharding

    monkeypatch.setattr(sharding, "card_of", lambda _, workers: Card(80 * GIB, workers))
    monkeypatch.setattr(sharding, "host_bytes", lambda: 400 * GIB)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    topology = sharding.make_planner({}, torch.device("cuda", 0), workers=4)._topology
    assert topology.local_world_size == 2
    assert [device.storage.ddr for device in topology.devices] == [200 * GIB] * 4


@pytest.mark.skipif(not have_torchrec(), reason="torchrec is not installed")
def test_on_a_cpu_the_planner_chooses_alone() -> None:
    from recsys.train.sharding import make_planner

    planner = make_planner({"video": A_GIB}, torch.device("cpu"), workers=2)
    assert not planner._constraints
    assert len(planner._topology.devices) == 2
