"""What a service of a given size takes: machines, memory, storage, network and money.

    python clusters/capacity.py > clusters/CAPACITY.md
    python clusters/capacity.py --users 1e6 --videos 1e5 --events-a-day 5e6 --measured serve=0.9

The figures are those of one core, measured (tests/benchmarks/README.md names the machine and the
commands); the rest is arithmetic, which this page shows. Your own figures take their place with
`--measured NAME=VALUE`, your own prices with `--price NAME=VALUE`.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

DAY_S, MONTH_DAYS, GB = 86_400, 30, 1e9


@dataclass(frozen=True)
class Figure:
    """A number that the arithmetic starts from."""

    value: float
    unit: str
    source: str
    """The row of a measured table, or why it is what it is."""


MEASURED = {
    "serve": Figure(
        1.4, "ms of a core a list", "serving: each user's first request through Serve, 716/s"
    ),
    "index": Figure(
        3.7, "ms of a core a search of a million videos", "catalogue: a million videos, all, 3.7"
    ),
    "log": Figure(9_371, "events/s", "live: PostgreSQL, calls of 100, the log alone, second run"),
    "http": Figure(
        4_982, "events/s of a core", "live: PostgreSQL, calls of 100, … over HTTP, second run"
    ),
    "follow": Figure(
        49.4, "µs of a core an event", "live: PostgreSQL, followed by the thousand, 49.4"
    ),
    "prepare": Figure(
        228_800, "events/s of a core", "scale: prepare, 40 million events, 228,800 events/s"
    ),
    "train": Figure(10_751, "events/s of a core", "training: one worker alone, 10,751 events/s"),
    "two_workers": Figure(1.85, "× one worker", "training: two workers over one, 1.85 ×"),
    "decode": Figure(0.96, "videos/s of a core", "decode: one core, uniform, 0.96 and 0.99"),
}
ASSUMED = {
    "peak": Figure(3, "× the mean", "the busiest hour of the day"),
    "shown": Figure(10, "events a list", "a list is shown whole, each place is an event"),
    "days": Figure(30, "days", "events that a training learns from"),
    "passes": Figure(2, "passes a day", "one of a warm start, one of the refit"),
    "new": Figure(0.01, "of the catalogue a day", "new videos, which are decoded"),
    "history": Figure(200, "events a user", "model.max_history, where users have had as many"),
    "busy": Figure(0.6, "of a core", "how full cores may be at the peak"),
    "event_bytes": Figure(300, "B an event", "a row of the log with its indexes"),
    "history_bytes": Figure(182, "B an event", "38 count features of 4 B, ids, labels, times"),
    "video_bytes": Figure(
        64 * 4 + 32 + 48 * 8, "B a video", "a vector, its codes of 4 bits, 48 counts"
    ),
    "clip_bytes": Figure(16 * 64 * 2, "B a video", "16 frames of features of 64 numbers"),
    "answer_bytes": Figure(2_000, "B a list", "ten videos with their reasons"),
    "node_gb": Figure(128, "GB", "memory of a machine"),
    "node_cores": Figure(16, "cores", "of a machine"),
}
PRICES = {
    "core": Figure(0.0425, "$ a core and hour", "c5.4xlarge, on demand, us-west-2"),
    "object": Figure(0.023, "$ a GB and month", "S3 standard"),
    "disk": Figure(0.08, "$ a GB and month", "gp3"),
    "egress": Figure(
        0.09, "$ a GB", "to the internet, the first 10 TB a month; 0.05 above 150 TB a month"
    ),
}
PRICES_OF = "November 2025"
GIVEN = "given"
"""Where a figure is from that the reader gave."""


@dataclass(frozen=True)
class Load:
    """How large the service is."""

    users: float
    videos: float
    events_a_day: float


@dataclass(frozen=True)
class Part:
    """What a part of the service takes."""

    name: str
    cores: float
    """Cores that it holds all day."""
    memory_gb: float
    """Of one machine that runs it."""
    storage_gb: float
    dollars: float
    """A month."""
    how: str
    """The arithmetic in one line."""


@dataclass(frozen=True)
class Limit:
    """Something that one copy of it cannot carry beyond a point."""

    name: str
    need: float
    can: float
    unit: str
    change: str
    """What to do then."""

    @property
    def ratio(self) -> float:
        """How many times over it is needed; above 1 the design breaks here."""
        return self.need / self.can


class Capacity:
    """The arithmetic, for one load and one set of figures."""

    def __init__(self, load: Load, figures: dict[str, Figure]) -> None:
        self.load = load
        self.figures = figures

    def __getitem__(self, name: str) -> float:
        return self.figures[name].value

    @property
    def peak_events(self) -> float:
        """Events a second in the busiest hour."""
        return self.load.events_a_day / DAY_S * self["peak"]

    @property
    def lists_a_day(self) -> float:
        """Recommended lists a day."""
        return self.load.events_a_day / self["shown"]

    @property
    def list_ms(self) -> float:
        """Milliseconds of a core a list; a search looks at the codes of all videos."""
        return self["serve"] + self["index"] * self.load.videos / 1e6

    @property
    def following(self) -> float:
        """Cores that reading the whole log takes in the busiest hour."""
        return self.peak_events * self["follow"] / 1e6

    @property
    def learnt_events(self) -> float:
        """Events that a training learns from."""
        return self.load.events_a_day * self["days"]

    @property
    def histories_gb(self) -> float:
        """The users' last events in a bundle, which a machine maps from its disk."""
        events = min(self["history"], self.learnt_events / self.load.users)
        return self.load.users * events * self["history_bytes"] / GB

    @property
    def catalogue_gb(self) -> float:
        """What a machine that serves holds in memory of the videos."""
        return self.load.videos * self["video_bytes"] / GB

    def _always(self, cores: float) -> float:
        return cores * 24 * MONTH_DAYS * self["core"]

    def parts(self) -> list[Part]:
        """The parts of the service, in the order that data flow."""
        return [self._log(), self._serve(), self._prepare(), self._decode(), self._train()]

    def _log(self) -> Part:
        copies = math.ceil(self.peak_events / self["log"])
        cores = copies * self["node_cores"]
        storage = self.learnt_events * self["event_bytes"] / GB
        dollars = self._always(cores) + storage * self["disk"]
        how = (
            f"{self.peak_events:,.0f} events/s at the peak are {copies} databases; "
            f"{self['days']:.0f} days of rows"
        )
        return Part("event log", cores, self["node_gb"], storage, dollars, how)

    def _serve(self) -> Part:
        lists = self.lists_a_day / DAY_S * self["peak"]
        answering = lists * self.list_ms / 1000 + self.peak_events / self["http"]
        room = self["busy"] * self["node_cores"] - self.following
        machines = max(2, math.ceil(answering / max(room, 1)))
        cores = machines * self["node_cores"]
        disk = machines * self.histories_gb
        traffic = self.lists_a_day * MONTH_DAYS * self["answer_bytes"] / GB
        dollars = self._always(cores) + disk * self["disk"] + traffic * self["egress"]
        how = (
            f"{lists:,.0f} lists/s × {self.list_ms:.1f} ms and the events' own requests: "
            f"{answering:.1f} cores, {self['busy']:.0%} full, beside one follower of the log "
            f"a machine; histories on each of {machines} disks; {traffic:,.0f} GB of answers "
            "a month"
        )
        return Part("endpoint", cores, self.catalogue_gb + 8, disk, dollars, how)

    def _prepare(self) -> Part:
        hours = self.learnt_events / self["prepare"] / 3600
        storage = self.learnt_events * (self["event_bytes"] / 6 + 40) / GB
        dollars = hours * MONTH_DAYS * self["core"] + storage * self["object"]
        how = f"{hours:,.1f} core-hours a night over {self.learnt_events:,.2g} events"
        return Part("prepare", hours / 24, 32, storage, dollars, how)

    def _decode(self) -> Part:
        new = self.load.videos * self["new"]
        hours, first = (count / self["decode"] / 3600 for count in (new, self.load.videos))
        storage = self.load.videos * self["clip_bytes"] / GB
        dollars = hours * MONTH_DAYS * self["core"] + storage * self["object"]
        how = (
            f"{new:,.0f} new videos a day, {hours:,.1f} core-hours; the catalogue at first "
            f"{first:,.0f} core-hours, {first * self['core']:,.0f} $ once"
        )
        return Part("decode", hours / 24, 32, storage, dollars, how)

    def _train(self) -> Part:
        efficiency = self["two_workers"] / 2
        events = self.learnt_events * self["passes"]
        hours = events / self["train"] / efficiency / 3600
        # Rows of 64 numbers with one of Adagrad's each, twice: the checkpoint is kept beside.
        tables = self.load.videos * (64 + 1) * 4 / GB
        dollars = hours * MONTH_DAYS * self["core"] + 4 * tables * self["object"]
        how = (
            f"{hours:,.0f} core-hours a night: {self['passes']:.0f} passes, workers at "
            f"{efficiency:.0%} of one alone"
        )
        return Part("train", hours / 24, tables + 16, 4 * tables, dollars, how)

    def limits(self) -> list[Limit]:
        """Where one copy of something is not enough, the worst first."""
        train_hours = self._train().cores * 24
        loads = [
            Limit(
                "events that one database takes",
                self.peak_events,
                self["log"],
                "events/s",
                "a log for each group of users, by a hash of the user id",
            ),
            Limit(
                "events that one replica follows",
                self.following,
                1,
                "cores",
                "one follower a machine that adds up for its replicas, or replicas of a group of "
                "users that follow that group's log alone",
            ),
            Limit(
                "histories on one machine's disk",
                self.histories_gb,
                2_000,
                "GB",
                "groups of replicas that hold a part of the users each, or histories without count "
                "features, which the server makes again (a sixth of the bytes)",
            ),
            Limit(
                "the catalogue in one machine's memory",
                self.catalogue_gb,
                self["node_gb"] / 2,
                "GB",
                "vectors in 8 bits, or an index in parts on several machines",
            ),
            Limit(
                "cores that one night's training takes",
                train_hours / 6,
                128,
                "cores for 6 hours",
                "GPUs (train.device=cuda), fewer days, or a sample of the users",
            ),
        ]
        return sorted(loads, key=lambda limit: -limit.ratio)


def short(value: float) -> str:
    """A number for people.

    >>> [short(value) for value in (0.023, 2.2, 464, 1234567)]
    ['0.023', '2.2', '464', '1,234,567']
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:,.3g}"


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def figures_table(figures: dict[str, Figure]) -> str:
    """Name, value and source of each figure."""
    rows = [(f"`{n}`", f"{short(f.value)} {f.unit}", f.source) for n, f in figures.items()]
    return table(("name", "value", "from"), rows)


PAGE = """\
# Capacity

Made by `python clusters/capacity.py`, which takes a size, figures and prices of your own; a test
holds the page to it.

**{users} users, {videos} videos, {events} events a day: {dollars} $ a month**, {machines} machines
of {cores} cores if all stood all day. Videos' own delivery is not in it: a CDN's traffic is larger
than all of this.

## What each part takes

{parts}

## Where it breaks first

How many times over one copy is needed, the worst first; above 1 it breaks, and the last column says
what to change then.

{limits}

## Measured, on one core

{measured}

## Assumed

{assumed}

## Prices

List prices of {prices_of}, stated and not fetched.

{prices}
"""


def page(load: Load, groups: Sequence[dict[str, Figure]]) -> str:
    """The whole page; `groups` are what was measured, what is assumed, and prices."""
    capacity = Capacity(load, {name: figure for group in groups for name, figure in group.items()})
    parts = capacity.parts()
    whole = sum(part.cores for part in parts)
    rows = [
        (p.name, *(short(v) for v in (p.cores, p.memory_gb, p.storage_gb, p.dollars)), p.how)
        for p in parts
    ]
    limits = [
        (
            limit.name,
            f"{limit.ratio:.2g} ×",
            f"{short(limit.need)} of {short(limit.can)} {limit.unit}",
            limit.change,
        )
        for limit in capacity.limits()
    ]
    headings = ("part", "cores all day", "memory of a machine, GB", "storage, GB", "$ a month")
    measured, assumed, prices = map(figures_table, groups)
    return PAGE.format(
        users=short(load.users),
        videos=short(load.videos),
        events=short(load.events_a_day),
        dollars=short(sum(part.dollars for part in parts)),
        machines=short(math.ceil(whole / capacity["node_cores"])),
        cores=short(capacity["node_cores"]),
        parts=table((*headings, "how"), rows),
        limits=table(("limit", "needed", "of", "what to change"), limits),
        measured=measured,
        assumed=assumed,
        prices_of=PRICES_OF,
        prices=prices,
    )


def changed(figures: dict[str, Figure], given: Sequence[str]) -> dict[str, Figure]:
    """The figures with some of the reader's own.

    Raises:
        SystemExit: A name is not among them, or a value is no number above 0.
    """
    own = dict(figures)
    for text in given:
        name, _, value = text.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if name not in figures or not 0 < number < math.inf:
            raise SystemExit(
                f"capacity: {text}: give NAME=NUMBER above 0, NAME one of {', '.join(figures)}"
            )
        own[name] = Figure(number, figures[name].unit, GIVEN)
    return own


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--users", type=float, default=100e6)
    parser.add_argument("--videos", type=float, default=10e6)
    parser.add_argument("--events-a-day", type=float, default=1e9)
    for name in ("measured", "assumed", "price"):
        parser.add_argument(f"--{name}", nargs="*", default=[], metavar="NAME=VALUE")
    given = parser.parse_args(argv)
    groups = (
        changed(MEASURED, given.measured),
        changed(ASSUMED, given.assumed),
        changed(PRICES, given.price),
    )
    print(page(Load(given.users, given.videos, given.events_a_day), groups), end="")


if __name__ == "__main__":
    main()
