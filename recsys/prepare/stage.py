"""prepare: the user's Parquet in, a catalogue, vocabularies and per-user timelines out.

Two streaming passes by Ray Data, so that the events never need to fit in memory: the first checks
the events and spills them into partitions by a hash of the user, the second makes the timelines of
one partition at a time. The catalogue and its vocabulary are held by the driver.
"""

from __future__ import annotations

from collections import Counter

from recsys import cluster
from recsys.config.run import RunConfig
from recsys.data.run_folder import RunFolder
from recsys.data.storage import exists, join, remove, write_table
from recsys.data.users import UserRows
from recsys.data.vectors import write_vectors
from recsys.data.vocab import Vocab
from recsys.errors import InputError
from recsys.prepare import partitions, tables
from recsys.prepare.catalogs import UserDraft, build_catalog, read_users
from recsys.prepare.hourly_parts import write_counts
from recsys.prepare.showings import Showings, live_videos
from recsys.prepare.spill import Spilled, num_partitions, spill_events
from recsys.prepare.times import EventTimes, cuts_ms, date_text


def prepare(config: RunConfig, out: str) -> dict[str, object]:
    """Runs the stage into the folder `out`, RUN/prepare, and returns its report.

    With `data.live` it reads the copy of the log that `live.export.snapshot.renew_showings` made.

    Raises:
        InputError: A file, column, type or value is wrong, or nothing is left to learn from.
    """
    data = config.data
    files, times = tables.check_events(data)
    folder = RunFolder(config.run)
    if data.live is not None:
        files = [*files, *tables.check_showings(folder.showings, data)]
    users = read_users(data)
    # Mistakes of these show before the long part.
    build_catalog(data, (), _live_videos(config))
    cuts_ms(config.split, times.unit, newest_ms=0)
    cluster.connect()
    spill = join(out, ".spill")
    for part in (*written_parts(folder), spill):
        remove(part)
    try:
        return _prepare(config, spill, files=files, times=times, users=users)
    finally:
        remove(spill)


def written_parts(folder: RunFolder) -> tuple[str, ...]:
    """What prepare makes in its folder of its inputs, and all that it ever removes from it."""
    tables = (folder.videos, folder.users, folder.vectors, folder.lessons)
    return (folder.report_of("prepare"), folder.timelines, folder.vocabs, folder.counts, *tables)


def _prepare(
    config: RunConfig,
    spill: str,
    *,
    files: list[tables.TableFile],
    times: EventTimes,
    users: UserDraft,
) -> dict[str, object]:
    data, folder = config.data, RunFolder(config.run)
    total = num_partitions(config.prepare.partitions, sum(file.num_rows for file in files))
    spilled = spill_events(config, files, times, spill, num_partitions=total)
    cuts = cuts_ms(config.split, times.unit, spilled.newest_ms)
    live_path = _live_videos(config)
    catalog = build_catalog(data, spilled.videos.all(), live_path)
    catalog.vocabs.update(
        {f"context_{name}": Vocab(sorted(spilled.contexts[name])) for name in data.columns.context}
    )
    known = UserRows.from_table(users.table)
    counts = partitions.write_timelines(
        config,
        spill=spill,
        total=total,
        vocabs=catalog.vocabs,
        durations=catalog.durations,
        things=catalog.things(),
        cuts_ms=cuts,
        users=known,
    )
    require_events(counts, config, cuts)
    write_counts(config, spill=spill)
    if known is not None:
        catalog.vocabs["user"] = users.values
    for name, vocab in catalog.vocabs.items():
        vocab.write(folder.vocab(name))
    write_table(catalog.with_counts(counts), folder.videos)
    write_table(catalog.details, folder.details)
    if catalog.lessons is not None:
        write_table(catalog.lessons.lessons.to_table(), folder.lessons)
    if catalog.vectors is not None:
        write_vectors(catalog.vectors, folder.vectors)
    write_table(users.table, folder.users)
    live = Showings.read(folder.showings) if data.live is not None else None
    return {
        "files": len(files),
        **({"live": live.report()} if live else {}),
        **({"live_videos": live_videos(live_path)} if live_path else {}),
        **_event_report(spilled, counts, times),
        **catalog.report(counts),
        "dropped_user_rows": users.dropped,
    }


def _live_videos(config: RunConfig) -> str | None:
    """The copy of the videos that came live; None where the run reads none."""
    path = RunFolder(config.run).live_videos
    return path if config.data.live is not None and exists(path) else None


def _event_report(
    spilled: Spilled, counts: partitions.SplitCounts, times: EventTimes
) -> dict[str, object]:
    """The events' part of the stage's report: times, rows left out, sizes of the splits."""
    duplicates = spilled.rows - spilled.dropped.total() - sum(counts.splits)
    return {
        "time_unit": times.unit,
        "time_unit_told_by": times.told_by,
        "first_event": date_text(counts.first_time_ms),
        "last_event": date_text(counts.last_time_ms),
        "last_event_ms": counts.last_time_ms,
        "rows": spilled.rows,
        "dropped": dict(spilled.dropped + Counter({"duplicate": duplicates})),
        "read_otherwise": dict(spilled.read_otherwise),
        "events": dict(zip(("train", "valid", "test"), counts.splits, strict=True)),
        "users": counts.users,
        "users_with_one_event": counts.single_event_users,
        "partitions": counts.timelines,
    }


def require_events(
    counts: partitions.SplitCounts, config: RunConfig, cuts: tuple[float, float] | None
) -> None:
    """Refuses a split that leaves nothing to learn from, to choose by or to measure on.

    Args:
        counts: What the timelines hold.
        config: Names the settings in an error.
        cuts: When validation and test begin, in milliseconds; None for leave-one-out.

    Raises:
        InputError: A part of the split has no events, or no positive ones.
    """
    names = ("train", "valid", "test")
    positives: list[int] = counts.positives_SN.sum(1).tolist()
    for kind, numbers in (("events", counts.splits), ("positive events", positives)):
        for name, number in zip(names, numbers, strict=True):
            if not number:
                there = ", ".join(f"{n} {i}" for n, i in zip(names, numbers, strict=True))
                raise InputError(
                    f"data.events={config.data.events}: no {name} {kind} ({kind}: {there}); "
                    f"{_remedy(counts, config, cuts)}"
                )


def _remedy(
    counts: partitions.SplitCounts, config: RunConfig, cuts: tuple[float, float] | None
) -> str:
    if cuts is None:
        return (
            "split.kind=leave_one_out tests users with 2 positive events and validates with 3; "
            "check data.columns.positive or take split.kind=time"
        )
    first, last = counts.first_time_ms, counts.last_time_ms
    names = ("valid_from", "test_from")
    if config.split.valid_days is not None:
        names = ("valid_days", "test_days")
    told = [
        f"split.{name}={getattr(config.split, name)}"
        + (" lies before all events" if cut <= first else "")
        + (" lies after all events" if cut > last else "")
        for name, cut in zip(names, cuts, strict=True)
    ]
    return (
        f"{' and '.join(told)}; they lie from {date_text(first)} to {date_text(last)} UTC, in ms "
        f"{first} to {last}; move the cuts or check data.columns.positive"
    )
