import os
import re
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from recsys.config.data import DecodeConfig
from recsys.config.run import RunConfig, dump_config, load_config, parse_config
from recsys.config.text import parse_section
from recsys.errors import InputError
from recsys.prepare.times import to_native_time

TREE: dict[str, Any] = {
    "run": "/runs/mine",
    "data": {"events": "/data/events.parquet", "columns": {"tasks": ["click", "like"]}},
    "split": {"kind": "leave_one_out"},
}


def load(folder: Path, *overrides: str, tree: Any = None) -> RunConfig:
    path = folder / "run.yaml"
    path.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree or TREE))
    return load_config(str(path), overrides)


def refused(folder: Path, *overrides: str, tree: Any = None) -> str:
    with pytest.raises(InputError) as error:
        load(folder, *overrides, tree=tree)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_defaults_and_overrides(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        "train.epochs=3",
        "train.lr=1e-3",
        "train.task_weights={like: 2}",
        "model.content.encoder=none",
        "data.columns.positive=click",
        "evaluate.k=[5]",
    )
    assert (config.train.epochs, config.train.lr) == (3, 0.001)
    assert config.train.task_weights == {"like": 2.0}
    assert config.model.content.encoder == "none"
    assert config.data.columns.tasks == ("click", "like")
    assert config.evaluate.k == (5,)
    assert config.prepare.min_video_events == 1
    assert not config.decodes


def test_an_override_may_hold_signs_that_yaml_reads_otherwise(tmp_path: Path) -> None:
    config = load(tmp_path, "data.events=/data/*.parquet", "run=s3://bucket/run=1")
    assert (config.data.events, config.run) == ("/data/*.parquet", "s3://bucket/run=1")
    assert load(tmp_path, "data.events=*.parquet").data.events.endswith("/*.parquet")
    assert load(tmp_path, "data.columns.positive=null").data.columns.positive is None


def test_an_empty_section_is_its_defaults(tmp_path: Path) -> None:
    text = yaml.safe_dump(TREE) + "model:\ntrain:\n  # lr: 0.1\n"
    assert load(tmp_path, "model.dim=8", tree=text).model.dim == 8
    assert load(tmp_path, tree=text).train == load(tmp_path).train


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epoch=3", "train.epoch is not a setting; did you mean epochs?"),
        ("trian.epochs=3", "trian is not a setting; did you mean train?"),
        ("split.zzz=3", "split.zzz is not a setting; known here: kind, valid_from, test_from"),
        ("model.content.encoderr=x", "model.content.encoderr is not a setting; did you mean enc"),
        ("train.epochs=-1", "train.epochs=-1: input should be greater than or equal to 0"),
        ("train.epochs=1.5", "train.epochs=1.5: input should be a valid integer"),
        ("train.epochs=many", "train.epochs='many': input should be a valid integer"),
        ("train.device=tpu", "train.device='tpu': input should be 'auto', 'cpu' or 'cuda'"),
        ("model.id_dropout=1", "model.id_dropout=1: input should be less than 1"),
        ("evaluate.k=[5, 0]", "evaluate.k.1=0: input should be greater than or equal to 1"),
        ("data.columns.tasks=click", "data.columns.tasks='click': input should be a valid tuple"),
        ("train=5", "train=5: input should be a valid dictionary"),
        ("train.task_weights={click: x}", "train.task_weights.click='x': input should be a valid"),
        (
            "serve.max_videos=5001",
            "serve.max_videos=5001: input should be less than or equal to 5000",
        ),
        ("serve.rank=share", "serve.rank=share: must be one of retrieval, click, like"),
        (
            "train.task_weights={share: 2}",
            "train.task_weights.share is no ranking task; data.columns.tasks has click, like",
        ),
        (
            "data.columns={tasks: [click], context: [click]}",
            "data.columns: click is in context, which is known when the request is made, and in",
        ),
        (
            "data.columns={positive: seen, context: [seen]}",
            "data.columns: seen is in context, which is known when the request is made, and in",
        ),
        ("split.valid_from=3", "split: kind=leave_one_out takes neither valid_from nor test_from"),
        ("split.test_days=3", "split: kind=leave_one_out takes neither .* and no days"),
        ("split={kind: time, test_from: 3}", "split: kind=time needs valid_from and test_from, or"),
        ("split={kind: time, test_days: 3}", "split: kind=time needs valid_from and test_from, or"),
        (
            "split={kind: time, valid_from: 1, test_from: 3, test_days: 1}",
            "split: kind=time needs valid_from and test_from, or valid_days and test_days",
        ),
        (
            "split={kind: time, valid_from: soon, test_from: 3}",
            "split.valid_from='soon': input should be a valid integer.* or .* a valid datetime",
        ),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(
    tmp_path: Path, override: str, message: str
) -> None:
    line = refused(tmp_path, override)
    assert line.startswith(f"{tmp_path}/run.yaml: ")

    assert re.search(message if ".*" in message else re.escape(message), line), line


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs", "'train.epochs' is no setting; write key=value, e.g. train.epochs=3"),
        ("=3", "'=3' is no setting; write key=value"),
        ("run.x=3", "'run.x=3': run is a value, not a section"),
    ],
)
def test_what_is_no_override_is_refused(tmp_path: Path, override: str, message: str) -> None:
    assert message in refused(tmp_path, override)


def test_several_mistakes_are_counted(tmp_path: Path) -> None:
    assert refused(tmp_path, "train.epoch=3", "train.lr=0").endswith("(and 1 more)")


def test_a_missing_setting_is_named(tmp_path: Path) -> None:
    tree = {name: value for name, value in TREE.items() if name != "run"}
    assert "run.yaml: run is missing; add it" in refused(tmp_path, tree=tree)
    assert "data.events is missing" in refused(tmp_path, tree={**TREE, "data": {}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run: [", "run.yaml: not valid YAML: while parsing"),
        ("[1, 2]", "a config is a mapping of sections"),
        ("", "a config is a mapping of sections"),
    ],
)
def test_a_file_that_is_no_config(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        load_config(str(tmp_path / "run.yaml"))
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.yaml: cannot read the config \(No such file.*--co"):
        load_config(str(tmp_path / "none.yaml"))
    (tmp_path / "latin.yaml").write_bytes(b"run: gr\xfc\xdfe")
    with pytest.raises(InputError, match="cannot read the config .*not UTF-8"):
        load_config(str(tmp_path / "latin.yaml"))


def test_a_dumped_config_loads_as_the_same(tmp_path: Path) -> None:
    tree = {
        **TREE,
        "data": {
            **TREE["data"],
            "videos": "/data/videos.parquet",
            "video_columns": {"uri": "path", "categories": ["tag"]},
            "users": "s3://bucket/users.parquet",
            "user_columns": {"groups": ["age", "region"]},
        },
        "split": {"kind": "time", "valid_from": "2024-05-01T10:00:00+08:00", "test_from": 17},
        "train": {"task_weights": {"like": 0.5}, "lr": 1e-5},
    }
    config = load(tmp_path, tree=tree)
    assert load(tmp_path, tree=dump_config(config)) == config
    assert parse_config(config.model_dump(mode="json"), "again") == config
    for text in ("prepare:", "min_video_events: 1", "checkpoint_every_partitions: 8"):
        assert text in dump_config(config), "a saved config holds defaults too"


def test_a_config_is_frozen(tmp_path: Path) -> None:
    config = load(tmp_path)
    with pytest.raises(ValidationError):
        config.train.epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    "value",
    [date(2024, 5, 1), "2024-05-01", "2024-05-01T00:00:00Z", "2024-05-01T08:00:00+08:00"],
)
def test_cuts_as_iso_dates(tmp_path: Path, value: object) -> None:
    split = {"kind": "time", "valid_from": value, "test_from": "2024-06-01"}
    cut = load(tmp_path, tree={**TREE, "split": split}).split.valid_from
    assert cut is not None
    assert to_native_time(cut, "ms") == 1_714_521_600_000
    assert to_native_time(cut, "s") == 1_714_521_600
    assert to_native_time(cut, "ns") == 1_714_521_600 * 10**9


def test_cuts_as_numbers_are_in_the_events_own_unit(tmp_path: Path) -> None:
    split = {"kind": "time", "valid_from": 1651507200000, "test_from": "1651593600000"}
    cuts = load(tmp_path, tree={**TREE, "split": split}).split
    assert (cuts.valid_from, cuts.test_from) == (1651507200000, 1651593600000)
    assert to_native_time(1651507200000, "us") == 1651507200000
    assert to_native_time(datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC), "us") == 1_500_000


def test_paths_become_absolute_and_addresses_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    data = {
        "events": "day-*/events.parquet",
        "videos": "~/videos.parquet",
        "users": "s3://bucket/users.parquet",
    }
    tree = {**TREE, "run": "../run", "data": data}
    config = load(tmp_path, tree=tree)
    assert config.run == str(tmp_path.parent / "run")
    assert config.data.events == f"{tmp_path}/day-*/events.parquet"
    assert config.data.videos == "/home/someone/videos.parquet"
    assert config.data.users == "s3://bucket/users.parquet"
    assert load(tmp_path, "run=gs://bucket/run", tree=tree).run == "gs://bucket/run"


def test_the_log_and_the_uploads_are_the_same_wherever_a_server_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle keeps these settings, and a relative path would be another log in another folder."""
    monkeypatch.chdir(tmp_path)
    given = ("data.live=live.sqlite", "serve.events=live.sqlite", "serve.uploads=~/uploads")
    config = load(tmp_path, *given)
    assert config.data.live == config.serve.events == str(tmp_path / "live.sqlite")
    assert config.serve.uploads == os.path.expanduser("~/uploads")
    address = "postgresql://me@host/events"
    assert load(tmp_path, f"serve.events={address}").serve.events == address


def test_paths_may_start_from_a_root(tmp_path: Path) -> None:
    data = {"events": "events.parquet", "videos": "/abs/videos.parquet"}
    tree = {**TREE, "data": data}
    config = load(tmp_path, "data.root=s3://bucket/set", tree=tree)
    assert config.data.events == "s3://bucket/set/events.parquet"
    assert config.data.videos == "/abs/videos.parquet"
    config = load(tmp_path, f"data.root={tmp_path}/set", tree=tree)
    assert config.data.events == f"{tmp_path}/set/events.parquet"
    assert load(tmp_path, tree=dump_config(config)) == config


def test_one_section_alone() -> None:
    config = parse_section(DecodeConfig, ["decode.frames=4"], "decode")
    assert config == DecodeConfig(frames=4)
    with pytest.raises(InputError, match="train is not a setting here; allowed is decode.key=valu"):
        parse_section(DecodeConfig, ["train.epochs=4"], "decode")
    with pytest.raises(InputError, match="decode: frame is not a setting; did you mean frames?"):
        parse_section(DecodeConfig, ["decode.frame=4"], "decode")


def test_config_and_schema_bring_in_neither_torch_nor_ray() -> None:
    code = (
        "import sys, recsys.config.run, recsys.schema\n"
        "assert not {'torch', 'ray'} & {name.split('.')[0] for name in sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})


@pytest.mark.parametrize(
    ("settings", "trains", "stores"),
    [
        ((), False, True),
        (("model.content.encoder=small_cnn",), True, False),
        (("model.content.train_encoder=true",), True, False),
        (("model.content.encoder=my.nets:make",), True, False),
        (("model.content.encoder=small_cnn", "model.content.train_encoder=false"), False, True),
        (("decode.features=false",), False, False),
    ],
)
def test_a_frozen_encoder_looks_at_each_frame_once(
    tmp_path: Path, settings: tuple[str, ...], trains: bool, stores: bool
) -> None:
    config = load(tmp_path, *settings)
    assert config.model.content.trains_encoder == trains
    assert config.stores_features == stores


def test_features_of_an_encoder_that_is_trained_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="this one is trained; set model.content.train_encoder="):
        load(tmp_path, "decode.features=true", "model.content.encoder=small_cnn")
