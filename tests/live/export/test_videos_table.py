"""The next prepare has the videos that came live."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.config.data import DataConfig, VideoColumns
from recsys.live.export.snapshot import videos_table
from recsys.live.log.events import EventLog
from recsys.live.videos.encoding_queue import Encoded, EncodingQueue
from recsys.live.videos.live_videos import LiveVideos, StoredFile, VideoFacts, VideoVector
from recsys.prepare.catalogs import build_catalog
from recsys.prepare.showings import LIVE_VIDEOS, live_videos

COLUMNS = VideoColumns(uri="uri", creator="creator", categories=("kind",), duration="seconds")
FILE = StoredFile("/uploads/a.mp4", "a", 7)
FACTS = VideoFacts("Title", "c9", ("kind=calm", "kind=new", "other=x"), 12.5)


@pytest.fixture
def videos(log: EventLog) -> LiveVideos:
    """One that is indexed, one that waits, one that was refused, one that was deleted."""
    videos, queue = LiveVideos(log.database), EncodingQueue(log.database)
    made = Encoded({"1": VideoVector(np.zeros(2, np.float32), None)}, 1)
    for number, video_id in enumerate(("indexed", "stored", "refused", "deleted")):
        file = StoredFile(f"/uploads/{video_id}.mp4", str(number), 7)
        video = videos.add(video_id, file, FACTS)
        if video_id in ("indexed", "deleted"):
            queue.encoded(video, made)
    refused = videos.get("refused")
    assert refused is not None
    queue.refuse(refused, "not_video", "no")
    videos.delete("deleted")
    return videos


def test_the_copy_has_the_columns_of_the_users_own_table(
    videos: LiveVideos, tmp_path: Path
) -> None:
    table = videos_table(iter(videos.page(deleted=True)), COLUMNS)
    assert table.to_pylist() == [
        {
            "video_id": "indexed",
            "uri": "/uploads/indexed.mp4",
            "creator": "c9",
            "kind": ["calm", "new"],
            "seconds": 12.5,
        }
    ]
    states = {"deleted": 1, "indexed": 1, "refused": 1, "stored": 1}
    assert json.loads(table.schema.metadata[LIVE_VIDEOS.encode()]) == states
    pq.write_table(table, tmp_path / "live.parquet")
    assert live_videos(str(tmp_path / "live.parquet")) == states


def test_the_catalogue_goes_on_with_them(videos: LiveVideos, tmp_path: Path) -> None:
    live = str(tmp_path / "live.parquet")
    pq.write_table(videos_table(iter(videos.page(deleted=True)), COLUMNS), live)
    own = {"video_id": [1, 2], "uri": ["x.mp4", None], "creator": [5, 6]}
    own |= {"kind": ["calm", "wild, calm"], "seconds": [3, 4]}
    pq.write_table(pa.table(own), tmp_path / "videos.parquet")
    given = {"events": "e", "videos": str(tmp_path / "videos.parquet"), "video_columns": COLUMNS}
    draft = build_catalog(DataConfig(**given), ["2", "seen"], live)
    assert draft.vocabs["video"].ids.to_pylist() == ["1", "2", "indexed", "seen"]
    assert draft.uris.to_pylist() == [
        None,
        str(tmp_path / "x.mp4"),
        None,
        "/uploads/indexed.mp4",
        None,
    ]
    assert draft.vocabs["creator"].ids.to_pylist() == ["5", "6", "c9"]
    assert draft.creator_rows.tolist() == [0, 1, 2, 3, 0]
    assert draft.vocabs["category"].ids.to_pylist() == ["kind=calm", "kind=new", "kind=wild"]
    assert [sorted(rows) for rows in draft.category_rows.to_pylist()] == [
        [],
        [1],
        [1, 3],
        [1, 2],
        [],
    ]
    assert draft.durations[1:4].tolist() == [3, 4, 12.5]
    without = DataConfig(events="e", video_columns=COLUMNS)
    assert build_catalog(without, [], live).vocabs["video"].ids.to_pylist() == ["indexed"]
