"""The demo world's videos, viewers and their viewings, by a taste model that is known.

Whether a viewer watches a video depends above all on the pair (appearance, motion): each viewer has
a favourite pair and a second one, and half of them move from the second to the first some day. Of
the pair's appearance alone they like a little. What they are shown is chosen by a logging policy
that mixes chance, popularity and a noisy view of their taste, and nothing is shown twice.

Shapes: V videos, U users, N events, K pairs (appearance × motion); times in days from the start.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys.demo.clips import APPEARANCES, MOTIONS
from recsys.errors import InputError

Array = NDArray[Any]

TABS = ("feed", "search", "related")
AGE_GROUPS = ("18-29", "30-44", "45-59", "60+")
REGIONS = ("north", "south", "east", "west")
TOPICS = ("sport", "music", "games", "food", "travel", "science")
SOURCES = ("random", "popular", "taste")

_TAB_SHARES = (0.6, 0.2, 0.2)
_TAB_APPEAL = (0.0, 0.5, 0.2)
_SOURCE_SHARES = ((0.30, 0.20, 0.50), (0.20, 0.10, 0.70), (0.20, 0.10, 0.70))  # per tab
_AGE_SHARES = (0.38, 0.32, 0.20, 0.10)
_MINORITY = len(AGE_GROUPS) - 1  # its taste mix is the others', upside down

_BASE = -2.2  # log-odds of watching a video that is nothing to the viewer
_PAIR_APPEAL = 3.8
_APPEARANCE_APPEAL = 0.8
_SECOND_SHARE = 0.5  # weight of the second pair where taste does not move
_CREATOR_APPEAL = 0.7  # of the two creators that a viewer follows
_POSITION_COST = 0.06  # log-odds lost with each video of a session
_NEW_DAYS, _NEW_BOOST = 3.0, 2.0  # how much more often a new video is shown, and for how long
_SESSION = 3  # most events in a session


@dataclass(frozen=True, kw_only=True)
class WorldSettings:
    """Size and seed of a demo world.

    Attributes:
        seed: All else being equal, the same seed gives the same world.
        num_videos: V, clips to render.
        num_users: U, viewers.
        num_creators: Who made the videos; their numbers of videos are uneven.
        days: Length of the record.
        valid_days: Days before the test days, for validation.
        test_days: Last days, for test.
        cold_share: Share of the videos that are uploaded after training ends.
        events_per_user: Fewest and most exposures of a viewer.
        size: Height and width of a clip, in pixels.
        fps: Frames a second of a clip.
        clip_s: Usual length of a clip, in seconds.
        processes: How many clips are rendered at a time; it changes nothing in the world.
    """

    seed: int = 0
    num_videos: int = 360
    num_users: int = 2000
    num_creators: int = 40
    days: int = 20
    valid_days: int = 2
    test_days: int = 3
    cold_share: float = 0.15
    events_per_user: tuple[int, int] = (18, 34)
    size: int = 160
    fps: int = 12
    clip_s: float = 2.0
    processes: int = 2

    @classmethod
    def tiny(cls, *, seed: int = 0) -> WorldSettings:
        """A world that is made in about two seconds, for tests of the whole chain."""
        return cls(
            seed=seed,
            num_videos=24,
            num_users=40,
            num_creators=5,
            events_per_user=(10, 14),
            size=64,
            clip_s=1.0,
        )

    def __post_init__(self) -> None:
        fewest, most = self.events_per_user
        checks = {
            "num_videos": (self.num_videos >= 8, "at least 8"),
            "num_users": (self.num_users >= 1, "at least 1"),
            "num_creators": (self.num_creators >= 2, "at least 2"),
            "test_days": (self.test_days >= 1, "at least 1"),
            "valid_days": (self.valid_days >= 1, "at least 1"),
            "days": (self.valid_from_day >= 3, "3 days more than valid_days + test_days"),
            "cold_share": (0 <= self.cold_share <= 0.5, "0 to 0.5"),
            "events_per_user": (
                1 <= fewest <= most <= self.num_videos * (1 - self.cold_share) * 0.75,
                "fewest ≤ most ≤ three quarters of the videos that are not cold",
            ),
            "size": (self.size >= 16 and self.size % 2 == 0, "an even number from 16"),
            "fps": (self.fps >= 1, "at least 1"),
            "clip_s": (self.clip_s * self.fps >= 2, "two frames at least"),
            "processes": (self.processes >= 1, "at least 1"),
        }
        for name, (holds, allowed) in checks.items():
            if not holds:
                value = getattr(self, name)
                raise InputError(f"demo world: {name}={value} is not possible; allowed: {allowed}")

    @property
    def valid_from_day(self) -> int:
        """First day of validation, from 0; training ends before it."""
        return self.days - self.valid_days - self.test_days

    @property
    def test_from_day(self) -> int:
        """First day of test, from 0."""
        return self.days - self.test_days


@dataclass(frozen=True, kw_only=True)
class DemoVideos:
    """V videos: what they show, who made them and when they came; all arrays are (V,)."""

    appearance: Array
    motion: Array
    creator: Array
    topic: Array
    quality: Array  # log-odds that it adds for everyone
    popularity: Array  # log of how often the "popular" source shows it
    uploaded_day: Array  # before 0: it was there when the record begins
    cold: Array  # uploaded after training ends
    frames: Array
    clip_seed: Array


@dataclass(frozen=True, kw_only=True)
class DemoUsers:
    """U viewers: what they like and which groups they are in; (U,) but for `creators`, (U, 2)."""

    first: Array  # favourite pair, appearance × number of motions + motion
    second: Array
    drift_day: Array  # when taste moves from second to first; nan where it does not
    appeal: Array  # log-odds that they watch anything at all
    creators: Array
    age: Array
    region: Array


@dataclass(frozen=True, kw_only=True)
class Events:
    """N exposures in time order, and the truth behind each; all arrays are (N,)."""

    user: Array
    video: Array
    day: Array
    tab: Array
    watched: Array
    liked: Array
    watch_probability: Array
    like_probability: Array
    source: Array


def make_videos(world: WorldSettings) -> DemoVideos:
    """Draws the videos; each pair of appearance and motion has nearly the same number of them."""
    generator = np.random.default_rng([world.seed, 1])
    num = world.num_videos
    pair = generator.permutation(np.arange(num) % _num_pairs())
    appearance = pair // len(MOTIONS)
    # A creator's style and a topic tell a little of the appearance and nothing of the motion.
    style = generator.integers(len(APPEARANCES), size=world.num_creators)
    weight = (style[None] == appearance[:, None]) * 1.5 + _zipf_log(world.num_creators, 0.8)
    topic = np.where(generator.random(num) < 0.2, appearance, generator.integers(6, size=num))
    quality = generator.normal(0, 0.5, num)
    uploaded_day, cold = _upload_days(world, generator)
    frames = np.round(world.fps * world.clip_s * generator.uniform(0.85, 1.15, num)).astype(int)
    rank = np.argsort(np.argsort(-quality - generator.normal(0, 1.0, num)))
    return DemoVideos(
        appearance=appearance,
        motion=pair % len(MOTIONS),
        creator=_draw(generator, weight),
        topic=topic % len(TOPICS),
        quality=quality,
        popularity=_zipf_log(num, 0.6)[rank],
        uploaded_day=uploaded_day,
        cold=cold,
        frames=np.maximum(frames, 2),
        clip_seed=generator.integers(2**31, size=num),
    )


def make_users(world: WorldSettings) -> DemoUsers:
    """Draws the viewers; the smallest age group likes most what the others like least."""
    generator = np.random.default_rng([world.seed, 2])
    num = world.num_users
    age = generator.choice(len(AGE_GROUPS), num, p=_AGE_SHARES)
    # (K,) per region: a common mix, a little of its own.
    common = np.sort(generator.dirichlet(np.full(_num_pairs(), 12.0)))
    common = common[generator.permutation(_num_pairs())]
    upside_down = np.sort(common)[::-1][np.argsort(np.argsort(common))]
    own = generator.dirichlet(np.full(_num_pairs(), 3.0), len(REGIONS))
    region = generator.integers(len(REGIONS), size=num)
    mix = np.where((age == _MINORITY)[:, None], upside_down**2, common)
    mix = np.log(0.8 * mix / mix.sum(1, keepdims=True) + 0.2 * own[region])
    pairs = np.argsort(-(mix + generator.gumbel(size=mix.shape)), axis=1)[:, :2]
    drift_day = generator.uniform(0.2, 0.7, num) * world.valid_from_day
    return DemoUsers(
        first=pairs[:, 0],
        second=pairs[:, 1],
        drift_day=np.where(generator.random(num) < 0.5, drift_day, np.nan),
        appeal=_BASE + generator.normal(0, 0.3, num),
        creators=generator.integers(world.num_creators, size=(num, 2)),
        age=age,
        region=region,
    )


def watch_log_odds(user: int, *, users: DemoUsers, videos: DemoVideos, days: Array) -> Array:
    """The taste model: log-odds that a viewer watches each video, first in the feed.

    Args:
        user: The viewer's row.
        users: All viewers.
        videos: All videos.
        days: Moments of N requests, (N,).

    Returns:
        (N, V).
    """
    second_N = 1 / (1 + np.exp(days - users.drift_day[user]))
    first_N = 1 - second_N
    if np.isnan(users.drift_day[user]):
        first_N, second_N = np.ones(len(days)), np.full(len(days), _SECOND_SHARE)
    pairs_V = videos.appearance * len(MOTIONS) + videos.motion
    always_V = users.appeal[user] + videos.quality
    always_V = always_V + _CREATOR_APPEAL * np.isin(videos.creator, users.creators[user])
    odds_NV = np.broadcast_to(always_V, (len(days), len(always_V)))
    for share_N, pair in ((first_N, users.first[user]), (second_N, users.second[user])):
        appeal_V = _PAIR_APPEAL * (pairs_V == pair)
        appeal_V = appeal_V + _APPEARANCE_APPEAL * (videos.appearance == pair // len(MOTIONS))
        odds_NV = odds_NV + share_N[:, None] * appeal_V
    return odds_NV


def simulate_events(world: WorldSettings, *, videos: DemoVideos, users: DemoUsers) -> Events:
    """Shows videos to every viewer and draws what they watch and like."""
    parts = [_simulate_user(world, u, videos=videos, users=users) for u in range(world.num_users)]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(columns["day"], kind="stable")
    return Events(**{name: column[order] for name, column in columns.items()})


def _simulate_user(
    world: WorldSettings, user: int, *, videos: DemoVideos, users: DemoUsers
) -> dict[str, Array]:
    """One viewer's events, as the columns of `Events`."""
    generator = np.random.default_rng([world.seed, 3, user])
    num = int(generator.integers(world.events_per_user[0], world.events_per_user[1] + 1))
    day_N, tab_N, position_N = _sessions(generator, num, world.days)
    odds_NV = watch_log_odds(user, users=users, videos=videos, days=day_N)
    source_N = (generator.random((num, 1)) > np.cumsum(_SOURCE_SHARES, 1)[tab_N][:, :2]).sum(1)
    weight_NV = _exposure_weights(generator, source_N, odds=odds_NV, videos=videos, days=day_N)
    video_N = np.empty(num, int)
    for i in range(num):
        video_N[i] = weight_NV[i].argmax()
        weight_NV[i:, video_N[i]] = -np.inf  # nothing is shown twice
    odds_N = odds_NV[np.arange(num), video_N]
    watch_N = _sigmoid(odds_N + np.take(_TAB_APPEAL, tab_N) - _POSITION_COST * position_N)
    like_N = _sigmoid(0.6 * odds_N - 0.8)
    watched_N = generator.random(num) < watch_N
    return {
        "user": np.full(num, user),
        "video": video_N,
        "day": day_N,
        "tab": tab_N,
        "watched": watched_N,
        "liked": watched_N & (generator.random(num) < like_N),
        "watch_probability": watch_N,
        "like_probability": like_N,
        "source": source_N,
    }


def _exposure_weights(
    generator: np.random.Generator, source: Array, *, odds: Array, videos: DemoVideos, days: Array
) -> Array:
    """Log-weights with Gumbel noise (N, V): a row's argmax is a draw from the logging policy."""
    weight_NV = generator.gumbel(size=odds.shape)
    popular_N, taste_N = (source == SOURCES.index(name) for name in ("popular", "taste"))
    weight_NV[popular_N] += videos.popularity
    noisy_NV = odds + generator.normal(0, 1.0, odds.shape)
    weight_NV[taste_N] += noisy_NV[taste_N]
    age_NV = days[:, None] - videos.uploaded_day
    weight_NV += np.log(_NEW_BOOST) * ((videos.uploaded_day >= 0) & (age_NV < _NEW_DAYS))
    weight_NV[age_NV < 0] = -np.inf
    return np.asarray(weight_NV)


def _sessions(generator: np.random.Generator, num: int, days: int) -> tuple[Array, Array, Array]:
    """Times, increasing, tabs and places in a session of one viewer's exposures; all (num,)."""
    sessions = -(-num // _SESSION)
    # Most people watch in the evening; all is over before midnight.
    start = generator.integers(days, size=sessions) + generator.triangular(6, 20, 23, sessions) / 24
    gaps_s = generator.uniform(8, 60, (sessions, _SESSION))
    moments = np.sort(start)[:, None] + gaps_s.cumsum(1) / 86_400
    tabs = generator.choice(len(TABS), sessions, p=_TAB_SHARES)
    kept = np.sort(generator.permutation(sessions * _SESSION)[:num])  # some sessions end early
    row, position = np.divmod(kept, _SESSION)
    order = np.argsort(moments.ravel()[kept], kind="stable")
    return moments.ravel()[kept][order], tabs[row][order], position[order]


def _upload_days(world: WorldSettings, generator: np.random.Generator) -> tuple[Array, Array]:
    """When each video came (V,), and whether that was after training ended (V,)."""
    num = world.num_videos
    early = generator.uniform(0, world.valid_from_day - 1, num)
    uploaded_day = np.where(generator.random(num) < 0.6, -1.0, early)
    cold_rows = generator.permutation(num)[: round(num * world.cold_share)]
    valid_rows, test_rows = np.split(cold_rows, [len(cold_rows) // 4])
    uploaded_day[valid_rows] = generator.uniform(
        world.valid_from_day, world.test_from_day, len(valid_rows)
    )
    late = generator.uniform(0, world.test_days * 0.4, len(test_rows))
    uploaded_day[test_rows] = world.test_from_day + late
    return uploaded_day, np.isin(np.arange(num), cold_rows)


def _draw(generator: np.random.Generator, log_weight: Array) -> Array:
    """One column a row, by its log-weight."""
    return np.asarray((log_weight + generator.gumbel(size=log_weight.shape)).argmax(1))


def _sigmoid(log_odds: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-log_odds)))


def _zipf_log(num: int, power: float) -> Array:
    """Log of Zipf's weights, most frequent first."""
    return np.asarray(-power * np.log(np.arange(1, num + 1)))


def _num_pairs() -> int:
    return len(APPEARANCES) * len(MOTIONS)
