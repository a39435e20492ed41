from dataclasses import replace
from pathlib import Path

import pytest

from recsys.errors import InputError
from recsys.serve.endpoint import EventsHere


def test_a_file_of_events_serves_the_replicas_of_one_machine(tmp_path: Path) -> None:
    """Another machine would find no file there, or one of its own."""
    here = EventsHere.make(str(tmp_path / "live.sqlite"))
    here.open().close()
    elsewhere = replace(here, machine="another")
    with pytest.raises(InputError, match=r"serve\.events=.*: SQLite serves .* set serve\.events="):
        elsewhere.open()
