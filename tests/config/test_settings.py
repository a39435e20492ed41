"""`recsys settings`: every setting, with its type, default, bounds and meaning."""

import json
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from recsys.cli import main
from recsys.config.data import Section
from recsys.config.run import RunConfig, parse_config
from recsys.config.settings import all_settings, describe_settings, find_settings
from recsys.errors import InputError


class Inner(Section):
    """A section in a section."""

    rate: float = Field(0.5, gt=0, le=1)
    """Of what there is."""


class Outer(Section):
    """One of each kind of setting."""

    name: str
    """Must be given."""
    count: int | None = Field(None, ge=1)
    """May be
    left out."""
    sure: bool = True
    """Yes or no."""
    kind: Literal["flat", "deep"] = "deep"
    """One of two."""
    k: tuple[Annotated[int, Field(ge=1)], ...] = Field((10, 50), min_length=1)
    """Several."""
    weights: dict[str, float] = {}
    """By name."""
    inner: Inner = Inner()


PAGE = """\
name: text; required
    Must be given.
count: whole number; at least 1; default null
    May be left out.
sure: true or false; default true
    Yes or no.
kind: flat | deep; default deep
    One of two.
k: list (whole number); at least 1 of them, each at least 1; default [10, 50]
    Several.
weights: mapping (text: number); default {}
    By name.
inner.rate: number; above 0, at most 1; default 0.5
    Of what there is."""


def sections(kind: type[BaseModel]) -> list[type[BaseModel]]:
    inner = [field.annotation for field in kind.model_fields.values()]
    models = [i for i in inner if isinstance(i, type) and issubclass(i, BaseModel)]
    return [kind, *(deeper for section in models for deeper in sections(section))]


def test_each_kind_of_setting_reads_well() -> None:
    assert describe_settings(list(all_settings(Outer))) == PAGE


def test_long_meanings_are_wrapped_to_the_width() -> None:
    lines = describe_settings(find_settings(""), width=60).splitlines()
    assert all(len(line) <= 60 for line in lines if line.startswith(" "))


def test_every_setting_has_a_meaning() -> None:
    without = [setting.name for setting in all_settings() if not setting.meaning]
    assert not without, "a docstring below the field says what the setting means"


def test_every_section_says_what_it_is() -> None:
    for section in sections(RunConfig):
        assert section.__doc__ and section.__doc__.strip().endswith("."), section


def test_every_field_of_the_tree_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings"]) == 0
    shown = capsys.readouterr().out
    fields = sum(len(section.model_fields) for section in sections(RunConfig))
    inner = len(sections(RunConfig)) - 1
    names = [setting.name for setting in all_settings()]
    assert len(names) == len(set(names)) == fields - inner
    for name in names:
        assert f"{name}: " in shown


def test_the_names_are_those_that_a_config_takes() -> None:
    """A default given under its name is the default."""
    tree = {"run": "r", "data": {"events": "e"}, "split": {"kind": "leave_one_out"}}
    plain = parse_config(tree, "plain").model_dump(mode="json")
    for setting in all_settings():
        value = plain
        for part in setting.name.split("."):
            value = value[part]
        if not setting.required and setting.name != "split.kind":
            assert value == setting.default, setting.name


def test_json_is_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings", "train.lr", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {
            "name": "train.lr",
            "type": "number",
            "default": 0.002,
            "required": False,
            "bounds": "above 0",
            "meaning": "Peak learning rate of the dense part (AdamW).",
        }
    ]
    assert main(["settings", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == len(list(all_settings()))


@pytest.mark.parametrize(
    ("prefix", "names"),
    [
        ("publish", ["publish.index"]),
        ("publish.", ["publish.index"]),
        ("data.user_columns.user", ["data.user_columns.user"]),
        ("run", ["run"]),
    ],
)
def test_a_prefix_is_a_section_or_a_name(prefix: str, names: list[str]) -> None:
    assert [setting.name for setting in find_settings(prefix)] == names


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("lr", "lr is neither a setting nor a section of settings; did you mean train.lr?"),
        ("trian", "did you mean train?"),
        ("decode.frame", "did you mean decode.frames"),
        ("train.lr.x", "did you mean train.lr"),
        ("data.video", "did you mean data.columns.video or data.video_columns.video"),
        ("xyzzy", "the sections are data, split, prepare, decode, model, train, evaluate, "),
    ],
)
def test_an_unknown_prefix_is_one_line(
    prefix: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError):
        find_settings(prefix)
    assert main(["settings", prefix]) == 2
    shown = capsys.readouterr()
    assert message in shown.err and shown.err.count("\n") == 1 and not shown.out
