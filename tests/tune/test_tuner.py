import logging
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from ray import tune

import recsys.tune.stage
import recsys.tune.tuner
from recsys.cli import main
from recsys.config.run import RunConfig, load_config
from recsys.errors import InputError
from recsys.tune.space import fit_space, make_space, read_space, with_settings
from recsys.tune.stage import tune_run
from recsys.tune.trials import Trial, open_table
from recsys.tune.tuner import make_tuner
from tests.conftest import RUN_NAME, TrainedRun
from tests.inputs import video_rows, write_input, write_rows

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """With a run folder of a name that would be a pattern and a chain elsewhere."""
    return load_config(str(write_input(tmp_path)), [f"run={tmp_path}/{RUN_NAME}"])


def test_a_space_of_no_setting_is_refused_before_any_trial(config: RunConfig) -> None:
    with pytest.raises(InputError, match="train.lrr is not a setting"):
        make_tuner(config, make_space({"train.lrr": {"uniform": [0, 1]}}))


@pytest.mark.ray
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["tune.concurrent=2", "train.workers=2"], "tune.concurrent=2: .*set tune.concurrent to"),
        (["train.workers=3"], "train.workers=3: each takes one CPU and the cluster has 2"),
    ],
)
def test_a_sweep_that_the_cluster_cannot_hold_is_refused(
    trained_run: TrainedRun, settings: list[str], message: str
) -> None:
    config = load_config(trained_run.config_path, [*trained_run.settings, *settings])
    with pytest.raises(InputError, match=message):
        tune_run(config, str(ROOT / "tuning" / "spaces" / "quick.yaml"))


def fake_trial(asked: dict[str, Any], *, config_tree: dict[str, Any], gpu: bool, room: int) -> None:
    """Scores by the learning rate alone, two epochs; or fails as a trial would."""
    lr = asked["settings"]["train.lr"]
    folder = Path(config_tree["run"], "ran")
    folder.mkdir(exist_ok=True)
    (folder / f"{asked['number']}-{time.time_ns()}").touch()
    if config_tree["train"]["seed"] == 13 or lr == 0.5:
        error = "clips.lance: no clips there"
        tune.report({"epoch": 0, "objective": float("-inf"), "error": error})
        return
    for epoch in (1, 2):
        score = -abs(lr - 0.003)
        figures = {"epoch": epoch, "score": score}
        tune.report({"epoch": epoch, "objective": score, "figures": figures})


def fake_lists(asked: dict[str, Any], *, config_tree: dict[str, Any], gpu: bool, room: int) -> None:
    """One epoch with figures as NumPy has them: 0.5 - 0.1 · 0.25 is the objective."""
    figures = {"epoch": 1, "score": 1.0}
    figures |= {"valid_ndcg@10": np.float64(0.5), "valid_creator_gini@10": np.float64(0.25)}
    tune.report({"epoch": 1, "objective": 0.475, "figures": figures})


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local", "faked")
@pytest.mark.parametrize(
    ("objective", "shown"),
    [
        ("{valid_ndcg@10: 1, valid_creator_gini@10: -0.1}", "objective 0.475"),
        ("{valid_ndcg@10: 1}", "valid_ndcg@10 0.5"),
    ],
)
def test_the_objective_as_it_is_typed(
    objective: str,
    shown: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(recsys.tune.tuner, "run_trial", fake_lists)
    write_rows(video_rows(), tmp_path / "videos.parquet")
    columns = {"video": "video_id", "creator": "creator"}
    data = {"videos": str(tmp_path / "videos.parquet"), "video_columns": columns}
    path, space = write_input(tmp_path, data=data), str(ROOT / "tuning/spaces/optimizer.yaml")
    command = ["tune", "--config", str(path), "--space", space, "--anew"]
    assert main([*command, "tune.trials=2", f"tune.objective={objective}"]) == 0
    assert shown in " ".join(capsys.readouterr().out.split())


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials that train nothing; those as the README types them have tests of their own."""
    monkeypatch.setattr(recsys.tune.tuner, "run_trial", fake_trial)
    monkeypatch.setattr(recsys.tune.stage, "require_inputs", lambda config: None)
    monkeypatch.setattr(recsys.tune.stage, "_read_test", lambda *_: {"test_ndcg@10": 0.25})


def space_file(folder: Path, text: str) -> str:
    path = folder / "space.yaml"
    path.write_text(text)
    return str(path)


def ran(config: RunConfig) -> list[int]:
    """The numbers of the trials that were run, in order."""
    names = [path.name.split("-") for path in Path(config.run, "ran").iterdir()]
    return [int(number) for number, _ in sorted(names, key=lambda name: int(name[1]))]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local", "faked")
def test_a_sweep_writes_the_best_settings(
    config: RunConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    space = space_file(tmp_path, "train.lr: {choice: [0.003, 0.1]}")
    changed = with_settings(config, {"tune.trials": 4, "train.epochs": 2})
    with caplog.at_level(logging.INFO, "recsys"):
        report = tune_run(changed, space)
    lines = [line for line in caplog.messages if line.startswith("tune: trial")]
    assert len(lines) == 4
    ended = [re.findall(r"\d+", line.partition(")")[0]) for line in lines]
    assert sorted(number for number, *_ in ended) == ["0", "1", "2", "3"], "as the page has them"
    assert [rest for _, *rest in ended] == [[str(done), "4"] for done in (1, 2, 3, 4)]
    assert "tune: trial 0 (" in "".join(lines)
    assert (report["trials"], report["failed"]) == (4, 0)
    assert report["best"] == {"train.lr": 0.003}
    assert report["score"] == 0
    assert report["test"] == {"test_ndcg@10": 0.25}
    best = load_config(str(report["best.yaml"]))
    assert best == with_settings(changed, {"train.lr": 0.003})
    table = pq.read_table(Path(changed.run, "tune", "trials.parquet")).to_pylist()
    assert [row["config/train.lr"] for row in table][0] == "0.002", "first the config as it is"
    assert table[int(str(report["winner"]))]["objective"] == 0


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local", "faked")
def test_a_sweep_goes_on_and_runs_only_what_is_not_done(config: RunConfig, tmp_path: Path) -> None:
    """One of the trials was cut off; one failed and is done; later there are to be more of them."""
    space = space_file(tmp_path, "train.lr: {choice: [0.003, 0.1]}")
    changed = with_settings(config, {"tune.trials": 3, "train.epochs": 2, "tune.concurrent": 1})
    fitted = fit_space(read_space(space), changed)
    table = open_table(changed, fitted)
    epochs = [{"epoch": 1, "score": -0.5}, {"epoch": 2, "score": -0.25}]
    table.put(Trial(0, {"train.lr": 0.1}, "finished", epochs))
    table.put(Trial(1, {"train.lr": 0.1}, "failed", error="died"))
    table.put(Trial(2, {"train.lr": 0.003}, "running", epochs[:1]))
    report = tune_run(changed, space, resume=True)
    assert ran(changed) == [2]
    assert (report["trials"], report["finished"], report["failed"]) == (3, 2, 1)
    assert (report["winner"], report["score"]) == (2, 0)
    assert tune_run(changed, space)["winner"] == 2
    assert ran(changed) == [2], "nothing is left to run"
    more = with_settings(changed, {"tune.trials": 4})
    assert tune_run(more, space)["trials"] == 4
    assert ran(changed) == [2, 3]


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local", "faked")
def test_a_trial_that_fails_is_shown_and_ends_nothing(
    config: RunConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    space = space_file(tmp_path, "train.lr: {choice: [0.5, 0.003]}")
    settings = {"tune.trials": 2, "train.epochs": 2, "tune.search": "grid"}
    with caplog.at_level(logging.INFO, "recsys"):
        report = tune_run(with_settings(config, settings), space)
    assert (report["trials"], report["finished"], report["failed"]) == (2, 1, 1)
    assert report["winner"] == 1
    line = "of 2) failed: clips.lance: no clips there; train.lr=0.5"
    assert any(line in message for message in caplog.messages)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_local", "faked")
def test_a_sweep_whose_trials_all_fail_says_why(config: RunConfig, tmp_path: Path) -> None:
    space = space_file(tmp_path, "train.lr: {uniform: [0.1, 0.2]}")
    changed = with_settings(config, {"tune.trials": 1, "train.seed": 13})
    with pytest.raises(InputError, match=r"all 1 trials failed: clips.lance: no clips there$"):
        tune_run(changed, space)
