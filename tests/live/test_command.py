"""`recsys events` as it is typed."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from recsys.cli import main
from recsys.data.run_folder import RunFolder
from recsys.live.log.event import DAY_MS, EXPOSURE, TASK, VIEW, Event
from recsys.live.log.events import EventLog
from tests.inputs import write_input


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's config file, beside a log with four events of two users."""
    path = write_input(tmp_path)
    main_run = tmp_path / "run"
    with EventLog(RunFolder(str(main_run)).live_log) as log:
        now = log.clock()
        log.append(
            [
                Event("u1", EXPOSURE, "v1", time_ms=now - 9000),
                Event("u1", VIEW, "v1", time_ms=now - 8000, watched=3.0),
                Event("u1", TASK, "v1", time_ms=now - 7000, labels={"clicked": True}),
                Event("u2", VIEW, "v2", time_ms=now - 40 * DAY_MS),
            ]
        )
    return path


def events(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What `recsys events` prints."""
    capsys.readouterr()
    assert main(["events", *arguments]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert main(["events", *arguments]) == 2
    line = capsys.readouterr().err
    assert line.startswith("recsys: ") and line.count("\n") == 1
    return line


def test_count_forget_and_prune(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ("--log", RunFolder(str(run.parent / "run")).live_log)
    assert events(capsys, "count", *where).splitlines()[:4] == [
        "4 events of 2 users, seq up to 4",
        "exposure: 1",
        "task: 1",
        "view: 2",
    ]
    assert events(capsys, "prune", *where, "--days", "30").startswith("1 events of before ")
    assert events(capsys, "forget", *where, "u1") == "u1: 3 events deleted\n"
    assert events(capsys, "count", *where) == (
        "0 events of 0 users, seq up to 6\nforgotten users: 1\n"
    )


def test_export_and_import(run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out, where = str(tmp_path / "out"), ("--config", str(run))
    assert events(capsys, "export", *where, out) == (
        f"{out}: 4 rows in 1 new parts, the log up to seq 4\n"
    )
    assert events(capsys, "import", *where, out) == "1 files: duplicate 4\n"
    other = ("--log", str(tmp_path / "other.sqlite"))
    assert events(capsys, "import", *other, out) == "1 files: accepted 4\n"


def test_export_for_training_in_the_runs_columns(
    run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = str(tmp_path / "live.parquet")
    printed = events(capsys, "export", "--training", "--config", str(run), out)
    assert printed.splitlines()[0] == f"{out}: 2 showings of 2 users"
    table = pq.read_table(out)
    assert table.column("video_id").to_pylist() == ["v1", "v2"]
    assert table.column("clicked").to_pylist() == [1, 1], "a view that is not told otherwise is one"


def test_what_is_wrong_is_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    none = str(tmp_path / "none.sqlite")
    for command in (["count"], ["export", "out"], ["forget", "u"], ["prune", "--days", "1"]):
        assert "none.sqlite: there is no event log" in refused(capsys, *command, "--log", none)
    here = ("--log", RunFolder(str(tmp_path / "run")).live_log)
    assert "--days=-1: allowed is" in refused(capsys, "prune", *here, "--days=-1")
    assert "--days=nan: allowed is" in refused(capsys, "prune", *here, "--days=nan")
    assert "no Parquet file is there" in refused(capsys, "import", *here, none)
    assert "there is no --config" in refused(capsys, "count", *here, "--set", "run=x")
    assert "go with --training" in refused(capsys, "export", "o", *here, "--tasks", "like")
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    for out, more, words in (
        (in_the_way, [], "cannot be written (File exists)"),
        (tmp_path, ["--training"], "cannot be written (Is a directory)"),
        (in_the_way / "x", ["--training"], "cannot be written (File exists)"),
    ):
        line = refused(capsys, "export", str(out), *more, *here)
        assert line.startswith(f"recsys: {out}") and words in line
    assert "half of a character" in refused(capsys, "forget", *here, "u\udcff")
    remote = ("--config", str(run), "--set", "run=s3://bucket/run")
    assert "the event log cannot be kept there; name one with --log" in refused(
        capsys, "count", *remote
    )


def test_help_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, texts in (
        (["events", "--help"], ["RUN/live.sqlite", "export", "import", "forget", "prune", "count"]),
        (["events", "export", "--help"], ["--training", "one row a showing", "data.events"]),
        (["events", "forget", "--help"], ["They stay deleted"]),
    ):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0
        shown = capsys.readouterr().out
        assert all(text in shown for text in texts)
