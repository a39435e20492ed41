"""What every benchmark writes, which others read."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks._bars import bar, write


def test_a_bar_is_told_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results: dict[str, Any] = {"sizes": {"users": 5}}
    bar(results, "speed over theirs", 2.0, 2.0, least=True)
    bar(results, "memory, bytes", 1_234.0, 1_000.0, least=False)
    bar(results, "seconds to the best", None, 1.0, least=False)
    write(results, tmp_path / "bench" / "one.json")
    assert json.loads((tmp_path / "bench" / "one.json").read_text()) == {
        "sizes": {"users": 5},
        "bars": {
            "speed over theirs": {"value": 2.0, "bar": 2.0, "holds": True},
            "memory, bytes": {"value": 1234.0, "bar": 1000.0, "holds": False},
            "seconds to the best": {"value": None, "bar": 1.0, "holds": False},
        },
    }
    assert capsys.readouterr().out.splitlines() == [
        "  holds: speed over theirs: 2 (bar 2)",
        "  MISSED: memory, bytes: 1,234 (bar 1,000)",
        "  MISSED: seconds to the best: not reached (bar 1)",
    ]
