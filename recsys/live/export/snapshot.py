"""The copies of the event log, and of the videos that came live, that a run is made of."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.config.data import VideoColumns
from recsys.config.run import RunConfig
from recsys.data.run_folder import RunFolder
from recsys.data.storage import exists, open_input, write_table
from recsys.errors import InputError
from recsys.live.export.training import export_training
from recsys.live.log.events import EventLog
from recsys.live.videos.live_videos import LiveVideo, LiveVideos
from recsys.prepare.showings import LIVE_VIDEOS, Showings

PAGE = 1000


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
        of_now = (log.database.id, log.latest_seq(), config.data.columns.model_dump_json())
        if there is None or (there.log_id, there.latest_seq, there.columns) != of_now:
            export_training(log, path, config.data.columns, time_unit="timestamp")
        _renew_videos(config, LiveVideos(log.database))


def _renew_videos(config: RunConfig, videos: LiveVideos) -> None:
    """Copies the videos that came live, where the copy is not the one of now."""
    path = RunFolder(config.run).live_videos
    table = videos_table(_all(videos), config.data.video_columns)
    if exists(path):
        with open_input(path) as file:
            there = pq.read_table(file)
        if there.equals(table, check_metadata=True):
            return
    write_table(table, path)


def _all(videos: LiveVideos) -> Iterator[LiveVideo]:
    after = ""
    while page := videos.page(after, PAGE, deleted=True):
        yield from page
        after = page[-1].video_id


def videos_table(videos: Iterator[LiveVideo], columns: VideoColumns) -> pa.Table:
    """The videos that may be recommended, in the columns of the user's own table.

    What is left out is counted by its state in the table's metadata.
    """
    states: Counter[str] = Counter()
    rows = []
    for video in videos:
        states[video.state] += 1
        if video.state == "indexed":
            rows.append(_video_row(video, columns))
    fields = [(columns.video, pa.string())]
    for name in (columns.uri, columns.title, columns.poster, columns.creator):
        fields += [(name, pa.string())] if name is not None else []
    fields += [(name, pa.list_(pa.string())) for name in columns.categories]
    fields += [(columns.duration, pa.float64())] if columns.duration is not None else []
    fields += [(columns.course, pa.string())] if columns.course is not None else []
    fields += [(columns.lesson, pa.float64())] if columns.lesson is not None else []
    fields += [(columns.requires, pa.list_(pa.string()))] if columns.requires is not None else []
    fields += [(columns.vector, pa.list_(pa.float32()))] if columns.vector is not None else []
    schema = pa.schema(dict(fields), metadata={LIVE_VIDEOS: json.dumps(states, sort_keys=True)})
    return pa.Table.from_pylist(rows, schema=schema)


def _video_row(video: LiveVideo, columns: VideoColumns) -> dict[str, object]:
    """A video by the names of the columns; what has no column there is not said."""
    facts = video.facts
    row: dict[str, object] = {name: [] for name in columns.categories}
    for category in facts.categories:
        column, _, value = category.partition("=")
        of_column = row.get(column)
        if isinstance(of_column, list):
            of_column.append(value)
    said = {
        columns.uri: None if video.file is None else video.file.uri,
        columns.title: facts.title,
        columns.creator: facts.creator_id,
        columns.duration: facts.duration,
        columns.course: facts.course,
        columns.lesson: facts.lesson,
        columns.requires: list(facts.requires),
        columns.video: video.video_id,
    }
    return {**row, **{name: value for name, value in said.items() if name is not None}}
