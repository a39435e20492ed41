"""The tables of the database: events, the videos that came live, and facts about the log."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
)

METADATA = MetaData()
# Bytewise order on both, so that a page of users ends at the same user everywhere.
TEXT = Text().with_variant(Text(collation="C"), "postgresql")
# SQLite numbers rows by itself only where the key is called INTEGER.
SEQ = BigInteger().with_variant(Integer(), "sqlite")

EVENTS = Table(
    "recsys_events",
    METADATA,
    Column("seq", SEQ, Identity(), primary_key=True),
    Column("event_id", TEXT, nullable=False, unique=True),
    Column("user_id", TEXT, nullable=False),
    Column("type", TEXT, nullable=False),
    Column("video_id", TEXT),
    Column("creator_id", TEXT),
    Column("time_ms", BigInteger, nullable=False),
    Column("given_ms", BigInteger),
    Column("received_ms", BigInteger, nullable=False),
    Column("positive", SmallInteger, nullable=False),
    Column("watched", Double),
    Column("labels", TEXT),
    Column("context", TEXT),
    Column("impression_id", TEXT),
    Column("version", TEXT),
    Column("place", Integer),
    Index("recsys_events_user", "user_id", "seq"),
    # A number is never given twice, even after the newest rows were deleted: followers rely on it.
    sqlite_autoincrement=True,
)

FACTS = Table(
    "recsys_log",
    METADATA,
    Column("name", TEXT, primary_key=True),
    Column("value", TEXT, nullable=False),
)

VIDEOS = Table(
    "recsys_videos",
    METADATA,
    Column("video_id", TEXT, primary_key=True),
    Column("seq", BigInteger, nullable=False, unique=True),
    Column("state", TEXT, nullable=False),
    Column("title", TEXT),
    Column("creator_id", TEXT),
    Column("categories", TEXT, nullable=False),
    Column("duration", Double),
    Column("hidden", Boolean, nullable=False),
    Column("expires_ms", BigInteger),
    Column("course", TEXT),
    Column("lesson", Double),
    Column("requires", TEXT, nullable=False),
    Column("uri", TEXT),
    Column("source", TEXT),
    Column("sha256", TEXT),
    Column("size_bytes", BigInteger),
    Column("facts", TEXT, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("claimed_ms", BigInteger),
    Column("decoded_ms", BigInteger),
    Column("indexed_ms", BigInteger),
    Column("reason", TEXT),
    Column("message", TEXT),
    Column("duplicate_of", TEXT),
    Column("similarity", Double),
    Index("recsys_videos_state", "state", "seq"),
    Index("recsys_videos_sha256", "sha256"),
)
"""See `live.videos.live_videos`."""

VIDEO_VECTORS = Table(
    "recsys_video_vectors",
    METADATA,
    Column("version", TEXT, primary_key=True),
    Column("video_id", TEXT, primary_key=True),
    Column("facts", TEXT, nullable=False),
    Column("vector", LargeBinary, nullable=False),
    Column("content", LargeBinary),
)
"""What each bundle's model makes of each live video: its vector, and the content of its clip."""

SERVED_VERSIONS = Table(
    "recsys_served_versions",
    METADATA,
    Column("version", TEXT, primary_key=True),
    Column("seen_ms", BigInteger, nullable=False),
)
"""The versions that replicas serve, and when one last said so."""

VIDEO_FAULTS = Table(
    "recsys_video_faults",
    METADATA,
    Column("video_id", TEXT, primary_key=True),
    Column("version", TEXT, primary_key=True),
    Column("tries", Integer, nullable=False),
    Column("tried_ms", BigInteger, nullable=False),
    Column("reason", TEXT),
)
"""Tries to encode a video that have not come to an end: at first, where the version is empty, or
for a version that lacks its vector."""

EXPLORED = Table(
    "recsys_explored",
    METADATA,
    Column("impression_id", TEXT, primary_key=True),
    Column("video_id", TEXT, primary_key=True),
    Column("user_id", TEXT, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("propensity", Double, nullable=False),
    Index("recsys_explored_user", "user_id"),
    Index("recsys_explored_time", "time_ms"),
)
"""See `live.log.explored`."""
