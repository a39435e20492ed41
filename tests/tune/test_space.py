from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.config.run import RunConfig, load_config
from recsys.errors import InputError
from recsys.tune.space import (
    SpaceEntry,
    choose,
    fit_space,
    grid,
    make_space,
    read_space,
    value_at,
    with_settings,
)
from tests.inputs import write_input

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return load_config(str(write_input(tmp_path)))


@pytest.mark.parametrize("path", sorted((ROOT / "tuning" / "spaces").glob("*.yaml")))
def test_the_spaces_that_come_with_the_project_fit_the_config(
    path: Path, config: RunConfig
) -> None:
    space = fit_space(read_space(str(path)), config)
    assert choose(space, config, lambda entry: entry.any_value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a space maps settings to {kind: arguments}"),
        ("- train.lr", "a space maps settings to {kind: arguments}"),
        ("train.lr: 3", "train.lr=3: allowed is one of uniform, loguniform, randint, choice"),
        ("train.lr: {normal: [0, 1]}", "allowed is one of uniform, loguniform, randint, choice"),
        ("train.lr: {uniform: [1]}", "uniform takes two numbers, e.g. {uniform: [1, 10]}"),
        ("train.lr: {uniform: [a, b]}", "uniform takes two numbers"),
        ("train.lr: {uniform: 3}", "uniform takes two numbers"),
        ("train.lr: {uniform: [2, 1]}", "uniform takes the smaller number first"),
        ("train.lr: {loguniform: [0, 1]}", "loguniform takes numbers above 0"),
        ("train.epochs: {randint: [5.5, 6.1]}", "randint takes whole numbers"),
        ("train.epochs: {randint: [1, 6.5]}", "randint takes whole numbers"),
        ("model.dim: {choice: []}", "choice takes a list of values"),
        ("model.dim: {choice: 32}", "choice takes a list of values"),
        ("train.lr: [", "cannot read the space"),
        ("train.lr: {choice: [1]}\ntrain.lr: {choice: [2]}", "line 2: train.lr is given twice"),
    ],
)
def test_a_wrong_space_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_space(str(path))
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_space_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none.yaml: cannot read the space .*check --space"):
        read_space(str(tmp_path / "none.yaml"))


def test_choices_are_read_as_their_settings_types(tmp_path: Path, config: RunConfig) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        "data.columns.user: {choice: [no]}\nmodel.use_id: {choice: [no]}\n"
        "split.valid_from: {choice: [2024-05-02]}\ndecode.size: {choice: [032]}"
    )
    values = {name: entry.any_value for name, entry in read_space(str(path)).items()}
    changed = with_settings(config, values)
    assert (changed.data.columns.user, changed.model.use_id) == ("no", False)
    assert (str(changed.split.valid_from)[:10], changed.decode.size) == ("2024-05-02", 32)


TREE = {
    "model.content.frame_dim": {"choice": ["32", 64], "when": {"model.content.temporal": "lstm"}},
    "model.content.temporal": {"choice": ["lstm", "mean"]},
    "train.seed": {"randint": [3, 5]},
}


def test_values_are_those_that_the_config_would_hold(config: RunConfig) -> None:
    space = fit_space(make_space({**TREE, "model.use_id": {"choice": ["no"]}}), config)
    assert space["model.content.frame_dim"].arguments == [32, 64]
    assert space["model.use_id"].arguments == [False]


def test_bounds() -> None:
    space = make_space(
        {"a": {"uniform": ["1e-1", 0.5]}, "b": {"randint": [1, 4]}, "c": {"choice": [32, "x"]}}
    )
    assert (space["a"].bounds, space["a"].values) == ((0.1, 0.5), None)
    assert (space["b"].bounds, list(space["b"].values or ())) == ((1, 3), [1, 2, 3])
    assert (space["c"].values, space["c"].any_value) == ([32, "x"], 32)


@pytest.mark.parametrize(
    ("kind", "arguments", "half"),
    [("uniform", [0, 4], 2), ("loguniform", [0.01, 1], 0.1), ("randint", [1, 5], 2.5)],
)
def test_numbers_are_drawn_evenly_within_the_bounds(
    kind: str, arguments: list[float], half: float
) -> None:
    """Half of them below the middle, of the logarithms where these are even."""
    entry, rng = SpaceEntry("train.lr", kind, arguments, {}), np.random.default_rng(0)
    drawn = [float(str(entry.draw(rng))) for _ in range(1000)]
    low, high = entry.bounds
    assert low <= min(drawn) < max(drawn) <= high
    assert 440 < sum(one < half for one in drawn) < 560


def test_any_value_of_a_list_may_be_drawn() -> None:
    rng = np.random.default_rng(0)
    choice = SpaceEntry("model.content.temporal", "choice", ["lstm", "mean"], {})
    assert {choice.draw(rng) for _ in range(50)} == {"lstm", "mean"}
    whole = SpaceEntry("train.negatives", "randint", [1, 4], {})
    assert {whole.draw(rng) for _ in range(50)} == {1, 2, 3}


def test_a_conditional_setting_comes_after_its_condition_and_only_where_it_holds(
    config: RunConfig,
) -> None:
    space = fit_space(make_space(TREE), config)
    assert list(space)[-1] == "model.content.frame_dim"
    last = choose(space, config, lambda entry: list(entry.values or ())[-1])
    assert last == {"model.content.temporal": "mean", "train.seed": 4}
    first = choose(space, config, lambda entry: entry.any_value)
    assert first["model.content.frame_dim"] == 32


def test_a_condition_may_be_of_a_setting_that_the_space_leaves_alone(config: RunConfig) -> None:
    space = fit_space(
        make_space({"model.content.frame_dim": TREE["model.content.frame_dim"]}), config
    )
    assert choose(space, config, lambda entry: entry.any_value) == {"model.content.frame_dim": 32}
    mean = with_settings(config, {"model.content.temporal": "mean"})
    assert choose(space, mean, lambda entry: entry.any_value) == {}


def test_a_grid_holds_each_combination_once(config: RunConfig) -> None:
    """Two LSTM widths and no width of the mean, each with two seeds."""
    points = grid(fit_space(make_space(TREE), config), config)
    shown = [tuple(point.values()) for point in points]
    assert shown == [
        ("lstm", 3, 32),
        ("lstm", 3, 64),
        ("lstm", 4, 32),
        ("lstm", 4, 64),
        ("mean", 3),
        ("mean", 4),
    ]


def test_a_grid_of_what_cannot_be_listed_is_refused(config: RunConfig) -> None:
    space = make_space({"train.lr": {"uniform": [0.1, 0.2]}})
    with pytest.raises(InputError, match="tune.search=grid: train.lr is uniform, and a grid takes"):
        grid(space, config)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"train.lrr": {"uniform": [0, 1]}}, "train.lrr is not a setting; did you mean lr"),
        (
            {"trian.lr": {"uniform": [0, 1]}},
            "trian.lr: trian is no section of the config; check --space",
        ),
        ({"train.lr": {"choice": [0.1, -1]}}, "train.lr=-1: input should be greater than 0"),
        (
            {"train.lr": {"uniform": [0.5, 1], "when": {"x.y": 1}}},
            "x.y: x is no section of the config",
        ),
        (
            {"train.batch_timelines": {"uniform": [4, 80]}},
            "train.batch_timelines=28.19.*: input should be a valid integer.*, use randint",
        ),
        (
            {"train.batch_timelines": {"loguniform": [4, 80]}},
            "whole numbers are meant, use randint",
        ),
        ({"model.dropout": {"uniform": [0, 2]}}, "model.dropout=2.0: input should be less than 1"),
        ({"decode.size": {"choice": [64]}}, "decode.size: a sweep cannot change it"),
        ({"train.refit": {"choice": [True, False]}}, "train.refit: a sweep cannot change it"),
        (
            {"train.checkpoint_every_partitions": {"randint": [1, 9]}},
            "train.checkpoint_every_partitions: a sweep cannot change it",
        ),
        (
            {"train.lr": {"uniform": [0.1, 1], "when": {"train.epochs": [99, 98]}}},
            "train.lr: no trial meets its condition, for train.epochs is never 99 or 98",
        ),
        (
            {
                "train.epochs": {"randint": [2, 5]},
                "train.lr": {"uniform": [0.1, 1], "when": {"train.epochs": 5}},
            },
            "train.lr: no trial meets its condition, for train.epochs is never 5",
        ),
        (
            {
                "train.lr": {"uniform": [0.1, 1]},
                "model.dropout": {"uniform": [0, 0.5], "when": {"train.lr": 0.25}},
            },
            "model.dropout: no trial meets its condition",
        ),
        ({"train.workers": {"choice": [2]}}, "train.workers: a sweep cannot change it"),
        (
            {"train.device": {"choice": ["cpu"]}},
            "train.*, prepare.min_video_events, rerank.*, but for train.workers,",
        ),
        (
            {"train.lr": {"uniform": [0.1, 1]}, "rerank.diversity": {"uniform": [0, 1]}},
            "rerank.*: re-ranking changes nothing in training",
        ),
    ],
)
def test_what_no_sweep_may_change_is_refused(
    config: RunConfig, tree: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        fit_space(make_space(tree), config)


def test_checkpoints_count_where_something_follows_them(config: RunConfig) -> None:
    """Weights that workers learn apart are averaged before each checkpoint."""
    tree = {"train.checkpoint_every_partitions": {"choice": [1, 2]}}
    apart = with_settings(config, {"train.average_every": 4})
    assert list(fit_space(make_space(tree), apart)) == list(tree)
    both = {**tree, "train.average_every": {"choice": [1, 4]}}
    assert list(fit_space(make_space(both), config)) == list(both)


def test_a_condition_may_be_met_by_the_config_where_its_setting_does_not_count(
    config: RunConfig,
) -> None:
    """Where the mean is drawn, the width is the config's own, which is none of its choice."""
    width = {"choice": [16, 32], "when": {"model.content.temporal": "lstm"}}
    last = {"choice": [0.1, 0.2], "when": {"model.content.frame_dim": 64}}
    tree = {**TREE, "model.content.frame_dim": width, "model.dropout": last}
    space = fit_space(make_space(tree), config)
    chosen = choose(space, config, lambda entry: list(entry.values or ())[-1])
    assert chosen["model.content.temporal"] == "mean"
    assert chosen["model.dropout"] == 0.2


def test_an_encoder_that_decode_did_not_write_for_is_refused(tmp_path: Path) -> None:
    """With a frozen encoder decode keeps its features; one that is trained needs frames."""
    columns = {"video": "video_id", "uri": "path"}
    data = {"videos": "videos.parquet", "video_columns": columns}
    model = {"content": {"encoder": "efficientnet_lite0"}}
    config = load_config(str(write_input(tmp_path, data=data, model=model)))
    space = make_space({"model.content.encoder": {"choice": ["efficientnet_lite0", "small_cnn"]}})
    with pytest.raises(InputError, match="model.content.encoder: all trials share what"):
        fit_space(space, config)


def test_conditions_in_a_circle_are_refused() -> None:
    circle = {
        "a": {"choice": [1], "when": {"b": 1}},
        "b": {"choice": [1], "when": {"a": 1}},
    }
    with pytest.raises(InputError, match=r"a, b: their conditions \(when\) go in a circle"):
        make_space(circle)


def test_the_value_of_a_setting(config: RunConfig) -> None:
    assert value_at(config, "train.batch_timelines") == 4


def test_settings_are_laid_over_the_config(config: RunConfig) -> None:
    changed = with_settings(config, {"train.lr": 0.5, "model.content.dim": 8})
    assert (changed.train.lr, changed.model.content.dim) == (0.5, 8)
    assert changed.train.epochs == config.train.epochs
    assert with_settings(config, {}) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train.lrr": 1}, "train.lrr is not a setting; did you mean lr"),
        ({"trian.lr": 1}, "trian.lr: trian is no section of the config; check --space"),
        ({"train.lr.x": 1}, "train.lr.x: lr is no section of the config"),
        ({"train.lr": -1}, "train.lr=-1: input should be greater than 0"),
    ],
)
def test_a_wrong_setting_of_a_space_is_named(
    config: RunConfig, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        with_settings(config, settings)
