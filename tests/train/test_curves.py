"""TensorBoard event files and MLflow metrics of a training."""

import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from recsys.config.run import RunConfig, parse_config
from recsys.errors import InputError
from recsys.train.curves import curves


@pytest.fixture(autouse=True)
def allow_file_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in place of a tracking server."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")


EPOCHS = (
    {"epoch": 1, "retrieval_loss": 7.0, "valid_ndcg@10": 0.1},
    {"epoch": 2, "retrieval_loss": 6.0},
)


def config(run: Path, mlflow: Path | None = None) -> RunConfig:
    tree = {
        "run": str(run),
        "data": {"events": "e.parquet"},
        "split": {"kind": "leave_one_out"},
        "train": {"mlflow": None if mlflow is None else str(mlflow)},
    }
    return parse_config(tree, "test")


def written(folder: Path, name: str) -> list[tuple[int, float]]:
    """By step: two event files of one second are read in the order of their writers' numbers."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return sorted((event.step, event.value) for event in events.Scalars(name))


def test_a_training_that_goes_on_adds_to_its_curves(tmp_path: Path) -> None:
    for figures in EPOCHS:
        with curves(config(tmp_path), str(tmp_path / "tb"), "fit") as add:
            add(figures)
            # While training runs, not at its end.
            assert written(tmp_path / "tb", "retrieval_loss")[-1][0] == figures["epoch"]
    assert written(tmp_path / "tb", "retrieval_loss") == [(1, 7.0), (2, 6.0)]


def test_event_files_reach_a_uri(tmp_path: Path) -> None:
    import fsspec

    with curves(config(tmp_path), "memory://curves/fit [v1]", "fit") as add:
        add(EPOCHS[0])
    files = fsspec.filesystem("memory").ls("/curves/fit [v1]", detail=False)
    assert any("tfevents" in name for name in files)


def test_mlflow_holds_config_and_figures_of_one_run(tmp_path: Path) -> None:
    tracking = pytest.importorskip("mlflow.tracking")
    wanted = config(tmp_path / 'it\'s "a" [v1]', tmp_path / "mlruns")
    for figures in EPOCHS:
        with curves(wanted, str(tmp_path / "tb [v1] #2::x"), "fit") as add:
            add(figures)
    client = tracking.MlflowClient(wanted.train.mlflow)
    experiment = client.get_experiment_by_name("recsys")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.params["model.dim"] == str(wanted.model.dim)
    assert run.data.metrics["valid_ndcg_at_10"] == 0.1
    history = client.get_metric_history(run.info.run_id, "retrieval_loss")
    assert [(m.step, m.value) for m in history] == [(1, 7.0), (2, 6.0)]
    assert run.info.status == "FINISHED"
    assert written(tmp_path / "tb [v1] #2::x", "retrieval_loss") == [(1, 7.0), (2, 6.0)]
    with curves(config(tmp_path / "another", tmp_path / "mlruns"), str(tmp_path / "tb"), "fit"):
        pass
    assert len(client.search_runs([experiment.experiment_id])) == 2


def test_mlflow_says_when_training_failed(tmp_path: Path) -> None:
    tracking = pytest.importorskip("mlflow.tracking")
    wanted = config(tmp_path, tmp_path / "mlruns")
    with pytest.raises(RuntimeError), curves(wanted, str(tmp_path / "tb"), "fit"):
        raise RuntimeError
    client = tracking.MlflowClient(wanted.train.mlflow)
    experiment = client.get_experiment_by_name("recsys")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FAILED"


def test_a_tracking_server_of_no_known_kind_is_said(tmp_path: Path) -> None:
    pytest.importorskip("mlflow.tracking")
    wanted = config(tmp_path)
    train = wanted.train.model_copy(update={"mlflow": "carrier-pigeon://coop"})
    with (
        pytest.raises(InputError, match="train.mlflow=carrier-pigeon://coop: "),
        curves(wanted.model_copy(update={"train": train}), str(tmp_path / "tb"), "fit"),
    ):
        pass


def test_mlflow_that_is_not_installed_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    with (
        pytest.raises(InputError, match="extra 'mlflow'"),
        curves(config(tmp_path, tmp_path / "mlruns"), str(tmp_path / "tb"), "fit"),
    ):
        pass
