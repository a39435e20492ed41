"""A config says where a secret lies and never holds it."""

from pathlib import Path

import pytest

from recsys.config.access import read_reference
from recsys.config.run import RunConfig, parse_config
from recsys.errors import InputError

TREE = {
    "run": "/runs/mine",
    "data": {"events": "/e.parquet", "columns": {"tasks": ["click"]}},
    "split": {"kind": "leave_one_out"},
}
SECRET = "hunter2-hunter2-hunter2"


def config(token: str) -> RunConfig:
    return parse_config({**TREE, "serve": {"events_token": token}}, "run.yaml")


@pytest.mark.parametrize("reference", ["env:EVENTS_TOKEN", "file:/run/secrets/events token"])
def test_a_reference_is_kept_as_it_stands(reference: str) -> None:
    assert config(reference).serve.events_token == reference


@pytest.mark.parametrize("wrong", [SECRET, f"env:{SECRET}", f"file:{SECRET}", f"ENV:{SECRET}"])
def test_a_literal_is_refused_and_not_shown(wrong: str) -> None:
    with pytest.raises(InputError, match=r"serve\.events_token: .*(env|file):") as error:
        config(wrong)
    assert SECRET not in str(error.value)


def test_where_a_reference_leads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_TOKEN", SECRET)
    path = tmp_path / "token"
    path.write_text(f"{SECRET}\n")
    assert read_reference("env:A_TOKEN", "serve.read_token") == SECRET
    assert read_reference(f"file:{path}", "serve.read_token") == f"{SECRET}\n"


def test_what_cannot_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("A_TOKEN", raising=False)
    (tmp_path / "binary").write_bytes(b"\xff")
    for reference, reason in [
        ("env:A_TOKEN", "not set"),
        (f"file:{tmp_path}/none", "No such file"),
        (f"file:{tmp_path}/binary", "not text"),
    ]:
        with pytest.raises(InputError, match=f"serve.read_token={reference}: .*{reason}"):
            read_reference(reference, "serve.read_token")
