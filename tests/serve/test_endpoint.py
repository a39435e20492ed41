from dataclasses import replace
from pathlib import Path

import pytest

from recsys.errors import InputError
from recsys.serve import endpoint
from recsys.serve.endpoint import EventsHere


def test_a_file_of_events_serves_the_replicas_of_one_machine(tmp_path: Path) -> None:
    """Another machine would find no file there, or one of its own."""
    here = EventsHere.make(str(tmp_path / "live.sqlite"))
    here.open().close()
    elsewhere = replace(here, machine="another")
    with pytest.raises(InputError, match=r"serve\.events=.*: SQLite serves .* set serve\.events="):
        elsewhere.open()


@pytest.mark.skipif(not endpoint.BOOT_ID.exists(), reason="this machine has another name")
def test_a_machine_without_a_network_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a container without one: each process would draw an address of its own."""
    made = EventsHere.make(str(tmp_path / "live.sqlite"))
    monkeypatch.setattr(endpoint.uuid, "getnode", lambda: 7)
    made.open().close()


def test_replicas_find_the_file_from_whichever_folder_they_work_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "replica").mkdir()
    monkeypatch.chdir(tmp_path)
    made = [EventsHere.make(address) for address in ("live.sqlite", "sqlite:///live.sqlite")]
    monkeypatch.chdir(tmp_path / "replica")
    for here in made:
        assert here.address == str(tmp_path / "live.sqlite")
        here.open().close()
