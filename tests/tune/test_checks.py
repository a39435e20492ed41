"""What a sweep could never start with: refused in one line, before the data stages and Ray."""

import os
from pathlib import Path

import pytest

import recsys.cluster
import recsys.tune.stage
from recsys.cli import main
from recsys.config.run import RunConfig, load_config
from recsys.data.storage import write_json
from recsys.errors import InputError
from recsys.pipeline import BY_NAME, fingerprint
from recsys.tune.checks import require_settings, require_sweep
from recsys.tune.space import with_settings
from recsys.tune.trials import open_table
from tests.inputs import video_rows, write_input, write_rows

SPACES = Path(__file__).parents[2] / "tuning" / "spaces"
QUICK, MODEL, RERANK = (str(SPACES / f"{name}.yaml") for name in ("quick", "model", "rerank"))
FIGURES = "valid_ndcg@10, valid_hr@10, valid_clicked_auc, valid_liked_auc, score"


def with_creators(folder: Path) -> Path:
    """A run config whose catalogue names creators."""
    write_rows(video_rows(), folder / "videos.parquet")
    columns = {"video": "video_id", "creator": "creator"}
    data = {"videos": str(folder / "videos.parquet"), "video_columns": columns}
    return write_input(folder, data=data)


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return load_config(str(write_input(tmp_path)))


@pytest.mark.parametrize(
    ("space", "more", "message"),
    [
        (
            QUICK,
            ["tune.objective={valid_foo: 1}"],
            f"tune.objective.valid_foo=1: no such figure; allowed are {FIGURES}",
        ),
        (
            QUICK,
            ["tune.objective={valid_foo: 1}", "--dry-run"],
            f"tune.objective.valid_foo=1: no such figure; allowed are {FIGURES}",
        ),
        (
            QUICK,
            ["tune.objective={score: 1, best_epoch: -0.5}"],
            f"tune.objective.best_epoch=-0.5: no such figure; allowed are {FIGURES}",
        ),
        (
            QUICK,
            ["tune.objective={valid_creator_gini@10: -1}"],
            f"tune.objective.valid_creator_gini@10=-1: no such figure; allowed are {FIGURES}",
        ),
        (RERANK, ["tune.objective={valid_liked_auc: 1}"], "allowed are valid_ndcg@10, valid_hr@10"),
        (RERANK, ["--dry-run"], "tune.objective: re-ranking trades relevance"),
        (RERANK, ["tune.objective={valid_new@10: 1}"], "there is no trained model whose lists"),
        ("/no/such/space.yaml", [], "/no/such/space.yaml: cannot read the space"),
        (MODEL, ["tune.scheduler=pbt"], "tune.scheduler=pbt changes settings in the middle"),
        (QUICK, ["tune.search=grid"], "tune.search=grid: train.lr is loguniform"),
        (
            QUICK,
            ["train.epochs=0"],
            "train.epochs=0: there is nothing to train; set it to at least",
        ),
        (QUICK, ["train.epochs=0", "--dry-run"], "train.epochs=0: there is nothing to train"),
        (QUICK, ["--resume"], "holds no sweep; leave --resume out"),
    ],
)
def test_it_is_refused_as_it_is_typed(
    space: str,
    more: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delattr(recsys.cluster, "connect")
    path = write_input(tmp_path)
    assert main(["tune", "--config", str(path), "--space", space, *more]) == 2
    line = capsys.readouterr().err
    assert message in line
    assert line.count("\n") == 1
    assert not os.path.exists(tmp_path / "run"), "nothing was prepared"


def test_a_model_that_may_have_learnt_what_is_measured_is_not_re_ranked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With an earlier split what it was trained on are validation and test events."""
    path = write_input(tmp_path)
    config = load_config(str(path))
    for name in ("prepare", "train"):
        report = {"fingerprint": fingerprint(config, BY_NAME[name]), "refit": False}
        write_json(report, f"{config.run}/{name}/report.json")
    monkeypatch.setattr(recsys.tune.stage, "tune_run", lambda *_, **__: {"swept": 1})
    command = ["tune", "--config", str(path), "--space", RERANK, "tune.objective={valid_new@10: 1}"]
    earlier = ["split.valid_from=2024-05-05", "split.test_from=2024-05-06"]
    assert main([*command, *earlier]) == 2
    line = capsys.readouterr().err
    assert f"{config.run}/train: a sweep of re-ranking needs the train of these" in line
    assert line.count("\n") == 1
    assert not Path(config.run, "prepare", "events").exists(), "nothing was prepared anew"
    assert main(command) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train.lrx: {uniform: [0, 1]}", "train.lrx is not a setting; did you mean lr?"),
        ("trian.lr: {uniform: [0, 1]}", "trian.lr: trian is no section of the config"),
        ("model.dropout: {choice: [1.5]}", "model.dropout=1.5: input should be less than 1"),
        ("train.epochs: {choice: [1, 0]}", "train.epochs: 0 trains nothing; let it be at least 1"),
        ("train.epochs: {randint: [0, 3]}", "train.epochs: 0 trains nothing; let it be at least 1"),
        ("train.workers: {choice: [2]}", "train.workers: a sweep cannot change it"),
        (
            "train.lr: {uniform: [0.1, 1]}\nrerank.diversity: {uniform: [0, 1]}",
            "rerank.*: re-ranking changes nothing in training",
        ),
    ],
)
def test_the_file_of_a_space_is_named(
    text: str, message: str, tmp_path: Path, config: RunConfig
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        require_settings(config, str(path))
    assert str(error.value).startswith(f"{path}: {message}")


def test_what_creators_are_shown_is_a_figure_where_they_are_known(tmp_path: Path) -> None:
    config = load_config(str(with_creators(tmp_path)))
    both = {"valid_ndcg@10": 1, "valid_creator_gini@10": -0.1}
    changed = with_settings(config, {"tune.objective": both})
    assert "train.lr" in require_settings(changed, QUICK)
    assert "rerank.creator_exposure" in require_settings(changed, RERANK)
    shown = with_settings(config, {"tune.objective": {"valid_creators_shown@10": 1}})
    assert require_settings(shown, RERANK)
    with pytest.raises(InputError, match="no such figure"):
        require_settings(shown, QUICK)


def test_another_sweep_is_refused_but_by_its_data_alone_not_yet(config: RunConfig) -> None:
    """The data stages may make the same data again, of which nothing is known before they ran."""
    space = require_sweep(config, QUICK)
    open_table(config, space)
    report = Path(config.run, "prepare", "report.json")
    report.parent.mkdir(parents=True)
    report.write_text('{"fingerprint": "another"}')
    require_sweep(config, QUICK)
    with pytest.raises(InputError, match="holds a sweep with another the output of prepare"):
        open_table(config, space)
    other = with_settings(config, {"tune.seed": 5})
    with pytest.raises(InputError, match=r"another tune.seed \(0 then, 5 now\)"):
        require_sweep(other, QUICK)
    require_sweep(other, QUICK, anew=True)
