"""The copy of the event log that a run is made of."""

from __future__ import annotations

from recsys.config.run import RunConfig
from recsys.data.run_folder import RunFolder
from recsys.errors import InputError
from recsys.live.events import EventLog
from recsys.live.training import export_training
from recsys.prepare.showings import Showings


def renew_showings(config: RunConfig) -> None:
    """Copies the showings of `data.live` into the run folder, where they are not those of now.

    Raises:
        InputError: There is no log at the address, or it cannot be read.
    """
    path, address = RunFolder(config.run).showings, config.data.live
    if address is None:
        return
    try:
        log = EventLog(address, create=False)
    except InputError as error:
        raise InputError(f"data.live: {error}") from None
    with log:
        there = Showings.read(path)
        of_now = (log.database.shown, log.latest_seq(), config.data.columns.model_dump_json())
        if there is None or (there.log, there.latest_seq, there.columns) != of_now:
            export_training(log, path, config.data.columns, time_unit="timestamp")
