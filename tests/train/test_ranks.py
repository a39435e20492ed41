"""Two workers of unequal work take the step that one takes on all of it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from recsys.data.run_folder import RunFolder
from recsys.features.inputs import Batch
from recsys.model.recommender import Losses
from recsys.schema import VALID
from recsys.train.loop import Job
from recsys.train.loss import LossWeights
from recsys.train.sharding import have_torchrec
from recsys.train.warm_start import read_all
from tests.steps import make_batch, make_config
from tests.train.memory import Checkpoints, make_worker
from tests.train.processes import run_processes
from tests.train.rank_worker import CASES, EPOCHS, make_stopped

TIMINGS = {"epoch_s", "validate_s", "events_per_s", "waiting_share"}
NEEDS_TORCHREC = pytest.mark.skipif(not have_torchrec(), reason="torchrec is not installed")
TABLES = ["plain", pytest.param("torchrec", marks=NEEDS_TORCHREC)]


def losses(retrieval: float, tasks: list[float]) -> Losses:
    """Sums; their own numbers of events do not count here."""
    nothing = torch.zeros((), dtype=torch.int64)
    return Losses(torch.tensor(retrieval), nothing, torch.tensor(tasks), nothing)


def batch(num_positive: float, num_events: float) -> Batch:
    nothing = make_batch(0, empty=True)
    nothing.num_learnt = torch.tensor([num_positive, num_events])
    return nothing


def test_unequal_work_by_hand() -> None:
    """300 events of slope 1 and 20 of slope -2: the mean is (300 - 40) / 320, and not -0.5."""
    loss_weights = LossWeights(1.0, torch.tensor([1.0]))
    mean = batch(160, 160)
    ranks = [loss_weights.combine(losses(grad, [0.0]), mean) for grad in (300.0, -40.0)]
    assert torch.stack(ranks).mean().item() == pytest.approx(260 / 320)
    ranks = [loss_weights.combine(losses(0.0, [grad]), mean) for grad in (300.0, -40.0)]
    assert torch.stack(ranks).mean().item() == pytest.approx(260 / 320)


def test_each_loss_has_its_own_number_and_weight() -> None:
    """0.5 · 6 / 3 + 1 · 8 / 4 + 2.5 · 2 / 4."""
    config = make_config(train={"retrieval_weight": 0.5, "task_weights": {"like": 2.5}})
    loss_weights = LossWeights.of(config, torch.device("cpu"))
    assert loss_weights.combine(losses(6.0, [8.0, 2.0]), batch(3, 4)).item() == pytest.approx(4.25)


def test_less_than_an_event_a_worker_is_no_whole_one() -> None:
    """One positive event of two workers: half a one each."""
    loss_weights = LossWeights(1.0, torch.ones(2))
    assert loss_weights.combine(losses(3.0, [0.0, 0.0]), batch(0.5, 0.5)).item() == 6.0


def test_a_step_without_events_is_no_loss() -> None:
    loss_weights = LossWeights(1.0, torch.ones(2))
    assert loss_weights.combine(losses(0.0, [0.0, 0.0]), batch(0, 0)).item() == 0.0


@pytest.fixture(scope="module", params=TABLES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where one worker and then two have trained, through the loop itself."""
    place = tmp_path_factory.mktemp(request.param)
    script = Path(__file__).with_name("rank_worker.py")
    for world in (1, 2):
        run_processes(script, [request.param], world, place)
    return place


@pytest.mark.parametrize("case", CASES)
def test_two_workers_take_the_steps_of_one_that_has_all(case: str, folder: Path) -> None:
    """The same weights, tables, optimizers' states and figures after each of three steps."""
    (alone, *both) = (
        json.loads((folder / f"{case}-{world}-{rank}.json").read_text())
        for world, rank in ((1, 0), (2, 0), (2, 1))
    )
    for history in both:
        for ours, theirs in zip(history, alone, strict=True):
            for name in ("retrieval_loss", "click_loss", "like_loss", "timelines"):
                assert ours[name] == pytest.approx(theirs[name], rel=1e-5), name
    start = read_all(RunFolder(str(folder)).start)
    for step in range(1, EPOCHS + 1):
        two, expected = (read_all(str(folder / f"{case}-{world}" / str(step))) for world in (2, 1))
        assert two.keys() == expected.keys()
        for name, value in expected.items():
            if isinstance(value, torch.Tensor):
                assert torch.allclose(two[name], value, rtol=1e-3, atol=1e-6), name
                learns = name.startswith("model.") and not name.endswith("trending")
                assert not (learns and torch.equal(value, start[name])), f"{name} has not learnt"


def test_two_workers_measure_what_one_measures(folder: Path) -> None:
    """The figures of the validation days, and what trends is worth by them."""
    (alone, *both) = (
        json.loads((folder / f"validation-{world}-{rank}.json").read_text())
        for world, rank in ((1, 0), (2, 0), (2, 1))
    )
    assert alone["weight"] != 0
    for figures in both:
        figures["validate_s"] = alone["validate_s"]
        assert figures == pytest.approx(alone, rel=1e-5)


def test_two_workers_that_stopped_go_on_to_the_last_bit(folder: Path) -> None:
    """Stopped after the second round of the second epoch's three."""
    histories = json.loads((folder / "stopped-2-0.json").read_text())
    whole, resumed = ([untimed(epoch) for epoch in history] for history in histories)
    assert resumed == whole
    assert len(resumed) == EPOCHS
    states, expected = (newest(folder / name) for name in ("resumed", "whole"))
    assert states.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(states[name], value), name


def untimed(figures: dict[str, float]) -> dict[str, float]:
    """Those that do not depend on the machine."""
    return {name: value for name, value in figures.items() if name not in TIMINGS}


def newest(kept: Path) -> dict[str, Any]:
    return read_all(str(max(kept.iterdir(), key=lambda path: int(path.name))))


def test_one_worker_goes_on_where_two_stopped(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes other steps than they would have; every timeline is learnt from once an epoch."""
    if folder.name.startswith("torchrec"):
        pytest.skip("the states of sharded tables in other numbers of workers: test_sharding.py")
    prepared = make_stopped(folder, "plain")
    died = Checkpoints(folder / "died")
    died.metrics = [{}] * 5
    job = Job(prepared.config, VALID, EPOCHS)
    worker = make_worker(monkeypatch, job, prepared, Checkpoints(tmp_path), start=died)
    worker.run()
    users = [int((part.count_before(VALID) > 0).sum()) for part in prepared.parts]
    assert worker.progress.seen_timelines == users
    assert [epoch["timelines"] for epoch in worker.progress.history] == [sum(users)] * EPOCHS
