"""The demo world on disk: real mp4 files, viewing events, and a `run.yaml` that learns from them.

events.parquet   user_id, video_id, time, watched, liked, tab
videos.parquet   video_id, title, path (from its folder), creator_id (a name), topic, duration_s,
                 uploaded
users.parquet    user_id, age_group, region
videos/          the clips
run.yaml         a config for `recsys run`
truth/           the taste model: videos, users (with the chance that they watch each video on
                 the first test day) and events (row by row). No model may see it.
world.json       the settings, and whether the world is complete
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from recsys.demo.clips import APPEARANCES, MOTIONS, ClipFormat, SyntheticClip, write_clips
from recsys.demo.names import creator_name, video_titles
from recsys.demo.viewers import (
    AGE_GROUPS,
    REGIONS,
    SOURCES,
    TABS,
    TOPICS,
    Array,
    DemoUsers,
    DemoVideos,
    Events,
    WorldSettings,
    make_users,
    make_videos,
    simulate_events,
    watch_log_odds,
)
from recsys.errors import InputError

__all__ = ["START", "WorldSettings", "make_world"]

START = datetime(2024, 3, 1, tzinfo=UTC)
"""Midnight before the first event."""

_VERSION = 3  # of the world's rules: a world made by others is made anew
_MARKER = "world.json"
_PARTS = (
    "videos",
    "truth",
    "events.parquet",
    "videos.parquet",
    "users.parquet",
    "run.yaml",
)
_TIME = pa.timestamp("ms", tz="UTC")


def make_world(
    out: Path,
    *,
    world: WorldSettings,
    progress: Callable[[int, int], None] | None = None,
) -> bool:
    """Makes the demo world, unless `out` holds the same one already.

    A world of other settings is replaced, once the new one is complete; whatever else lies in the
    folder (a run) is left alone.

    Args:
        out: The world's folder; made where it is missing.
        world: Size and seed.
        progress: Called with (clips rendered, clips in all).

    Returns:
        Whether it was made; False where it was there.

    Raises:
        InputError: The folder holds files of these names that are not a demo world's.
    """
    marker = {"version": _VERSION, "settings": _plain_settings(world), "complete": True}
    if _is_there(out, marker):
        return False
    _refuse_foreign_files(out)
    out.mkdir(parents=True, exist_ok=True)
    aside = out / f".making-{os.getpid()}"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        _write_world(aside, out=out, world=world, progress=progress)
        _swap(aside, out=out, marker=marker)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return True


def _plain_settings(world: WorldSettings) -> dict[str, object]:
    """The settings that change the world, as JSON gives them back."""
    settings = asdict(world)
    del settings["processes"]
    plain: dict[str, object] = json.loads(json.dumps(settings))
    return plain


def _read_marker(out: Path) -> dict[str, object] | None:
    try:
        marker = json.loads((out / _MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return marker if isinstance(marker, dict) else None


def _is_there(out: Path, marker: dict[str, object]) -> bool:
    return _read_marker(out) == marker and all((out / part).exists() for part in _PARTS)


def _refuse_foreign_files(out: Path) -> None:
    """Keeps a user's own `videos/` from being replaced."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; the demo world needs a folder, name another")
    if _read_marker(out) is not None:
        return
    foreign = [part for part in (*_PARTS, _MARKER) if (out / part).exists()]
    if foreign:
        raise InputError(
            f"{out} already holds {foreign[0]}, which is not of a demo world; name an empty folder"
        )


def _swap(aside: Path, *, out: Path, marker: dict[str, object]) -> None:
    """Puts the new world in the old one's place; only the last step calls it complete."""
    _write_marker(out, {**marker, "complete": False})
    for part in _PARTS:
        old = out / part
        if old.is_dir():
            shutil.rmtree(old)
        os.replace(aside / part, old)
    _write_marker(out, marker)


def _write_marker(out: Path, marker: dict[str, object]) -> None:
    aside = out / f".{_MARKER}"
    with aside.open("w", encoding="utf-8") as file:
        json.dump(marker, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, out / _MARKER)


def _write_world(
    aside: Path,
    *,
    out: Path,
    world: WorldSettings,
    progress: Callable[[int, int], None] | None,
) -> None:
    videos, users = make_videos(world), make_users(world)
    events = simulate_events(world, videos=videos, users=users)
    (aside / "videos").mkdir(parents=True)
    (aside / "truth").mkdir()
    tables = {
        "events": _event_table(events),
        "videos": _video_table(videos, world),
        "users": _user_table(users),
        "truth/events": _event_truth(events),
        "truth/videos": _video_truth(videos),
        "truth/users": _user_truth(users, videos, world),
    }
    for name, table in tables.items():
        pq.write_table(table, aside / f"{name}.parquet")
    (aside / "run.yaml").write_text(_run_yaml(out, world), encoding="utf-8")
    clips = [
        SyntheticClip(
            path=aside / "videos" / f"{name}.mp4",
            appearance=int(videos.appearance[i]),
            motion=int(videos.motion[i]),
            frames=int(videos.frames[i]),
            seed=int(videos.clip_seed[i]),
        )
        for i, name in enumerate(_video_ids(np.arange(world.num_videos)))
    ]
    form = ClipFormat(size=world.size, fps=world.fps)
    write_clips(clips, form=form, processes=world.processes, progress=progress)


def _event_table(events: Events) -> pa.Table:
    return pa.table(
        {
            "user_id": _user_ids(events.user),
            "video_id": _video_ids(events.video),
            "time": _times(events.day),
            "watched": events.watched.astype(np.int8),
            "liked": events.liked.astype(np.int8),
            "tab": _names(TABS, events.tab),
        }
    )


def _video_table(videos: DemoVideos, world: WorldSettings) -> pa.Table:
    ids = _video_ids(np.arange(world.num_videos))
    return pa.table(
        {
            "video_id": ids,
            "title": video_titles(videos.appearance.tolist(), videos.motion.tolist()),
            "path": [f"videos/{name}.mp4" for name in ids],
            "creator_id": [creator_name(creator) for creator in videos.creator.tolist()],
            "topic": _names(TOPICS, videos.topic),
            "duration_s": (videos.frames / world.fps).astype(np.float32),
            "uploaded": _times(videos.uploaded_day),
        }
    )


def _user_table(users: DemoUsers) -> pa.Table:
    return pa.table(
        {
            "user_id": _user_ids(np.arange(len(users.age))),
            "age_group": _names(AGE_GROUPS, users.age),
            "region": _names(REGIONS, users.region),
        }
    )


def _event_truth(events: Events) -> pa.Table:
    return pa.table(
        {
            "user_id": _user_ids(events.user),
            "video_id": _video_ids(events.video),
            "watch_probability": events.watch_probability,
            "like_probability": events.like_probability,
            "source": _names(SOURCES, events.source),
        }
    )


def _video_truth(videos: DemoVideos) -> pa.Table:
    return pa.table(
        {
            "video_id": _video_ids(np.arange(len(videos.cold))),
            "appearance": _names(APPEARANCES, videos.appearance),
            "motion": _names(MOTIONS, videos.motion),
            "quality": videos.quality,
            "cold": videos.cold,
        }
    )


def _user_truth(users: DemoUsers, videos: DemoVideos, world: WorldSettings) -> pa.Table:
    days = np.array([float(world.test_from_day)])
    odds = [
        watch_log_odds(user, users=users, videos=videos, days=days)[0]
        for user in range(world.num_users)
    ]
    columns: dict[str, object] = {"user_id": _user_ids(np.arange(world.num_users))}
    for order, pair in (("first", users.first), ("second", users.second)):
        columns[f"{order}_appearance"] = _names(APPEARANCES, pair // len(MOTIONS))
        columns[f"{order}_motion"] = _names(MOTIONS, pair % len(MOTIONS))
    drift = [None if np.isnan(moment) else float(moment) for moment in users.drift_day]
    columns["drift_day"] = pa.array(drift, pa.float64())
    columns["creator_ids"] = [
        [creator_name(creator) for creator in pair] for pair in users.creators.tolist()
    ]
    columns["watch_probability"] = pa.array(
        [(1 / (1 + np.exp(-row))).astype(np.float32) for row in odds], pa.list_(pa.float32())
    )
    return pa.table(columns)


def _run_yaml(out: Path, world: WorldSettings) -> str:
    """A config for `recsys run`; absolute paths, since workers run in other folders."""
    root = out.resolve()
    cuts = (world.valid_from_day, world.test_from_day)
    valid_from, test_from = ((START + timedelta(days=day)).isoformat() for day in cuts)
    tree = {
        "run": str(root / "run"),
        "data": {
            "events": str(root / "events.parquet"),
            "columns": {
                "user": "user_id",
                "video": "video_id",
                "time": "time",
                "positive": "watched",
                "tasks": ["watched", "liked"],
                "context": ["tab"],
            },
            "videos": str(root / "videos.parquet"),
            "video_columns": {
                "video": "video_id",
                "uri": "path",
                "title": "title",
                "creator": "creator_id",
                "categories": ["topic"],
            },
            "users": str(root / "users.parquet"),
            "user_columns": {"user": "user_id", "groups": ["age_group", "region"]},
        },
        "split": {"kind": "time", "valid_from": valid_from, "test_from": test_from},
        # Twice the width takes four times as long to learn from and says no more of these shapes.
        "decode": {"frames": 8, "size": 32},
        # IDs are learnt sooner than frames: wide and fast ones, and frames without a start of their
        # own, leave cold videos behind. Chosen on validation events and on worlds of other seeds.
        "model": {
            "content": {"encoder": "small_cnn", "temporal": "lstm"},
            "id_dim": 16,
            "id_dropout": 0.3,
        },
        "train": {
            "lr": 0.004,
            "table_lr": 0.01,
            "clip_norm": 10.0,
            "batch_timelines": 64,
            "epochs": 11,
            "content_first": 0.4,
            "refit": False,
        },
        "prepare": {"partitions": 4},
    }
    return yaml.safe_dump(tree, sort_keys=False)


def _user_ids(rows: Array) -> list[str]:
    return [f"u{row:04d}" for row in rows]


def _video_ids(rows: Array) -> list[str]:
    return [f"v{row:04d}" for row in rows]


def _names(names: tuple[str, ...], rows: Array) -> list[str]:
    return [names[row] for row in rows]


def _times(days: Array) -> pa.Array:
    start_ms = int(START.timestamp() * 1000)
    return pa.array(start_ms + np.round(days * 86_400_000).astype(np.int64)).cast(_TIME)
