"""A replica of a large catalogue of given vectors, and videos that come live beside it.

All but the vectors and how often each video was shown is that of a bundle with random weights.

Shapes: N videos, row 0 among them, A videos that are added, D retrieval vector.
"""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from multiprocessing.context import SpawnProcess

import numpy as np
import pyarrow as pa
from _bundle import make_bundle

from recsys.bundle.contents import Bundle
from recsys.data.catalog import Catalog
from recsys.data.ragged import FloatArray, IntArray
from recsys.data.vocab import Vocab
from recsys.features.counts import RECENT_HOURS, VIDEO, EventCounts
from recsys.features.hourly import HourlyCounts, hour_of
from recsys.inference.index import VideoIndex
from recsys.live.log.events import EventLog
from recsys.live.videos.encoding_queue import Encoded, EncodingQueue
from recsys.live.videos.live_videos import LiveVideos, VideoFacts, VideoVector
from recsys.serve.recommender import ServingRecommender


def make_replica(
    folder: str,
    log: EventLog,
    index: VideoIndex,
    vectors_ND: FloatArray,
    shown_N2: IntArray,
    *,
    now_ms: int,
) -> ServingRecommender:
    """A recommender that follows a log.

    Args:
        folder: Free for the bundle.
        log: Of the videos that come live.
        index: Of the vectors.
        vectors_ND: D is that of the bundle's model.
        shown_N2: How often each video was shown, and how often of that in the last 24 hours.
        now_ms: The time of which that is true.
    """
    make_bundle(folder, end_ms=now_ms)
    bundle, num = Bundle.load(folder), len(vectors_ND)
    alike = np.arange(num)
    alike[1:] = 1 + (alike[1:] - 1) % bundle.num_videos
    catalog = Catalog.from_table(bundle.catalog.table.take(alike))
    ids = pa.array(np.char.add("v", np.arange(1, num).astype(str)).tolist(), pa.string())
    vectors_NY = np.zeros((num, bundle.recommender.vector_dim), np.float32)
    vectors_NY[:, : bundle.recommender.dim] = vectors_ND
    bundle.recommender.trending.fill_(1.0)
    large = replace(
        bundle,
        catalog=catalog,
        vocabs={**bundle.vocabs, "video": Vocab(ids)},
        vectors=vectors_NY,
        index=index,
        counts=_counts(bundle.counts, catalog, shown_N2, int(hour_of(now_ms))),
    )
    return ServingRecommender(large, log, seed=0)


def _counts(small: EventCounts, catalog: Catalog, shown_N2: IntArray, hour: int) -> EventCounts:
    """Counts of events that all happened in two hours, and those of contexts as they are."""
    rows = np.tile(np.arange(len(catalog)), 2)
    hours = np.repeat([hour - 2 * RECENT_HOURS, hour - 1], len(catalog))
    events = np.concatenate([shown_N2[:, 0] - shown_N2[:, 1], shown_N2[:, 1]])
    counted = np.pad(events[:, None], ((0, 0), (0, small.layout.num_flags)))
    stored = {name: small.hourly[name] for name in small.layout.stored}
    of_videos = {VIDEO: HourlyCounts(rows, hours, counted)}
    return EventCounts.of(catalog, small.layout, {**stored, **of_videos})


def start_adding(address: str, version: str, vectors_AD: FloatArray, width: int) -> SpawnProcess:
    """A process that hands in videos and keeps their vectors, as an encoder does.

    Args:
        address: Of the log that replicas follow.
        version: That the vectors are of.
        vectors_AD: Of the videos, one after the other.
        width: Of a video's whole vector.
    """
    vectors_AY = np.pad(vectors_AD, ((0, 0), (0, width - vectors_AD.shape[1])))
    given = (address, version, vectors_AY)
    process = multiprocessing.get_context("spawn").Process(target=_add, args=given, daemon=True)
    process.start()
    return process


def _add(address: str, version: str, vectors_AY: FloatArray) -> None:
    with EventLog(address) as log:
        videos, queue = LiveVideos(log.database), EncodingQueue(log.database)
        for number, vector in enumerate(vectors_AY):
            facts = VideoFacts(creator_id=f"c{1 + number % 100}", duration=10.0)
            video = videos.add(f"new{number}", None, facts)
            queue.encoded(video, Encoded({version: VideoVector(vector, None)}, None))
