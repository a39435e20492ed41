"""`recsys events`: the event log from the command line."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from recsys.config.run import RunConfig, load_config
from recsys.data.run_folder import RunFolder
from recsys.data.storage import is_uri
from recsys.errors import InputError

if TYPE_CHECKING:
    from recsys.live.log.events import EventLog


HELP = """\
The log of what happens while a model is served. It is named by --log, a local path (SQLite) or
postgresql://USER@HOST/NAME (leave the password to PGPASSWORD or ~/.pgpass), or by --config: then it
is the run's own, RUN/live.sqlite.
"""

EXPORT_HELP = """\
Without --training: every event as it is, for `recsys events import`; OUT is a folder of parts, and
a later export into it goes on after the last part. Parts keep what is forgotten or pruned later; to
be rid of it too, delete the folder and export anew.

With --training: OUT is one Parquet file with one row a showing of a video and what came of it, in
the columns that data.columns of --config names (without it user_id, video_id, time_ms, positive,
watched and those of --tasks and --context), for data.events.
"""

FORGET_HELP = """\
Deletes all events of a user and tells every server that follows the log. They stay deleted: events
of before are not taken again, neither from a device that sends late nor from an import. A hash of
the id is kept to know them by.
"""


def add_events_command(commands: Any) -> None:
    """Adds `events` and its own commands to the parser's."""
    raw = argparse.RawDescriptionHelpFormatter
    group = commands.add_parser(
        "events", help="the log of live events", description=HELP, formatter_class=raw
    )
    actions = group.add_subparsers(required=True, metavar="ACTION")

    def add(name: str, text: str, command: Any, description: str = "") -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = actions.add_parser(
            name, help=text, description=description or f"{text}.", formatter_class=raw
        )
        which = parser.add_mutually_exclusive_group(required=True)
        which.add_argument("--log", metavar="ADDRESS", help="a path or postgresql://…")
        which.add_argument("--config", help="the run's YAML file")
        parser.add_argument("--set", nargs="*", default=[], metavar="key=value", dest="settings")
        parser.set_defaults(command=command)
        return parser

    export = add("export", "Write events as Parquet", _export, EXPORT_HELP)
    export.add_argument("out", help="a folder; with --training a file; a path or URI")
    export.add_argument("--training", action="store_true", help="one row a showing")
    export.add_argument("--tasks", nargs="*", default=[], help="labels, without --config")
    export.add_argument("--context", nargs="*", default=[], help="contexts, without --config")
    take = add("import", "Take events from Parquet; what is there is not taken twice", _import)
    take.add_argument("source", help="a file, folder, glob or URI")
    forget = add("forget", "Delete one user's events for good", _forget, FORGET_HELP)
    forget.add_argument("user_id")
    prune = add("prune", "Delete events that happened long ago", _prune)
    prune.add_argument("--days", type=float, required=True, help="the age that is kept")
    add("count", "Say how many events of which types there are", _count)


def _own_log(config: RunConfig) -> str:
    """Where a run's own log is.

    Raises:
        InputError: The run folder is not on this machine.
    """
    if is_uri(config.run):
        raise InputError(
            f"run={config.run}: the event log cannot be kept there; name one with --log, a local "
            "path or postgresql://…"
        )
    return RunFolder(config.run).live_log


def _config(arguments: argparse.Namespace) -> RunConfig | None:
    if arguments.config:
        return load_config(arguments.config, arguments.settings)
    if arguments.settings:
        raise InputError(f"--set {arguments.settings[0]}: there is no --config to change")
    return None


def _open(arguments: argparse.Namespace, config: RunConfig | None, *, create: bool) -> EventLog:
    from recsys.live.log.events import EventLog

    address = arguments.log if config is None else _own_log(config)
    return EventLog(address, create=create)


def _export(arguments: argparse.Namespace) -> None:
    from recsys.live.export.parquet import export_log
    from recsys.live.export.training import default_columns, export_training

    config = _config(arguments)
    if (arguments.tasks or arguments.context) and (config or not arguments.training):
        raise InputError("--tasks and --context go with --training and without --config")
    with _open(arguments, config, create=False) as log, _written(arguments.out):
        if not arguments.training:
            written = export_log(log, arguments.out)
            print(
                f"{arguments.out}: {written.rows:,} rows in {written.parts:,} new parts, "
                f"the log up to seq {written.latest_seq}"
            )
            return
        columns = default_columns(arguments.tasks, arguments.context)
        unit = "ms"
        if config is not None:
            columns, unit = config.data.columns, config.data.time_unit
        exported = export_training(log, arguments.out, columns, time_unit=unit)
    print(f"{arguments.out}: {exported.rows:,} showings of {exported.users:,} users")
    for name, number in sorted(exported.left_out.items()):
        print(f"left out: {name}: {number:,}")


@contextlib.contextmanager
def _written(out: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror or error})") from None


def _import(arguments: argparse.Namespace) -> None:
    from recsys.live.export.parquet import import_log

    with _open(arguments, _config(arguments), create=True) as log:
        told = import_log(log, arguments.source)
    statuses = ", ".join(f"{name} {number:,}" for name, number in told.statuses.items())
    print(f"{told.files:,} files: {statuses or 'no events'}")
    if told.forgotten_users:
        print(f"forgotten users: {told.forgotten_users:,}, {told.deleted:,} events deleted here")
    if told.ignored:
        print(f"columns that no event has: {', '.join(told.ignored)}")


def _forget(arguments: argparse.Namespace) -> None:
    with _open(arguments, _config(arguments), create=False) as log:
        print(f"{arguments.user_id}: {log.forget(arguments.user_id):,} events deleted")


def _prune(arguments: argparse.Namespace) -> None:
    from recsys.live.log.event import DAY_MS, iso

    if not 0 < arguments.days < 100_000:
        raise InputError(f"--days={arguments.days:g}: allowed is a number of days above 0")
    with _open(arguments, _config(arguments), create=False) as log:
        before_ms = log.clock() - int(arguments.days * DAY_MS)
        deleted = log.prune(before_ms)
    print(f"{deleted:,} events of before {iso(before_ms)} deleted")


def _count(arguments: argparse.Namespace) -> None:
    from recsys.live.log.event import iso

    with _open(arguments, _config(arguments), create=False) as log:
        counts = log.counts()
    print(f"{counts.events:,} events of {counts.users:,} users, seq up to {counts.latest_seq}")
    for name, number in counts.types.items():
        print(f"{name}: {number:,}")
    if counts.first_ms is not None and counts.last_ms is not None:
        print(f"from {iso(counts.first_ms)} to {iso(counts.last_ms)}")
    if counts.forgotten_users:
        print(f"forgotten users: {counts.forgotten_users:,}")
