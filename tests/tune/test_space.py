from pathlib import Path
from typing import Any

import pytest
from ray import tune

from recsys.config.run import RunConfig, load_config
from recsys.errors import InputError
from recsys.tune.space import read_space, to_domain, with_settings
from tests.inputs import write_input

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return load_config(str(write_input(tmp_path)))


@pytest.mark.parametrize("path", sorted((ROOT / "tuning" / "spaces").glob("*.yaml")))
def test_the_spaces_that_come_with_the_project_fit_the_config(
    path: Path, config: RunConfig
) -> None:
    space = read_space(str(path))
    assert space
    for name, choice in space.items():
        ((kind, arguments),) = choice.items()
        with_settings(config, {name: int(arguments[0]) if kind == "randint" else arguments[0]})
        assert to_domain(choice).sample() is not None


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
    changed = with_settings(config, {k: v["choice"][0] for k, v in read_space(str(path)).items()})
    assert (changed.data.columns.user, changed.model.use_id) == ("no", False)
    assert (str(changed.split.valid_from)[:10], changed.decode.size) == ("2024-05-02", 32)


def test_domains() -> None:
    uniform = to_domain({"uniform": ["1e-1", 0.5]})
    assert (uniform.lower, uniform.upper) == (0.1, 0.5)
    assert isinstance(uniform.get_sampler(), tune.search.sample.Uniform)
    log = to_domain({"loguniform": [0.001, 0.1]})
    assert isinstance(log.get_sampler(), tune.search.sample.LogUniform)
    whole = to_domain({"randint": [1, 4]})
    assert {whole.sample() for _ in range(100)} == {1, 2, 3}
    assert to_domain({"choice": [32, "x"]}).categories == [32, "x"]


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
