"""Wrong input through the command line: each one clear line on stderr, exit 2, no traceback."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from recsys.cli import main, print_report, read_arguments
from recsys.data.storage import read_json
from tests.conftest import TrainedRun
from tests.inputs import event_rows, plus, video_rows, write_config, write_input, write_rows


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a command says on stderr when it refuses its input."""
    capsys.readouterr()
    status = main(list(arguments))
    captured = capsys.readouterr()
    assert status == 2, captured.err
    assert captured.err.startswith("recsys: ")
    assert captured.err.count("\n") == 1 and captured.err.endswith("\n"), captured.err
    assert "Traceback" not in captured.err + captured.out
    return captured.err


def without(name: str) -> dict[str, Any]:
    return {column: values for column, values in event_rows().items() if column != name}


def changed(**columns: Any) -> dict[str, Any]:
    return {**event_rows(), **columns}


EMPTY = {name: values[:0] for name, values in event_rows().items()}

WRONG: dict[str, tuple[Callable[[Path], Path], list[str], str]] = {
    "no config": (
        lambda folder: folder / "none.yaml",
        [],
        "none.yaml: cannot read the config (No such file or directory); check --config",
    ),
    "no events file": (
        lambda folder: write_config(folder),
        [],
        "events.parquet: no Parquet file is there; give a file, a glob, or a folder of files that "
        "end in .parquet or .pq",
    ),
    "no Parquet": (
        lambda folder: ((folder / "events.parquet").write_text("a,b"), write_config(folder))[1],
        [],
        "events.parquet: not a Parquet file",
    ),
    "no column": (
        lambda folder: write_input(folder, without("clicked")),
        [],
        "events.parquet: there is no column 'clicked' (data.columns.positive); it has user_id, ",
    ),
    "wrong type": (
        lambda folder: write_input(folder, changed(time=["noon"] * 48)),
        [],
        "events.parquet: column 'time' is string; allowed is an integer, a double or a timestamp; "
        "convert it",
    ),
    "unknown key": (
        lambda folder: write_input(folder, train={"epoch": 3}),
        [],
        "run.yaml: train.epoch is not a setting; did you mean epochs?",
    ),
    "unknown key on the command line": (
        lambda folder: write_input(folder),
        ["model.dimm=3"],
        "run.yaml: model.dimm is not a setting; did you mean dim?",
    ),
    "out of bounds": (
        lambda folder: write_input(folder),
        ["train.lr=0"],
        "run.yaml: train.lr=0: input should be greater than 0",
    ),
    "no events": (
        lambda folder: write_input(folder, EMPTY),
        [],
        "events.parquet: there are no events in it",
    ),
    "no videos file": (
        lambda folder: write_input(folder, data={"videos": str(folder / "videos.parquet")}),
        [],
        "data.videos=",
    ),
    "cuts": (
        lambda folder: write_input(folder),
        ["split.valid_from=2025-01-01"],
        "is not before split.test_from=",
    ),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("command", ["prepare", "run"])
def test_wrong_input_is_one_line(
    case: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, settings, message = WRONG[case]
    line = refused(capsys, command, "--config", str(make(tmp_path)), *settings)
    assert message in line


def test_a_column_without_rows_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Typed columns, no rows: what `SELECT … WHERE false` gives."""
    path = write_input(tmp_path)
    events = tmp_path / "events.parquet"
    pq.write_table(pq.read_table(events).slice(0, 0), events)
    line = refused(capsys, "prepare", "--config", str(path))
    assert f"data.events={events}: there are no events in it" in line


@pytest.mark.ray
def test_a_wrong_value_inside_the_data_is_one_line(
    tmp_path: Path, ray_local: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Found by a Ray task, said as one line all the same."""
    path = write_input(tmp_path, changed(liked=[2] * 48))
    line = refused(capsys, "prepare", "--config", str(path))
    assert "events.parquet: column 'liked' holds 2; allowed are 0 and 1; convert it" in line


@pytest.mark.parametrize(
    ("command", "needs"),
    [("train", "prepare"), ("evaluate", "train"), ("publish", "train"), ("decode", "prepare")],
)
def test_a_stage_before_its_turn_says_which_comes_first(
    command: str, needs: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, command, "--config", str(write_input(tmp_path)))
    assert f"{command} needs the {needs} of these inputs and settings" in line
    assert f"run `recsys {needs}` first" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["decode"], "decode needs --config RUN.yaml, or --videos and --out"),
        (["serve"], "serve needs --config RUN.yaml or --bundle PATH"),
        (["serve", "--bundle", "/no/such/run"], "/no/such/run: no bundle is there"),
        (["decode", "--videos", "/no/such/*.mp4", "--out", "/tmp/x"], "/no/such/*.mp4"),
    ],
)
def test_commands_without_what_they_need(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, *arguments)


def with_videos(folder: Path, paths: list[str | None]) -> Path:
    """A run config whose catalogue has these files (and no others)."""
    write_rows({**video_rows(), "path": paths}, folder / "videos.parquet")
    return write_input(
        folder,
        data={"videos": str(folder / "videos.parquet"), "video_columns": {"uri": "path"}},
        model={"content": {"encoder": "small_cnn"}},
        decode={"frames": 2, "size": 32},
    )


@pytest.mark.ray
def test_videos_without_files_are_counted_and_broken_ones_too(
    tmp_path: Path, ray_local: None, tiny_world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nine of ten give no clip; a user has one event: none of it is fatal."""
    shutil.copy(tiny_world / "videos" / "v0000.mp4", tmp_path / "good.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").write_bytes(b"")
    path = with_videos(tmp_path, ["good.mp4", "text.mp4", "empty.mp4", "gone.mp4", "", *[None] * 5])
    once = {name: values[0] for name, values in event_rows().items()} | {"user_id": "once"}
    write_rows(plus(event_rows(), once), tmp_path / "events.parquet")
    assert main(["prepare", "--config", str(path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "users_with_one_event 1" in shown
    assert "videos_without_file 6" in shown
    assert main(["decode", "--config", str(path)]) == 0
    counts = read_json(str(tmp_path / "run" / "decode" / "report.json"))
    assert counts["ok"] == 1
    assert counts["quarantined"] == {"empty": 1, "missing": 1, "not_video": 1}


@pytest.mark.ray
def test_all_videos_broken_is_one_line(
    tmp_path: Path, ray_local: None, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(10):
        (tmp_path / f"v{i}.mp4").write_text("no video")
    path = with_videos(tmp_path, [f"v{i}.mp4" for i in range(10)])
    line = refused(capsys, "run", "--config", str(path))
    assert "none of 10 videos gives a clip (10 not_video); see " in line
    assert "quarantine.parquet" in line


@pytest.mark.ray
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["train.workers=3"], "train.workers=3: each takes one CPU and the cluster has 2; set"),
        (["train.device=cuda"], "train.workers=1: each takes one GPU and the cluster has 0"),
        (["train.epochs=0"], "train.epochs=0: there is nothing to train; set it to at least 1"),
        (
            ["model.content.encoder=no.such:encoder"],
            "model.content.encoder='no.such:encoder' cannot be imported: No module named 'no'",
        ),
    ],
)
def test_training_that_cannot_work_is_refused_at_once(
    settings: list[str],
    message: str,
    trained_run: TrainedRun,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In a copy: the settings that are refused stand in its config.yaml afterwards."""
    run = shutil.copytree(trained_run.run, tmp_path / "run")
    arguments = ["--config", trained_run.config_path, *trained_run.settings, f"run={run}"]
    assert message in refused(capsys, "train", *arguments, "train.lr=0.1", *settings)


@pytest.mark.parametrize("command", ["run", "demo"])
def test_a_run_folder_that_is_a_file_is_one_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").write_text("mine")
    arguments = {
        "run": ["--config", str(write_input(tmp_path))],
        "demo": ["--out", str(tmp_path / "run")],
    }[command]
    line = refused(capsys, command, *arguments)
    assert f"{tmp_path}/run: cannot be written (" in line and "name another run folder" in line
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "cannot read the config (Is a directory)"),
        (lambda path: path.write_bytes(bytes(range(256))), "it is not UTF-8 text"),
        (lambda path: path.write_bytes(b"PAR1\0\1\2"), "not valid YAML: unacceptable character"),
        (lambda path: path.write_text(""), "a config is a mapping of sections"),
        (lambda path: path.write_text("run: a\nrun: b"), "line 2: run is given twice"),
        (lambda path: path.write_text("run: a", encoding="utf-16"), "it is not UTF-8 text"),
    ],
)
def test_a_config_that_is_none_is_one_line(
    make: Callable[[Path], Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path / "run.yaml")
    line = refused(capsys, "run", "--config", str(tmp_path / "run.yaml"))
    assert line.startswith(f"recsys: {tmp_path}/run.yaml: ") and message in line


def test_what_the_system_refuses_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a kind that nobody foresaw; --debug raises it."""

    def refuse(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("recsys.pipeline.run_stage", refuse)
    arguments = ["run", "--config", str(write_input(tmp_path))]
    assert main(arguments) == 1
    assert capsys.readouterr().err == (
        "recsys: [Errno 24] Too many open files (--debug shows the traceback)\n"
    )
    with pytest.raises(OSError, match="Too many open files"):
        main(["--debug", *arguments])


def test_paths_are_printed_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Brackets and colons are no markup."""
    monkeypatch.setattr("recsys.pipeline.run_stage", lambda *_: {"path": "[/red] [v1] :smile:"})
    run = f"{tmp_path}/[bold] :smile: [v1]"
    assert main(["prepare", "--config", str(write_input(tmp_path)), f"run={run}"]) == 0
    shown = capsys.readouterr().out
    assert f"report: {run}/report.json\n" in shown
    assert "[/red] [v1] :smile:" in shown


def test_a_home_that_the_shell_left_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A glob must be quoted, and then the shell leaves its ~ as well."""
    monkeypatch.setenv("HOME", str(tmp_path))
    home = str(tmp_path)
    assert f"{home}/*.mp4" in refused(capsys, "decode", "--videos", "~/*.mp4", "--out", "~/out")
    assert f"{home}/run: no bundle is there" in refused(capsys, "serve", "--bundle", "~/run")
    assert f"{home}/run.yaml: cannot read" in refused(capsys, "run", "--config", "~/run.yaml")


def test_settings_stand_where_they_come_to_mind() -> None:
    line = "tune run=there --config a.yaml model.dim=8 --space b.yaml tune.trials=2 tune.seed=1"
    given = read_arguments(line.split())
    assert (given.config, given.space) == ("a.yaml", "b.yaml")
    assert given.settings == ["run=there", "model.dim=8", "tune.trials=2", "tune.seed=1"]


@pytest.mark.parametrize(
    "line",
    ["run run=a --config b.yaml lr", "run run=a --config b.yaml --lr=3", "settings train lr=3"],
)
def test_what_no_command_takes_is_refused(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        read_arguments(line.split())
    assert f"unrecognized arguments: {line.split()[-1]}" in capsys.readouterr().err


def test_help_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, texts in (
        (["--help"], ["demo", "run", "prepare", "decode", "train", "evaluate", "publish", "serve"]),
        (["run", "--help"], ["columns:", "valid_from", "key=value", "report.json"]),
    ):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0
        shown = capsys.readouterr().out
        assert all(text in shown for text in texts)


def test_as_a_process_too(tmp_path: Path) -> None:
    """`python -m recsys`, with the logging as it is there."""
    path = write_input(tmp_path, without("clicked"))
    done = subprocess.run(
        [sys.executable, "-m", "recsys", "run", "--config", str(path)],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("recsys: ") and done.stderr.count("\n") == 1


def test_numbers_of_numpy_are_shown_and_what_is_empty_is_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_report("tune", {"score": np.float64(0.25), "none": None, "left": [], "other": {}, "n": 0})
    assert capsys.readouterr().out.split() == ["tune", "score", "0.25", "n", "0"]
