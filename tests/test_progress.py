"""The one progress line: what a terminal shows of it, and what a log."""

import io

import pytest
from rich.console import Console

from recsys import progress as module
from recsys.progress import progress, progress_line


class Clock:
    """A clock that the test turns."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(module, "monotonic", lambda: self.now)


def output(monkeypatch: pytest.MonkeyPatch, *, is_terminal: bool) -> io.StringIO:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=is_terminal, width=120, legacy_windows=False)
    monkeypatch.setattr(module, "console", console)
    return stream


def test_hours_and_minutes() -> None:
    # 9,000 left at 2 a second are 4,500 s.
    text = progress_line("decode", 1000, 10_000, note="0 broken", seconds=500.0)
    assert text == "decode 1000/10000, 0 broken, 1:15:00 left"


def test_a_large_number_is_written_out() -> None:
    text = progress_line("decode", 1_234_567, 2_000_000, note="", seconds=1_234_567.0)
    assert text.startswith("decode 1234567/2000000, ")


def test_a_terminal_has_one_bar_that_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, stream = Clock(monkeypatch), output(monkeypatch, is_terminal=True)
    said: list[str] = []
    with progress("decode", 10, unit="videos", report=said.append) as advance:
        clock.now += 40  # long enough for a line elsewhere
        advance(5, "1 broken")
    drawn = stream.getvalue()
    assert "decode" in drawn and "5/10" in drawn and "0.1 videos/s, 1 broken" in drawn
    assert drawn.endswith("\x1b[2K"), "the bar is wiped"
    assert said == []


def test_elsewhere_a_line_every_half_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, stream = Clock(monkeypatch), output(monkeypatch, is_terminal=False)
    said: list[str] = []
    with progress("decode", 10, unit="videos", report=said.append) as advance:
        clock.now += 20
        advance(4, "1 broken")
        assert said == [], "too soon"
        clock.now += 20
        advance(1, "2 broken")  # 5 in 40 s: 5 more take 40 s
        clock.now += 20
        advance(1, "2 broken")
        clock.now += 10
        advance(1, "2 broken")  # 7 in 70 s
    first = "decode 5/10, 0.1 videos/s, 2 broken, 0:40 left"
    assert said == [first, "decode 7/10, 0.1 videos/s, 2 broken, 0:30 left"]
    assert stream.getvalue() == ""


def test_elsewhere_nothing_where_no_lines_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, stream = Clock(monkeypatch), output(monkeypatch, is_terminal=False)
    with progress("train", 3) as advance:
        clock.now += 100
        advance(0.5, "retrieval loss 7.250")
    assert stream.getvalue() == ""
