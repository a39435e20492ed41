"""sweep.html: what it says, and that it stands alone."""

import re
from pathlib import Path

import optuna.importance
import pytest

from recsys.config.run import RunConfig, load_config
from recsys.tune.page import sweep_page
from recsys.tune.search import importance
from recsys.tune.space import Space, fit_space, make_space, with_settings
from recsys.tune.trials import Trial
from tests.inputs import write_input

TREE = {
    "model.content.temporal": {"choice": ["lstm", "mean"]},
    "train.lr": {"loguniform": [1e-4, 1e-2]},
    "model.content.frame_dim": {"choice": [16, 32], "when": {"model.content.temporal": "lstm"}},
}


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    config = load_config(str(write_input(tmp_path)))
    objective = {"valid_ndcg@10": 1, "valid_creator_gini@10": -0.5}
    return with_settings(config, {"tune.objective": objective})


@pytest.fixture
def space(config: RunConfig) -> Space:
    return fit_space(make_space(TREE), config)


def trial(number: int, ndcg: float, gini: float, **settings: object) -> Trial:
    epochs = [
        {"epoch": at, "score": at - 3.0, "valid_ndcg@10": ndcg, "valid_creator_gini@10": gini}
        for at in (1, 2)
    ]
    return Trial(number, settings, "finished", epochs)


TRIALS = [
    trial(0, 0.25, 0.5, **{"train.lr": 0.002, "model.content.temporal": "mean"}),
    trial(
        1,
        0.5,
        0.5,
        **{"train.lr": 0.001, "model.content.temporal": "lstm", "model.content.frame_dim": 32},
    ),
    Trial(2, {"train.lr": 0.01}, "failed", [], "the loss is <nan>"),
]


def test_the_page_names_the_winner_and_stands_alone(config: RunConfig, space: Space) -> None:
    html = sweep_page(space, config, TRIALS, {"test_ndcg@10": 0.375})
    assert "Trial 1 is the best: train.lr=0.001, model.content.temporal=lstm" in html
    assert "objective 0.2500 on the validation events; the config as it was has 0 " not in html
    assert "objective 0.2500 on the validation events; the config as it was has 0." in html
    assert "read once, for this trial alone and after it was chosen: test ndcg@10 0.3750." in html
    assert not re.search(r"<script|https?://|src=|@import", html)


def test_what_a_trial_says_is_text(config: RunConfig, space: Space) -> None:
    html = sweep_page(space, config, TRIALS, {})
    assert "the loss is &lt;nan&gt;" in html
    assert "<nan>" not in html


def test_every_chart_is_there(config: RunConfig, space: Space) -> None:
    html = sweep_page(space, config, TRIALS, {})
    titles = re.findall(r"<figcaption>(.+?)</figcaption>", html)
    assert titles == [
        "How the sweep went",
        "What is traded for what",
        "All settings together",
        "Epoch by epoch",
        *TREE,
    ]


def test_paths_run_where_the_values_lie(config: RunConfig, space: Space) -> None:
    """Axes from x = 24 to 336; lstm, frame_dim 32 of 16 and 32, lr 0.001 in the middle of its log
    scale, and the best value; the other trial has no frame_dim, and 0.002 lies at 0.6505."""
    html = sweep_page(space, config, TRIALS, {})
    chart = html.partition('aria-label="Parallel coordinates"')[2].partition("</svg>")[0]
    paths = re.findall(r'polyline class="(.+?)" points="(.+?)"', chart)
    order = list(space)
    assert order == ["model.content.temporal", "train.lr", "model.content.frame_dim"]
    assert paths == [
        ("s0 pale", "336.0,28.0 227.0,88.0 24.0,208.0"),
        ("s1", "24.0,28.0 180.0,88.0 336.0,148.0 336.0,208.0"),
    ]


def test_importance_is_said_once_there_are_enough_trials(config: RunConfig, space: Space) -> None:
    """The value follows from the learning rate alone."""
    trials = [
        trial(n, n / 20, 0.5, **{"train.lr": 1e-4 * 100 ** (n / 20), "model.content.temporal": t})
        for n in range(20)
        for t in [("lstm", "mean")[n % 2]]
    ]
    shares = importance(space, trials, config.tune)
    assert list(shares)[0] == "train.lr"
    assert shares["train.lr"] > 0.9
    assert importance(space, trials[:9], config.tune) == {}
    assert "What mattered" in sweep_page(space, config, trials, {})


def test_importance_is_what_the_page_says_in_every_optuna(
    config: RunConfig, space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default is another one in Optuna 4."""
    asked: list[object] = []

    def importances(study: optuna.Study, *, evaluator: object = None) -> dict[str, float]:
        asked.append(evaluator)
        return {"train.lr": 1.0}

    monkeypatch.setattr(optuna.importance, "get_param_importances", importances)
    trials = [
        trial(n, n / 20, 0.5, **{"train.lr": 0.01, "model.content.temporal": "mean"})
        for n in range(20)
    ]
    assert "PED-ANOVA" in sweep_page(space, config, trials, {})
    (evaluator,) = asked
    assert isinstance(evaluator, optuna.importance.PedAnovaImportanceEvaluator)


def test_the_winner_of_a_population_is_told_with_its_schedule(tmp_path: Path) -> None:
    """Trial 2 took over trial 1's weights; trial 3 went on as trial 1, unchanged."""
    config = with_settings(load_config(str(write_input(tmp_path))), {"tune.scheduler": "pbt"})
    space = fit_space(make_space({"train.lr": {"loguniform": [1e-4, 1e-2]}}), config)

    def stretch(number: int, lr: float, *scores: float, parent: int | None = None) -> Trial:
        epochs = [{"epoch": at + 1, "score": score} for at, score in enumerate(scores)]
        before = 0 if parent is None else 2
        settings: dict[str, object] = {"train.lr": lr}
        return Trial(number, settings, "finished", epochs, parent=parent, num_inherited=before)

    first = [stretch(0, 0.002, 0.0, 1.0), stretch(1, 0.001, 0.0, 2.0)]
    unchanged = stretch(3, 0.001, 0.0, 2.0, 3.0, parent=1)
    taken = [stretch(2, 0.0012, 0.0, 2.0, 4.0, parent=1), unchanged]
    html = sweep_page(space, config, [*first, *taken], {})
    assert "not the one measured here: epochs 1 to 2: train.lr=0.001; epochs 3 to 3: train" in html
    assert "trial 1</td>" in html
    assert "the config as it was has 1 after 2 epochs." in html
    curves = html.partition('aria-label="The score of each epoch"')[2].partition("</svg>")[0]
    lengths = [
        len(line.split()) for line in re.findall(r'polyline class=".+?" points="(.+?)"', curves)
    ]
    assert sorted(lengths) == [2, 2, 2, 3], "from where each begins, and the winner's whole"
    worse = stretch(2, 0.0012, 0.0, 2.0, 1.0, parent=1)
    html = sweep_page(space, config, [*first, worse, unchanged], {})
    assert "another training" not in html
    row = html.partition("<h2>All trials</h2>")[2].partition("0.0012")[0].rpartition("<tr")[2]
    assert re.findall(r"<td[^>]*>(.*?)</td>", row) == ["2", "finished", "3", "1"], "its own value"
    went_on = [stretch(2, 0.002, 0.0, 1.0, 1.5, parent=0), unchanged]
    html = sweep_page(space, config, [*first, *went_on], {})
    assert "the config as it was has 1.5" in html and "after 3 epochs." in html
