"""What the worlds of `examples/` have in common: clips, tables, captions, and people with a taste.

    videos.parquet   video_id, title, path (from its folder), creator, topic, duration_s, and of
                     lessons course, lesson, requires
    events.parquet   user_id, video_id, time, watched, liked
    videos/          the clips, and NAME.vtt beside those with captions

Shapes: V videos, N events.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys.demo.clips import ClipFormat, SyntheticClip, write_clips

DAYS = 20
"""From the first event to the last, which lies before this midnight (UTC): so a server that is
started today knows what is popular now."""
TASTE, CHANCE = 0.8, 0.12
"""How likely a person watches a video of a topic that they like, and any other."""
LIKED = 0.4
"""How likely they like what they watched."""
FORM = ClipFormat(size=160, fps=12)

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class ExampleVideo:
    """A video of an example: what it is called and what its clip shows.

    Attributes:
        title: What people read.
        creator: Who made it.
        topic: What people like or do not like.
        appearance: Index into `clips.APPEARANCES`.
        motion: Index into `clips.MOTIONS`.
        text: What stands in the clip.
        uploaded_day: When it came, in days from the start.
        captions: Lines that are shown one after the other; none without any.
        course: Of which it is a lesson.
        lesson: Its place in the course.
        requires: Places (in the list of all videos) of what must be finished before.
    """

    title: str
    creator: str
    topic: str
    appearance: int
    motion: int
    text: str
    uploaded_day: float = 0.0
    captions: tuple[str, ...] = ()
    course: str | None = None
    lesson: int | None = None
    requires: tuple[int, ...] = ()


@dataclass(frozen=True)
class Viewings:
    """N events in any order; all arrays are (N,)."""

    user: Array
    video: Array
    day: Array
    watched: Array
    liked: Array


def viewings_by_taste(
    videos: Sequence[ExampleVideo], *, num_users: int, per_user: int, seed: int = 0
) -> Viewings:
    """People who like two topics each, and are shown half what they like and half anything."""
    rng = np.random.default_rng(seed)
    topics, topic_V = np.unique([video.topic for video in videos], return_inverse=True)
    uploaded_V = np.array([video.uploaded_day for video in videos])
    popularity_V = rng.gumbel(size=len(videos))
    parts = []
    for user in range(num_users):
        likes_V = np.isin(topic_V, rng.permutation(len(topics))[:2])
        day_N = np.sort(rng.uniform(0.2, DAYS, per_user))
        weight_NV = rng.gumbel(size=(per_user, len(videos))) + 0.5 * popularity_V
        weight_NV += 2.0 * likes_V * (rng.random(per_user) < 0.5)[:, None]
        weight_NV[uploaded_V[None] > day_N[:, None]] = -np.inf
        video_N = weight_NV.argmax(1)
        first = np.sort(np.unique(video_N, return_index=True)[1])  # nothing is shown twice
        video_N, day_N = video_N[first], day_N[first]
        watched = rng.random(len(first)) < np.where(likes_V[video_N], TASTE, CHANCE)
        liked = watched & (rng.random(len(first)) < LIKED)
        parts.append((np.full(len(first), user), video_N, day_N, watched, liked))
    return Viewings(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def example_command(
    make: Callable[[int, int], tuple[list[ExampleVideo], Viewings]],
    *,
    size: tuple[str, int, str],
    users: int,
    clip_s: float,
) -> None:
    """The command line of an example: makes its world in the folder that is named.

    Args:
        make: Gives the videos, and who watched what, for a size and a number of people.
        size: The option that says the size, its default, and what it means.
        users: Default number of people.
        clip_s: Length of the clips, in seconds.
    """
    option, default, meaning = size
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path, help="the world's folder")
    parser.add_argument(option, dest="size", type=int, default=default, help=meaning)
    parser.add_argument("--users", type=int, default=users, help=f"people ({users})")
    given = parser.parse_args()
    videos, viewings = make(given.size, given.users)
    write_example(given.out, videos, viewings, clip_s=clip_s)
    print(f"{len(videos)} videos, {len(viewings.user)} events in {given.out}")


def write_example(
    out: Path,
    videos: Sequence[ExampleVideo],
    viewings: Viewings,
    *,
    clip_s: float,
    processes: int = 1,
) -> None:
    """Writes the tables, the clips and the captions; what was there of the same names goes.

    Args:
        out: The world's folder.
        videos: All videos.
        viewings: Who watched what.
        clip_s: Length of the clips, in seconds.
        processes: How many clips are rendered at a time.
    """
    names = [f"v{number:03d}" for number in range(len(videos))]
    folder = out / "videos"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    frames = round(clip_s * FORM.fps)
    pq.write_table(_video_table(videos, names, frames / FORM.fps), out / "videos.parquet")
    pq.write_table(_event_table(viewings, names), out / "events.parquet")
    for name, video in zip(names, videos, strict=True):
        if video.captions:
            (folder / f"{name}.vtt").write_text(_captions(video.captions, clip_s), "utf-8")
    topics = sorted({video.topic for video in videos})
    clips = [
        SyntheticClip(
            path=folder / f"{name}.mp4",
            appearance=video.appearance,
            motion=video.motion,
            frames=frames,
            seed=number,
            text=video.text,
            hue=topics.index(video.topic) / len(topics),
        )
        for number, (name, video) in enumerate(zip(names, videos, strict=True))
    ]
    write_clips(clips, form=FORM, processes=processes)


def _video_table(videos: Sequence[ExampleVideo], names: Sequence[str], length_s: float) -> pa.Table:
    columns: dict[str, Iterable[object]] = {
        "video_id": names,
        "title": [video.title for video in videos],
        "path": [f"videos/{name}.mp4" for name in names],
        "creator": [video.creator for video in videos],
        "topic": [video.topic for video in videos],
        "duration_s": [length_s] * len(videos),
    }
    if any(video.course for video in videos):
        columns |= {
            "course": [video.course for video in videos],
            "lesson": [video.lesson for video in videos],
            "requires": [[names[place] for place in video.requires] for video in videos],
        }
    return pa.table({name: list(values) for name, values in columns.items()})


def _event_table(viewings: Viewings, names: Sequence[str]) -> pa.Table:
    order = np.argsort(viewings.day, kind="stable")
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    start_ms = int((midnight - timedelta(days=DAYS)).timestamp() * 1000)
    times = start_ms + np.round(viewings.day[order] * 86_400_000).astype(np.int64)
    return pa.table(
        {
            "user_id": [f"u{user:03d}" for user in viewings.user[order].tolist()],
            "video_id": [names[video] for video in viewings.video[order].tolist()],
            "time": pa.array(times).cast(pa.timestamp("ms", tz="UTC")),
            "watched": viewings.watched[order].astype(np.int8),
            "liked": viewings.liked[order].astype(np.int8),
        }
    )


def _captions(lines: Sequence[str], length_s: float) -> str:
    """A WebVTT file of lines that share the length.

    >>> print(_captions(["One", "Two"], 3.0))
    WEBVTT
    <BLANKLINE>
    00:00.000 --> 00:01.500
    One
    <BLANKLINE>
    00:01.500 --> 00:03.000
    Two
    <BLANKLINE>
    """
    ends = [length_s * number / len(lines) for number in range(len(lines) + 1)]
    stamps = [f"{int(end // 60):02d}:{end % 60:06.3f}" for end in ends]
    cues = [f"{stamps[i]} --> {stamps[i + 1]}\n{line}\n" for i, line in enumerate(lines)]
    return "\n".join(["WEBVTT\n", *cues])
