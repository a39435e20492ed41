"""Arrow schemas and column names of every table on disk.

Ids outside (`user_id`, `video_id`) are the user's own and are kept as text; rows inside
(`video_row`, …) are numbers from 0, and row 0 means "unknown". Imports neither torch nor ray.
"""

from __future__ import annotations

import pyarrow as pa

UNKNOWN_ROW = 0
PREPARE_FORMAT = 3
"""Raised when the files of RUN/prepare change, so that those of an older recsys are made again."""

TRAIN, VALID, TEST = 0, 1, 2
"""Values of a timeline's `split`."""


def vocab_schema() -> pa.Schema:
    """RUN/prepare/vocab/<name>.parquet: row i of the table is row i of the embedding table.

    Row 0 is "unknown", with a null id.
    """
    return pa.schema([("id", pa.string())])


def video_schema() -> pa.Schema:
    """RUN/prepare/videos.parquet: the catalogue; row i is video_row i, row 0 stands for unknown."""
    return pa.schema(
        [
            ("video_id", pa.string()),
            ("uri", pa.string()),
            ("creator_row", pa.int32()),
            ("category_rows", pa.list_(pa.int32())),
            ("duration", pa.float32()),  # in the user's unit; null where it is unknown
            ("duration_bucket", pa.int32()),
            ("first_time_ms", pa.int64()),  # of its first event; null where it has none
            ("num_train_events", pa.int64()),
            ("num_train_positives", pa.int64()),
            ("num_valid_events", pa.int64()),
            ("num_valid_positives", pa.int64()),
        ]
    )


def served_video_schema() -> pa.Schema:
    """BUNDLE/videos.arrow: `video_schema` with numbers as wide as `Catalog` has them.

    Durations that are not known are NaN there. So a server uses all of them where they lie in the
    file, and has no copy of its own.
    """
    wide = {"creator_row": pa.int64(), "duration_bucket": pa.int64(), "duration": pa.float64()}
    wide["category_rows"] = pa.large_list(pa.int32())
    fields = video_schema()
    return pa.schema([field.with_type(wide.get(field.name, field.type)) for field in fields])


def details_schema() -> pa.Schema:
    """RUN/prepare/details.parquet: what people are shown of each video, and no model sees.

    Row i is video_row i; `poster` is the path or URI of a picture that the user gave.
    """
    return pa.schema([("title", pa.string()), ("poster", pa.string())])


def lesson_schema() -> pa.Schema:
    """RUN/prepare/lessons.parquet: the videos that belong to a course or require others, by row."""
    return pa.schema(
        [
            ("video_row", pa.int64()),
            ("course", pa.string()),
            ("lesson", pa.float64()),  # its place in the course; null where none is said
            ("required_rows", pa.list_(pa.int32())),
        ]
    )


def files_schema() -> pa.Schema:
    """BUNDLE/files.arrow: what decode saw of each video's file; row i is video_row i.

    `poster` is a WebP picture, `captions` the file's own text track as WebVTT. Null where there is
    none, or no file.
    """
    kinds = {"duration_s": pa.float32(), "poster": pa.large_binary(), "captions": pa.large_binary()}
    return pa.schema(kinds)


def timeline_schema() -> pa.Schema:
    """RUN/prepare/timelines/part-NNNNN.parquet: one row a user, its events in time order."""
    return pa.schema(
        [
            ("user_id", pa.string()),
            ("video_row", pa.list_(pa.int32())),
            ("time_ms", pa.list_(pa.int64())),
            ("positive", pa.list_(pa.int8())),
            ("labels", pa.list_(pa.int8())),  # L × T flattened, event by event
            ("watched", pa.list_(pa.float32())),  # L × W flattened, event by event: time, share
            ("context_rows", pa.list_(pa.int32())),  # L × C flattened, event by event
            ("split", pa.list_(pa.int8())),
        ]
    )


def history_schema() -> pa.Schema:
    """A part of a bundle's histories: the last events of each user, and what was liked before.

    It is a timeline with the count features of each event.
    """
    features = pa.field(COUNT_FEATURES, pa.large_list(pa.float32()))
    older = pa.field(OLDER_LIKED, pa.large_list(pa.int32()))
    return timeline_schema().append(features).append(older)


COUNT_FEATURES = "count_features"
"""Column of a bundle's histories: L × F flattened, event by event."""
OLDER_LIKED = "older_liked"
"""Column of a bundle's histories: sorted rows of videos liked in events that are not kept."""


USER_ROWS = "user_rows"
"""Column of users and timelines where the run has user features: rows of vocab/user.parquet."""


def user_schema(groups: tuple[str, ...], *, features: bool = False) -> pa.Schema:
    """RUN/prepare/users.parquet: the group columns as text, null where unknown, and `USER_ROWS`."""
    fields = [("user_id", pa.string()), *((group, pa.string()) for group in groups)]
    return pa.schema([*fields, (USER_ROWS, pa.list_(pa.int32()))] if features else fields)


def clip_schema(frames: int, size: int) -> pa.Schema:
    """OUT/clips.lance: a video's sampled frames.

    `frames` holds T × H × W × 3 bytes (uint8, RGB); `times_s` the T frame times from the first
    frame on; `note` is "damaged" where the file is only partly readable, else empty; `reader` is
    what read it, `why` for what reason that one, and `message` what it complained of. `poster`
    is a WebP picture of it, null where none was wanted or could be made; `captions` its own text
    track as WebVTT, null where it has none. `stamp` tells whether the file has changed since: its
    size, and its time or ETag.
    """
    return _clips(pa.field("frames", pa.list_(pa.uint8(), frames * size * size * 3)), frames)


def feature_schema(frames: int, dim: int) -> pa.Schema:
    """OUT/clips.lance where a frozen encoder's features (T × F) are stored instead of frames."""
    return _clips(pa.field("features", pa.list_(pa.float16(), frames * dim)), frames)


def _clips(content: pa.Field, frames: int) -> pa.Schema:
    texts = [pa.field(name, pa.string()) for name in ("note", "reader", "why", "message", "stamp")]
    return pa.schema(
        [
            pa.field("uri", pa.string()),
            content,
            pa.field("times_s", pa.list_(pa.float32(), frames)),
            pa.field("duration_s", pa.float32()),
            pa.field("poster", pa.binary()),
            pa.field("captions", pa.large_binary()),
            *texts,
        ]
    )


QUARANTINE_REASONS: dict[str, str] = {
    "missing": "there is no such file",
    "unreachable": "the file or its server could not be read",
    "unsupported_source": "an address of a kind that is not read",
    "empty": "a file of no bytes",
    "not_video": "no container that FFmpeg knows",
    "unsupported_format": "a playlist, a text or a device, which are not opened",
    "no_video_stream": "sound or subtitles only",
    "still_image": "a picture, where `decode.still_images` is off",
    "unsupported_codec": "no decoder for the video's codec",
    "no_frames": "not one frame could be decoded",
    "too_many_pixels": "over `decode.max_pixels`",
    "too_long": "over `decode.max_duration_s`",
    "too_many_bytes": "over `decode.max_bytes`",
    "too_slow": "over `decode.max_decode_s`",
    "too_much_memory": "over `decode.max_memory_bytes`",
    "crashed": "the decoder died",
}
"""Every reason for which a file gives no clip, and what it means."""


def quarantine_schema() -> pa.Schema:
    """OUT/quarantine.parquet: files that gave no clip, and why (one of `QUARANTINE_REASONS`)."""
    return pa.schema(
        [
            ("uri", pa.string()),
            ("reason", pa.string()),
            ("message", pa.string()),
            ("size_bytes", pa.int64()),
            ("sha256", pa.string()),
            ("stamp", pa.string()),
        ]
    )
