"""A signal ends a command in one line, with the status that schedulers know."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recsys import pipeline
from recsys.cli import main
from recsys.config.run import load_config
from recsys.pipeline import BY_NAME, Stage, run_stage
from recsys.stopping import SIGNALS, Stopped, own_signals, stoppable, told
from tests.inputs import write_input


def send(number: int) -> None:
    """To this process, whose main thread takes it at once."""
    os.kill(os.getpid(), number)
    signal.sigtimedwait([], 5)
    raise AssertionError("the signal was not taken")


@pytest.fixture(autouse=True)
def handlers_stay() -> Any:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_block_once(number: signal.Signals, status: int) -> None:
    with pytest.raises(Stopped) as stop, stoppable():
        send(number)
    assert (stop.value.status, str(stop.value)) == (status, f"stopped by {number.name}")
    assert signal.getsignal(number) == signal.SIG_DFL, "a second one ends the process"


def test_without_a_signal_nothing_changes() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with stoppable():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_signals_that_a_library_takes_are_given_back() -> None:
    with stoppable():
        ours = signal.getsignal(signal.SIGTERM)
        with own_signals():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        assert signal.getsignal(signal.SIGTERM) is ours
        with pytest.raises(ValueError, match="x"), own_signals():
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
            raise ValueError("x")
        assert signal.getsignal(signal.SIGTERM) is ours
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with own_signals():
        signal.signal(signal.SIGTERM, ours)
    assert signal.getsignal(signal.SIGTERM) is ours, "nobody had it before"


def stopped_in(stage: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments of `recsys run` that is stopped when a stage begins."""
    monkeypatch.setattr(pipeline, "require_current", lambda *_: None)
    monkeypatch.setattr(pipeline, "is_current", lambda *_: False)
    real = BY_NAME[stage]
    stop: Callable[..., Any] = lambda *_: send(signal.SIGTERM)  # noqa: E731
    monkeypatch.setitem(BY_NAME, stage, replace(real, run=stop))
    return [stage, "--config", str(write_input(folder))]


@pytest.mark.parametrize("stage", ["decode", "train"])
def test_stages_that_go_on_say_so(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(stopped_in(stage, tmp_path, monkeypatch)) == 143
    error = capsys.readouterr().err
    assert error == (
        f"recsys: stopped by SIGTERM in {stage}; the same command goes on from here\n"
    )  # fmt: skip
    assert not (tmp_path / "run" / ".lock").exists()


@pytest.mark.parametrize("stage", ["prepare", "evaluate", "publish"])
def test_stages_that_start_anew_say_that(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(stopped_in(stage, tmp_path, monkeypatch)) == 143
    assert capsys.readouterr().err == (
        f"recsys: stopped by SIGTERM in {stage}; the same command starts this stage anew and "
        "skips those that are done\n"
    )


def test_a_sweep_goes_on_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import recsys.tune.stage

    monkeypatch.setattr(pipeline, "run_stage", lambda *_: {})
    monkeypatch.setattr(recsys.tune.stage, "tune_run", lambda *_, **__: send(signal.SIGINT))
    space = tmp_path / "space.yaml"
    space.write_text("train.lr: {loguniform: [0.0001, 0.01]}\n")
    arguments = ["tune", "--config", str(write_input(tmp_path)), "--space", str(space)]
    assert main(arguments) == 130
    error = capsys.readouterr().err
    assert error == (
        "recsys: stopped by SIGINT in the sweep; the same command goes on from here\n"
    )  # fmt: skip


def test_what_is_innermost_is_told() -> None:
    with pytest.raises(Stopped) as stop, stoppable(), told("outer"), told("inner"):
        raise KeyboardInterrupt
    assert str(stop.value) == "stopped by SIGINT inner"


def test_a_stopped_stage_is_not_current(tmp_path: Path) -> None:
    def stop(*_: object) -> dict[str, Any]:
        raise KeyboardInterrupt

    config = load_config(str(write_input(tmp_path)))
    stage = Stage("extra", "extra", lambda _: 1, (), lambda *_: {"x": 1})
    run_stage(config, stage)
    stopped = Stage("extra", "extra", lambda _: 2, (), stop)
    with pytest.raises(KeyboardInterrupt):
        run_stage(config, stopped)
    assert not (tmp_path / "run" / "extra" / "report.json").exists()


STOPPED = """
import os, signal, sys, threading
from recsys import cluster, pipeline
from recsys.cli import main
from recsys.pipeline import BY_NAME, Stage

NUMBER = int(sys.argv[1])

def stop(*_):
    cluster.connect()
    import ray
    waits = ray.remote(num_cpus=0)(lambda: __import__("time").sleep(60)).remote()
    threading.Timer(0.3, os.kill, [os.getpid(), NUMBER]).start()
    ray.get(waits)

BY_NAME["prepare"] = Stage("prepare", "prepare", lambda _: 1, (), stop)
sys.argv[1:] = ["prepare", "--config", sys.argv[2]]
sys.exit(main())
"""


@pytest.mark.ray
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_process_that_waits_for_ray_says_one_line(
    number: int, status: int, tmp_path: Path
) -> None:
    """Ray's own handler would dump its stacks."""
    done = subprocess.run(
        [sys.executable, "-c", STOPPED, str(int(number)), str(write_input(tmp_path))],
        env={**os.environ, "RAY_ADDRESS": "local"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == status, done.stderr
    name = signal.Signals(number).name
    assert done.stderr.startswith(f"recsys: stopped by {name} in prepare; "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
