"""The demo world: real files, the same for the same seed, and a taste that needs the motion."""

import dataclasses
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from recsys.config.run import load_config
from recsys.demo.clips import APPEARANCES, MOTIONS, SyntheticClip, render_frames
from recsys.demo.viewers import (
    AGE_GROUPS,
    REGIONS,
    TABS,
    DemoUsers,
    DemoVideos,
    Events,
    make_users,
    make_videos,
    simulate_events,
    watch_log_odds,
)
from recsys.demo.world import START, WorldSettings, make_world
from recsys.errors import InputError

TABLES = ("events", "videos", "users", "truth/events", "truth/videos", "truth/users")
TINY = WorldSettings.tiny()


def read(out: Path, name: str) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = pq.read_table(out / f"{name}.parquet").to_pydict()
    return columns


def decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("worlds") / "tiny"
    assert make_world(out, world=TINY)
    return out


# Clips ---------------------------------------------------------------------------------------


def clip(motion: str, *, seed: int = 5, appearance: int = 0) -> SyntheticClip:
    return SyntheticClip(
        path=Path(), appearance=appearance, motion=MOTIONS.index(motion), frames=12, seed=seed
    )


@pytest.mark.parametrize(("forward", "backward"), [("right", "left"), ("down", "up")])
def test_opposite_motions_are_the_same_frames_in_opposite_order(
    forward: str, backward: str
) -> None:
    there = render_frames(clip(forward), size=48)
    back = render_frames(clip(backward), size=48)
    assert (there == back[::-1]).all()
    assert (there != back).any()


@pytest.mark.parametrize(
    ("motion", "axis", "sign"), [("right", 2, 1), ("left", 2, -1), ("down", 1, 1), ("up", 1, -1)]
)
def test_a_motion_goes_where_its_name_says(motion: str, axis: int, sign: int) -> None:
    for seed in range(5):
        frames = render_frames(clip(motion, seed=seed), size=48).astype(float)
        red = frames[..., 0] - frames[..., 1:].mean(-1) > 60  # the disc, (T, H, W)
        places = (red * np.arange(48).reshape([-1, 1] if axis == 1 else [1, -1])).sum((1, 2))
        steps = np.diff(places / red.sum((1, 2)))
        assert (steps * sign > 0).all()


def test_appearances_differ_and_what_means_nothing_varies() -> None:
    shown = [render_frames(clip("up", appearance=a), size=48) for a in range(len(APPEARANCES))]
    assert len({frames.tobytes() for frames in shown}) == len(APPEARANCES)
    again = [render_frames(clip("up", seed=seed), size=48) for seed in (5, 5, 6)]
    assert (again[0] == again[1]).all()
    assert (again[0] != again[2]).any()


# Files ---------------------------------------------------------------------------------------


def test_tables_have_the_columns_and_values_that_they_promise(tiny: Path) -> None:
    events, videos, users = (read(tiny, name) for name in TABLES[:3])
    assert list(events) == ["user_id", "video_id", "time", "watched", "liked", "tab"]
    assert list(users) == ["user_id", "age_group", "region"]
    assert {*("video_id", "title", "path", "creator_id", "topic", "duration_s", "uploaded")} == set(
        videos
    )
    assert len(set(videos["title"])) == 24
    assert videos["video_id"] == [f"v{i:04d}" for i in range(24)]
    assert users["user_id"] == [f"u{i:04d}" for i in range(40)]
    assert set(events["user_id"]) == set(users["user_id"])
    assert set(events["video_id"]) <= set(videos["video_id"])
    assert events["time"] == sorted(events["time"])
    assert set(events["watched"]) == {0, 1}
    assert all(w >= liked for w, liked in zip(events["watched"], events["liked"], strict=True))
    assert set(events["tab"]) <= set(TABS)
    assert set(users["age_group"]) <= set(AGE_GROUPS)
    assert set(users["region"]) <= set(REGIONS)


def test_nothing_is_shown_twice_or_before_it_is_uploaded(tiny: Path) -> None:
    events, videos = read(tiny, "events"), read(tiny, "videos")
    pairs = list(zip(events["user_id"], events["video_id"], strict=True))
    assert len(set(pairs)) == len(pairs)
    uploaded = dict(zip(videos["video_id"], videos["uploaded"], strict=True))
    for video, time in zip(events["video_id"], events["time"], strict=True):
        assert uploaded[video] <= time


def test_every_video_is_a_real_h264_file_found_from_its_table(tiny: Path) -> None:
    videos = read(tiny, "videos")
    assert len(list((tiny / "videos").iterdir())) == 24
    for path, duration_s in zip(videos["path"], videos["duration_s"], strict=True):
        with av.open(str(tiny / path)) as container:
            stream = container.streams.video[0]
            codec = stream.codec_context
            assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")
            assert (codec.width, codec.height) == (TINY.size, TINY.size)
            keys = [frame.key_frame for frame in container.decode(stream)]
        assert len(keys) / TINY.fps == pytest.approx(duration_s)
        assert [i for i, key in enumerate(keys) if key] == list(range(0, len(keys), 6))


def test_files_show_what_the_truth_says(tiny: Path) -> None:
    truth, videos = read(tiny, "truth/videos"), make_videos(TINY)
    for row in (0, 23):
        assert truth["appearance"][row] == APPEARANCES[videos.appearance[row]]
        wanted = SyntheticClip(
            path=Path(),
            appearance=int(videos.appearance[row]),
            motion=MOTIONS.index(truth["motion"][row]),
            frames=int(videos.frames[row]),
            seed=int(videos.clip_seed[row]),
        )
        painted = render_frames(wanted, size=TINY.size).astype(int)
        decoded = decode(tiny / "videos" / f"v{row:04d}.mp4").astype(int)
        assert np.abs(decoded - painted).mean() < 8  # what H.264 and half the colour pixels cost


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(
    tiny: Path, tmp_path: Path
) -> None:
    again = dataclasses.replace(TINY, processes=1)
    make_world(tmp_path / "again", world=again)
    make_world(tmp_path / "other", world=WorldSettings.tiny(seed=1))
    names = [f"{name}.parquet" for name in TABLES] + ["videos/v0000.mp4", "videos/v0023.mp4"]
    for name in names:
        first = (tiny / name).read_bytes()
        assert (tmp_path / "again" / name).read_bytes() == first, name
        assert (tmp_path / "other" / name).read_bytes() != first, name


def test_the_run_config_loads_and_cuts_at_whole_days(tiny: Path) -> None:
    config = load_config(str(tiny / "run.yaml"))
    assert config.run == str(tiny / "run")
    assert config.decodes
    for place in (config.data.events, config.data.videos, config.data.users):
        assert place is not None
        assert Path(place).is_file()
    assert config.split.valid_from == START + timedelta(days=TINY.valid_from_day)
    assert config.split.test_from == START + timedelta(days=TINY.test_from_day)


# Made once, replaced whole -------------------------------------------------------------------


def test_a_complete_world_is_reused_and_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    small = dataclasses.replace(TINY, num_videos=14, num_users=3, events_per_user=(2, 4))
    assert make_world(tmp_path, world=small, progress=lambda *done: told.append(done))
    assert told == [(12, 14), (14, 14)]
    assert not make_world(tmp_path, world=dataclasses.replace(small, processes=1))
    (tmp_path / "events.parquet").unlink()
    assert make_world(tmp_path, world=small)


def test_other_settings_replace_the_world_and_leave_the_rest(tmp_path: Path) -> None:
    small = dataclasses.replace(TINY, num_videos=14, num_users=3, events_per_user=(2, 4))
    make_world(tmp_path, world=small)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "report.json").write_text("{}")
    assert make_world(tmp_path, world=dataclasses.replace(small, num_videos=12))
    assert len(list((tmp_path / "videos").iterdir())) == 12
    assert (tmp_path / "run" / "report.json").exists()
    assert not list(tmp_path.glob(".*"))


def test_an_interrupted_swap_is_made_anew(tmp_path: Path) -> None:
    small = dataclasses.replace(TINY, num_videos=14, num_users=3, events_per_user=(2, 4))
    make_world(tmp_path, world=small)
    marker = json.loads((tmp_path / "world.json").read_text())
    (tmp_path / "world.json").write_text(json.dumps({**marker, "complete": False}))
    assert make_world(tmp_path, world=small)


def test_rendering_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_world(tmp_path, world=TINY, progress=stop)
    assert not list(tmp_path.iterdir())


def test_a_users_own_files_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    with pytest.raises(InputError, match=r"already holds videos.*name an empty folder"):
        make_world(tmp_path, world=TINY)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        make_world(tmp_path / "file", world=TINY)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("num_videos", 3),
        ("num_users", 0),
        ("days", 5),
        ("cold_share", 0.9),
        ("events_per_user", (5, 500)),
        ("size", 95),
        ("clip_s", 0.0),
    ],
)
def test_impossible_settings_say_which_and_what_is_allowed(setting: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"{setting}=.*allowed: "):
        dataclasses.replace(TINY, **{setting: value})


# What the world must make possible -----------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class World:
    settings: WorldSettings
    videos: DemoVideos
    users: DemoUsers
    events: Events
    chance_UV: np.ndarray  # that a user watches a video when the test days begin

    @property
    def in_test(self) -> np.ndarray:
        return self.events.day >= self.settings.test_from_day

    @property
    def watched(self) -> np.ndarray:
        return self.events.watched.astype(bool)


@pytest.fixture(scope="module")
def full() -> Iterator[World]:
    settings = WorldSettings()
    videos, users = make_videos(settings), make_users(settings)
    days = np.array([float(settings.test_from_day)])
    odds = [
        watch_log_odds(u, users=users, videos=videos, days=days)[0]
        for u in range(settings.num_users)
    ]
    events = simulate_events(settings, videos=videos, users=users)
    yield World(settings, videos, users, events, 1 / (1 + np.exp(-np.array(odds))))


def hit_rate(world: World, score_UV: np.ndarray, *, only: np.ndarray | None = None) -> float:
    """HR@10 over users with a test viewing (of a video in `only`), all videos ranked."""
    events = world.events
    relevant = np.zeros(score_UV.shape, bool)
    chosen = world.watched & world.in_test
    relevant[events.user[chosen], events.video[chosen]] = True
    if only is not None:
        relevant &= only
    top = np.argsort(-score_UV, axis=1)[:, :10]
    hit = np.take_along_axis(relevant, top, axis=1).any(1)
    return float(hit[relevant.any(1)].mean())


def random_hit_rate(world: World, *, only: np.ndarray | None = None) -> float:
    draws = [np.random.default_rng(i).random(world.chance_UV.shape) for i in range(3)]
    return float(np.mean([hit_rate(world, draw, only=only) for draw in draws]))


def test_a_known_taste_ranks_far_better_than_popularity_and_chance(full: World) -> None:
    known = full.watched & ~full.in_test
    count = np.bincount(full.events.video[known], minlength=full.settings.num_videos)
    popularity = np.broadcast_to(count.astype(float), full.chance_UV.shape)
    assert hit_rate(full, full.chance_UV) >= 6 * hit_rate(full, popularity)
    assert hit_rate(full, popularity) > random_hit_rate(full)
    cold = full.videos.cold
    cold_rate = hit_rate(full, full.chance_UV, only=cold)
    assert cold_rate >= 10 * random_hit_rate(full, only=cold)


def test_taste_without_the_motion_ranks_clearly_worse(full: World) -> None:
    frames_only = np.empty_like(full.chance_UV)
    for appearance in range(len(APPEARANCES)):
        same = full.videos.appearance == appearance
        frames_only[:, same] = full.chance_UV[:, same].mean(1, keepdims=True)
    frames_only += 1e-3 * full.videos.quality
    for only in (None, full.videos.cold):
        best = hit_rate(full, full.chance_UV, only=only)
        assert best >= 1.5 * hit_rate(full, frames_only, only=only)


def test_shares_of_the_events(full: World) -> None:
    in_valid = (full.events.day >= full.settings.valid_from_day) & ~full.in_test
    assert full.watched.mean() == pytest.approx(0.40, abs=0.05)
    assert in_valid.mean() == pytest.approx(0.10, abs=0.02)
    assert full.in_test.mean() == pytest.approx(0.15, abs=0.02)
    in_train = ~in_valid & ~full.in_test
    assert len(np.unique(full.events.user[in_train])) == full.settings.num_users


def test_cold_videos_have_no_training_event_and_are_watched_in_the_test_days(full: World) -> None:
    cold_event = full.videos.cold[full.events.video]
    assert full.videos.cold.mean() == pytest.approx(0.15, abs=0.01)
    assert full.events.day[cold_event].min() >= full.settings.valid_from_day
    seen = np.unique(full.events.video[cold_event & full.in_test & full.watched])
    assert len(seen) == full.videos.cold.sum()


def test_outcomes_follow_the_probabilities_of_the_truth(full: World) -> None:
    chance, watched = full.events.watch_probability, full.watched
    for low in (0.0, 0.3, 0.6, 0.9):
        inside = (chance >= low) & (chance < low + 0.3)
        assert watched[inside].mean() == pytest.approx(chance[inside].mean(), abs=0.02)
    likes = full.events.liked[watched].mean()
    assert likes == pytest.approx(full.events.like_probability[watched].mean(), abs=0.02)


def test_the_smallest_group_has_another_taste(full: World) -> None:
    share = {}
    for group in range(len(AGE_GROUPS)):
        chosen = full.users.first[full.users.age == group]
        share[group] = np.bincount(chosen, minlength=24) / len(chosen)
    sizes = np.bincount(full.users.age)
    assert sizes.argmin() == 3
    assert sizes.min() < 0.15 * sizes.sum()
    assert np.corrcoef(share[0], share[1])[0, 1] > 0.3
    assert np.corrcoef(share[0], share[3])[0, 1] < 0


def test_creators_are_of_uneven_size(full: World) -> None:
    sizes = np.sort(np.bincount(full.videos.creator))
    assert sizes[-1] >= 8 * np.median(sizes[sizes > 0])


def test_taste_moves_from_the_second_pair_to_the_first() -> None:
    settings = dataclasses.replace(WorldSettings(), num_users=200)
    videos, users = make_videos(settings), make_users(settings)
    user = int(np.flatnonzero(~np.isnan(users.drift_day))[0])
    days = users.drift_day[user] + np.array([-8.0, 0.0, 8.0])
    odds = watch_log_odds(user, users=users, videos=videos, days=days)
    pair = videos.appearance * len(MOTIONS) + videos.motion
    first = odds[:, pair == users.first[user]].mean(1)
    second = odds[:, pair == users.second[user]].mean(1)
    assert first[0] < second[0]
    assert first[2] > second[2]
