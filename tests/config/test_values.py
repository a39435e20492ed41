"""Texts that YAML takes for something else: on the command line and in the file."""

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from recsys.config.data import DecodeConfig
from recsys.config.run import RunConfig, load_config
from recsys.config.text import parse_section
from recsys.errors import InputError

TREE: dict[str, Any] = {
    "run": "/runs/mine",
    "data": {"events": "/data/events.parquet"},
    "split": {"kind": "leave_one_out"},
}
TRAPS = [
    "run #1", "2024-05-01", "007", "on", "no", "Yes", "a: b", "~x", "1e3", "[v1]", "{a}", "*x",
    "&a", "'quoted'", '"quoted"', "run ", " run", "null", "1_000", "0x10", "12:30:45", "!!int 3",
    "%20", "a::b", "- a", "? a", "| a", "> a", "@a", "`a`", "a=b", ".inf", "<<", "=", "größe", "€",
    "[a", "{a: ", "# all", "true", "---", "a\\n", "a\tb",
]  # fmt: skip


def load(folder: Path, *overrides: str, text: str | None = None) -> RunConfig:
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(TREE) if text is None else text, encoding="utf-8")
    return load_config(str(path), overrides)


def refused(folder: Path, *overrides: str, text: str | None = None) -> str:
    with pytest.raises(InputError) as error:
        load(folder, *overrides, text=text)
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("text", TRAPS)
def test_a_text_setting_takes_the_text_as_typed(tmp_path: Path, text: str) -> None:
    config = load(tmp_path, f"run=/runs/{text}", f"data.columns.user={text}")
    assert config.run == f"/runs/{text}"
    assert config.data.columns.user == text


@pytest.mark.parametrize("text", [text for text in TRAPS if text != "null"])
def test_so_does_one_that_may_be_left_out(tmp_path: Path, text: str) -> None:
    columns = load(tmp_path, f"data.columns.positive={text}").data.columns
    assert columns.positive == text
    assert load(tmp_path, "data.columns.positive=null").data.columns.positive is None
    assert load(tmp_path, f"data.columns.positive={text}").data.columns == columns


def test_a_relative_run_folder_is_the_name_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("run #1", "2024-05-01", "on", "[v1]", "null", "a: b"):
        assert load(tmp_path, f"run={name}").run == f"{tmp_path}/{name}"


@pytest.mark.parametrize(
    ("typed", "columns"),
    [
        ("[yes, no]", ("yes", "no")),
        ("[on]", ("on",)),
        ("[007, 1e3, 2024-05-01, 0x10]", ("007", "1e3", "2024-05-01", "0x10")),
        ("['a, b', \"c #d\", 'null']", ("a, b", "c #d", "null")),
        ("[]", ()),
    ],
)
def test_lists_of_text_hold_text(tmp_path: Path, typed: str, columns: tuple[str, ...]) -> None:
    assert load(tmp_path, f"data.columns.context={typed}").data.columns.context == columns
    inside = load(tmp_path, f"data.columns={{context: {typed}, user: no}}").data.columns
    assert (inside.context, inside.user) == (columns, "no")


def test_the_keys_of_a_dict_are_text(tmp_path: Path) -> None:
    tasks = "data.columns.tasks=[on, 1]"
    config = load(tmp_path, tasks, "train.task_weights={on: 2, 1: 010}")
    assert config.train.task_weights == {"on": 2.0, "1": 10.0}
    config = load(tmp_path, "data.columns.tasks=[no]", "train.task_weights.no=2")
    assert config.train.task_weights == {"no": 2.0}


def test_numbers_are_read_in_base_ten(tmp_path: Path) -> None:
    config = load(tmp_path, "train.epochs=010", "train.lr=1e-3", "decode.max_bytes=1_000")
    assert (config.train.epochs, config.train.lr, config.decode.max_bytes) == (10, 0.001, 1000)
    assert load(tmp_path, "train.refit=off", "decode.features=null").train.refit is False
    assert load(tmp_path, "evaluate.k=[007, 10]").evaluate.k == (7, 10)


def test_a_cut_is_a_number_or_a_date(tmp_path: Path) -> None:
    split = "split={kind: time, valid_from: 1651507200000, test_from: 2024-05-01}"
    assert load(tmp_path, split).split.valid_from == 1651507200000
    assert load(tmp_path, split).split.test_from == datetime(2024, 5, 1)
    settings = [
        "split.kind=time",
        "split.valid_from=2024-05-01",
        "split.test_from=2024-05-02 08:00Z",
    ]
    cuts = load(tmp_path, *settings).split
    assert cuts.valid_from == datetime(2024, 5, 1)
    assert cuts.test_from == datetime(2024, 5, 2, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs=on", "train.epochs='on': input should be a valid integer"),
        ("train.epochs=1:30", "train.epochs='1:30': input should be a valid integer"),
        ("train.epochs=3 #x", "train.epochs='3 #x': input should be a valid integer"),
        ("train.epochs=2024-05-01", "train.epochs='2024-05-01': input should be a valid integer"),
        ("train.epochs=", "train.epochs='': input should be a valid integer"),
        ("train.refit=2", "train.refit=2: input should be a valid boolean"),
        ("train=", "train='': input should be a valid dictionary"),
        ("run=", "run='': string should have at least 1 character"),
        ("data.videos=", "data.videos='': string should have at least 1 character"),
        ("data.columns.tasks=[a, ~]", "data.columns.tasks.1=None: input should be a valid string"),
        ("data.columns.tasks=[a: b]", "data.columns.tasks.0={'a': 'b'}: input should be a valid"),
        ("data.columns.tasks=[a #1]", "data.columns.tasks='[a #1]': input should be a valid tuple"),
        ("data.columns.tasks=on", "tasks='on': input should be a valid tuple; a list of one is"),
        ("evaluate.k=10", "a valid tuple; a list of one is written [10]"),
        ("train.lr=inf", "train.lr='inf': input should be a finite number"),
        ("train.lr=.nan", "train.lr='.nan': input should be a"),
        ("rerank.diversity=nan", "rerank.diversity='nan': input should be a finite number"),
        ("train.device=cpu ", "train.device='cpu ': input should be 'auto', 'cpu' or 'cuda'"),
        ("run=caf\udce9", r"run='caf\udce9': input should be a valid string"),
        ("split.valid_from=2024-13-01", "split.valid_from='2024-13-01': input should be a valid"),
        ("train={lr: 1, lr: 2}", "'train={lr: 1, lr: 2}': line 1: lr is given twice; keep one"),
        ("train=&a {lr: *a}", "train='&a {lr: *a}': input should be a valid dictionary"),
    ],
)
def test_what_does_not_fit_is_one_line(tmp_path: Path, override: str, message: str) -> None:
    assert message in refused(tmp_path, override)


def test_the_same_in_the_file(tmp_path: Path) -> None:
    text = """
run: 2024-05-01
data:
  events: 007
  columns: {user: no, video: 1e3, positive: ~, tasks: [yes, no], context: [on]}
split: {kind: leave_one_out}
train: {epochs: 010, task_weights: {yes: 2, no: 0.5}}
"""
    config = load(tmp_path, text=text)
    assert config.run.endswith("/2024-05-01")
    assert config.data.events.endswith("/007")
    columns = config.data.columns
    assert (columns.user, columns.video, columns.positive) == ("no", "1e3", None)
    assert (columns.tasks, columns.context) == (("yes", "no"), ("on",))
    assert config.train.epochs == 10
    assert config.train.task_weights == {"yes": 2.0, "no": 0.5}


def test_anchors_and_merges_stay_what_they_are_in_yaml(tmp_path: Path) -> None:
    text = """
run: &name on
data: {events: e.parquet, columns: {<<: &c {user: no, time: off}, user: *name}}
split: {kind: leave_one_out}
tune: {seed: &n 3}
train: {seed: *n}
"""
    config = load(tmp_path, text=text)
    assert (config.data.columns.user, config.data.columns.time) == ("on", "off")
    assert (config.train.seed, config.tune.seed) == (3, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run: a\nrun: b", "run.yaml: line 2: run is given twice; keep one of them"),
        ("run: a\ntrain:\n  lr: 1\n  lr: 1", "run.yaml: line 4: lr is given twice"),
        ("? [a]\n: b", "run.yaml: line 1: a key is a name, not a list or mapping"),
        ("run: !python x", "run.yaml: not valid YAML: the tag '!python' is not read here"),
        ("run: *x", "run.yaml: not valid YAML: found undefined alias"),
        ("run: &a [*a]", "run.yaml: not valid YAML: it holds itself, or is nested too deep"),
        ("run: " + "[" * 3000, "run.yaml: not valid YAML: it holds itself, or is nested too deep"),
        ("run: a\0b", "run.yaml: not valid YAML: unacceptable character"),
        ('run: "a\\0b"', "run.yaml: not valid YAML: a zero byte"),
        ("run: ~\ndata: {}\nsplit: {}", "run.yaml: run is missing; add it"),
        ("on: 3", "run.yaml: run is missing"),
        ("run: a\ndata: {events: e, columns: {user: }}\nsplit: {kind: leave_one_out}",
         "run.yaml: data.columns.user=None: input should be a valid string"),
        ('run: "\\ud83d"\ndata: {events: e}\nsplit: {kind: leave_one_out}', "input should be a"),
        ("", "run.yaml: a config is a mapping of sections"),
        ("# nothing", "run.yaml: a config is a mapping of sections"),
    ],
)  # fmt: skip
def test_a_file_that_is_wrong_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    assert message in refused(tmp_path, text=text)


def test_a_setting_given_twice_is_the_last_one_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "recsys"):
        assert load(tmp_path, "train.epochs=3", "train.epochs=3").train.epochs == 3
        assert not caplog.messages
        config = load(tmp_path, "train.epochs=3", "train.lr=1", "train.epochs=4", "train={lr: 2}")
    assert (config.train.epochs, config.train.lr) == (10, 2.0)
    assert caplog.messages == [
        "train.epochs=3 is given too: train.epochs=4 comes after it and counts",
        "train.epochs=4 is given too: train={lr: 2} comes after it and counts",
        "train.lr=1 is given too: train={lr: 2} comes after it and counts",
    ]


def test_a_section_of_its_own_goes_by_the_same_types() -> None:
    config = parse_section(DecodeConfig, ["decode.schemes=[file, on]", "decode.size=032"], "decode")
    assert (config.schemes, config.size) == (("file", "on"), 32)


def test_rays_own_serve_run_takes_texts_as_typed() -> None:
    """`serve run recsys.serve.app:build bundle=…` splits at the first sign and reads no YAML."""
    scripts = pytest.importorskip("ray.serve.scripts")
    typed = {name: f"bundle={name}" for name in ("run #1", "007", "a: b", "a=b", "no")}
    assert {
        name: scripts.convert_args_to_dict((text,)) for name, text in typed.items()
    } == {name: {"bundle": name} for name in typed}  # fmt: skip
