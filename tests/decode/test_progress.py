import io

from recsys.decode.progress import ProgressLine, progress_text


def test_hours_and_minutes() -> None:
    # 9,000 left at 2 a second are 4,500 s.
    text = progress_text(1000, 10_000, broken=0, seconds=500.0)
    assert text == "decode 1000/10000, 2.0 videos/s, 0 broken, 1:15:00 left"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_one_line_that_goes() -> None:
    terminal, said = Terminal(), []
    line = ProgressLine(10, report=said.append, stream=terminal)
    line._shown -= 1  # as if it was drawn a second ago
    line.add(5, 1)
    line.add(1, 0)  # too soon to be drawn again
    line.close()
    drawn = terminal.getvalue()
    assert "decode 5/10" in drawn and "1 broken" in drawn
    assert "decode 6/10" not in drawn
    assert "\n" not in drawn and drawn.endswith("\r\x1b[2K")
    assert said == []


def test_elsewhere_a_line_now_and_then() -> None:
    said: list[str] = []
    stream = io.StringIO()
    line = ProgressLine(10, report=said.append, stream=stream)
    line.add(5, 1)
    assert said == []
    line._shown -= 60
    line.add(1, 0)
    line.close()
    assert len(said) == 1 and said[0].startswith("decode 6/10")
    assert stream.getvalue() == ""
