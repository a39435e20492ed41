"""The command line: one command a stage, `run` for all of them, `demo` for newcomers."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from os.path import expanduser
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rich.console import Console
from rich.table import Table

from recsys.config.data import DecodeConfig
from recsys.config.run import ContentConfig, RunConfig, ServeConfig, load_config
from recsys.config.text import absolute, parse_section
from recsys.errors import InputError, find_input_error
from recsys.live.command import add_events_command
from recsys.stopping import Stopped, end_process, stoppable, told

if TYPE_CHECKING:
    from recsys.evaluation.report.schema import Report, Shown, Tested

# Names hold what rich would take for markup: `run [v1]`.
console = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)

RUN_HELP = """\
Runs prepare → decode → train → evaluate → publish on your own data. A stage whose output is there
and whose inputs and settings are unchanged is skipped.

--config names a YAML file that maps your columns to roles:

  run: runs/mine                       # where everything goes: a path or URI
  data:
    events: events.parquet             # one row an exposure or a viewing
    columns: {user: user_id, video: video_id, time: time_ms, positive: clicked, tasks: [clicked]}
    videos: videos.parquet             # optional: files, creators, tags, durations
    video_columns: {video: video_id, uri: path, creator: author, categories: [tag]}
  split: {kind: time, valid_from: 2024-05-01, test_from: 2024-05-03}

Settings may be given after it as key=value, e.g. train.epochs=3 model.dim=32. A name or path is
taken as typed (quote it for the shell alone); lists are [a, b], no value is null.
Afterwards: RUN/report.json holds every figure, `recsys serve --config …` answers over HTTP.
"""

REFRESH_HELP = """\
Prepares the events of now, the live log's among them, trains from the model that serves on, and
compares the two on the same test users. The new model is published if it is not worse than
refresh.allowed_loss says, and servers change to it by themselves; otherwise the old one stays. Both
end with status 0, and RUN/refresh/report.json says which it was. Stopped and started again, the
same refresh goes on. So that the test moves with the days, give the split in days:

  split: {kind: time, valid_days: 1, test_days: 1}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: Its arguments; without them those of the process, which a signal then ends.

    Returns:
        The exit status: 0, 2 for wrong input, 1 for a failure, 130 or 143 after a signal.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("recsys").setLevel(logging.INFO)
    arguments = read_arguments(argv)
    try:
        with stoppable():
            arguments.command(arguments)
    except Stopped as stop:
        print(f"recsys: {stop}", file=sys.stderr)
        if argv is None:
            end_process(stop.status)
        return stop.status
    except Exception as error:
        return _failed(error, debug=arguments.debug)
    return 0


def _failed(error: Exception, *, debug: bool) -> int:
    """Says what went wrong and returns the exit status; what nobody foresaw is raised again."""
    wrong_input = find_input_error(error)
    if wrong_input is not None:
        print(f"recsys: {_one_line(wrong_input)}", file=sys.stderr)
        return 2
    if debug or not isinstance(error, RuntimeError | OSError):
        raise error
    print(f"recsys: {_one_line(error)} (--debug shows the traceback)", file=sys.stderr)
    return 1


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def read_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """A command and its arguments, with settings before, between and after its options."""
    parser = make_parser()
    arguments, rest = parser.parse_known_args(argv)
    if not all("=" in text and text[0] != "-" for text in rest) or "settings" not in arguments:
        # argparse takes positional arguments from one place alone, and leaves those elsewhere.
        return parser.parse_args(argv)
    arguments.settings += rest
    return arguments


def make_parser() -> argparse.ArgumentParser:
    """All commands with their arguments."""
    parser = argparse.ArgumentParser(prog="recsys", description=__doc__)
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="make the demo world, run the whole chain, serve it")
    demo.add_argument("--once", action="store_true", help="ask the endpoint once, then stop")
    demo.add_argument("--out", type=expanduser, default="runs/demo", help="run folder (runs/demo)")
    demo.add_argument("--host", default="127.0.0.1")
    demo.add_argument("--port", type=int, default=8000, help="0 takes any free one")
    demo.add_argument("settings", nargs="*", metavar="key=value")
    demo.set_defaults(command=_demo)
    _stage_parser(commands, "run", "all stages on your own data", _run, RUN_HELP)
    for name, text in (
        ("prepare", "events and catalogue into timelines"),
        ("train", "the model, on Ray Train"),
        ("evaluate", "metrics beside the baselines"),
        ("publish", "the bundle that a server loads"),
    ):
        stage = _stage_parser(commands, name, text, _one_stage)
        stage.set_defaults(stage=name)
        if name == "evaluate":
            stage.add_argument("--against", help="run folder whose model is compared with this")
    decode = _stage_parser(commands, "decode", "video files into clips", _decode, required=False)
    decode.add_argument(
        "--videos", type=expanduser, help="folder, glob or Parquet file of videos, without a config"
    )
    decode.add_argument("--column", default="uri", help="column of addresses in the Parquet file")
    decode.add_argument("--encoder", default="efficientnet_lite0", help="for decode.features=true")
    decode.add_argument("--out", type=expanduser, help="output folder, with --videos")
    served = _stage_parser(commands, "serve", "the HTTP endpoint", _serve, required=False)
    served.add_argument(
        "--bundle", type=expanduser, help="run folder, bundles folder or one version"
    )
    served.add_argument("--host")
    served.add_argument("--port", type=int)
    _stage_parser(commands, "refresh", "a new model, if it is not worse", _refresh, REFRESH_HELP)
    _add_tune_command(commands)
    listed = commands.add_parser("settings", help="every setting: type, default, bounds, meaning")
    listed.add_argument("prefix", nargs="?", default="", help="e.g. train, or train.lr")
    listed.add_argument("--json", action="store_true", help="for programs")
    listed.set_defaults(command=_settings)
    add_events_command(commands)
    return parser


def _add_tune_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    sweep = _stage_parser(commands, "tune", "search hyperparameters, on Ray Tune", _tune)
    sweep.add_argument(
        "--space", type=expanduser, required=True, help="e.g. tuning/spaces/quick.yaml"
    )
    how = sweep.add_mutually_exclusive_group()
    how.add_argument("--resume", action="store_true", help="refuse to begin: go on with a sweep")
    how.add_argument("--anew", action="store_true", help="remove the run folder's earlier sweep")
    how.add_argument(
        "--dry-run",
        action="store_true",
        help="say what would run, on what and for how long; run nothing",
    )


def _stage_parser(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    text: str,
    command: Callable[[argparse.Namespace], None],
    description: str | None = None,
    *,
    required: bool = True,
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=description or f"{text[0].upper()}{text[1:]}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", type=expanduser, required=required, help="the run's YAML file")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings to change")
    parser.set_defaults(command=command)
    return parser


def _run(arguments: argparse.Namespace) -> None:
    from recsys.pipeline import STAGES

    config = load_config(arguments.config, arguments.settings)
    run_all(config, [stage.name for stage in STAGES])


def run_all(config: RunConfig, names: Sequence[str]) -> None:
    """Runs stages and prints each one's table."""
    from recsys.data.run_folder import RunFolder
    from recsys.pipeline import run_stages

    run_stages(config, names, show=print_report)
    console.print(f"report: {RunFolder(config.run).report}")


def _refresh(arguments: argparse.Namespace) -> None:
    from recsys.refresh import refresh

    with told("in the refresh; the same command goes on with it"):
        refresh(load_config(arguments.config, arguments.settings), show=print_report)


def _one_stage(arguments: argparse.Namespace) -> None:
    config = load_config(arguments.config, arguments.settings)
    run_all(config, [arguments.stage])
    if getattr(arguments, "against", None):
        from recsys.evaluation.report.files import compare_runs
        from recsys.run_lock import only_writer

        with only_writer(config.run):
            rows = compare_runs(config, absolute(arguments.against))
        _print_comparison(rows, arguments.against)


def _decode(arguments: argparse.Namespace) -> None:
    if arguments.config:
        run_all(load_config(arguments.config, arguments.settings), ["decode"])
        return
    if not arguments.videos or not arguments.out:
        raise InputError("decode needs --config RUN.yaml, or --videos and --out")
    from recsys import cluster
    from recsys.decode.sources import find_videos
    from recsys.decode.stage import decode_videos
    from recsys.pipeline import GOES_ON, say

    config = parse_section(DecodeConfig, arguments.settings, "decode")
    content = ContentConfig(encoder=arguments.encoder, train_encoder=False)
    videos = find_videos(arguments.videos, column=arguments.column)
    cluster.connect()
    with told(f"in decode; {GOES_ON}"):
        report = decode_videos(videos, arguments.out, config, content=content, report=say)
    print_report("decode", report["decode"])


def _serve(arguments: argparse.Namespace) -> None:
    if not arguments.config and not arguments.bundle:
        raise InputError("serve needs --config RUN.yaml or --bundle PATH")
    from recsys.serve.app import require_as_published, serve_forever

    if arguments.config:
        config = load_config(arguments.config, arguments.settings)
        bundle, settings = arguments.bundle or config.run, config.serve
        names = [text.partition("=")[0] for text in arguments.settings]
        require_as_published(bundle, config, names)
    else:
        bundle = arguments.bundle
        settings = parse_section(ServeConfig, arguments.settings, "serve")
    serve_forever(
        bundle,
        host=arguments.host or settings.host,
        port=settings.port if arguments.port is None else arguments.port,
        announce=_announce,
        tell=console.print,
        **settings.model_dump(exclude_unset=True, exclude={"host", "port"}),
    )


def _announce(address: str) -> None:
    console.print(f"serving at {address} (page), {address}/docs (API); Ctrl-C stops it")


def _tune(arguments: argparse.Namespace) -> None:
    from recsys.pipeline import BY_NAME, GOES_ON, require_current, run_stage
    from recsys.run_lock import only_writer
    from recsys.tune.checks import require_sweep
    from recsys.tune.space import is_reranking
    from recsys.tune.stage import tune_run

    config = load_config(arguments.config, arguments.settings)
    if arguments.dry_run:
        from recsys.tune.plan import plan_sweep

        print_report("tune, dry run", plan_sweep(config, arguments.space))
        return
    # What could never start is refused before the minutes that the data stages take.
    space = require_sweep(config, arguments.space, resume=arguments.resume, anew=arguments.anew)
    with only_writer(config.run):
        if is_reranking(space):
            # Of other data or another split the model may have learnt what it is measured on.
            require_current(config, ("train", "prepare", "decode"), "a sweep of re-ranking")
        else:
            for name in ("prepare", "decode"):
                run_stage(config, BY_NAME[name])
        with told(f"in the sweep; {GOES_ON}"):
            report = tune_run(config, arguments.space, resume=arguments.resume, anew=arguments.anew)
    print_report("tune", report)


def _settings(arguments: argparse.Namespace) -> None:
    import dataclasses
    import json

    from recsys.config.settings import describe_settings, find_settings

    settings = find_settings(arguments.prefix)
    if arguments.json:
        print(json.dumps([dataclasses.asdict(setting) for setting in settings], indent=2))
    else:
        print(describe_settings(settings, width=min(console.width, 100)))


def _demo(arguments: argparse.Namespace) -> None:
    from recsys.pipeline import STAGES
    from recsys.ray_address import require_answer
    from recsys.serve.app import ask_once, running, serve_forever
    from recsys.serve.ingress import prepare_ingress

    require_answer()  # before the minutes that the world takes
    prepare_ingress()  # before the first stage starts Ray
    config = _demo_world(Path(arguments.out), arguments.settings)
    run_all(config, [stage.name for stage in STAGES])
    if not arguments.once:
        serve_forever(
            config.run,
            host=arguments.host,
            port=arguments.port,
            announce=_announce,
            tell=console.print,
        )
        return
    with running(config.run, host=arguments.host, port=0) as address:
        answer = ask_once(address)
    items = ", ".join(item["video_id"] for item in answer["items"])
    console.print(f"asked {address}: {answer['user_id']} is recommended {items}")


def _demo_world(out: Path, settings: Sequence[str]) -> RunConfig:
    """Makes the demo's world in its run folder, unless it is there; returns the run's config."""
    from recsys.data.run_folder import RunFolder
    from recsys.data.storage import remove
    from recsys.demo.viewers import WorldSettings
    from recsys.demo.world import make_world
    from recsys.progress import progress
    from recsys.run_lock import only_writer

    folder, world, shown = out / "world", WorldSettings(), 0
    again = told("in the demo's world; the same command makes it anew")
    with (
        only_writer(str(out)),
        again,
        progress("demo: rendering clips", total=world.num_videos) as advance,
    ):

        def step(done: int, total: int) -> None:
            nonlocal shown
            advance(done - shown)
            shown = done

        made = make_world(folder, world=world, progress=step)
        config = load_config(str(folder / "run.yaml"), [f"run={out}", *settings])
        if made:  # clips of another world may have lain under the same names
            remove(RunFolder(config.run).decode)
    console.print(f"demo world: {folder} {'made' if made else 'is there'}")
    return config


UNTOLD = ("fingerprint", "history", "partitions", "last_event_ms", "prepared")
"""Entries of reports that say nothing to people."""


def print_report(name: str, report: Mapping[str, object]) -> None:
    """A stage's figures as a short table."""
    if name == "evaluate":
        _print_evaluation(cast("Report", report))
        return
    table = Table(title=name, title_justify="left", show_header=False, box=None)
    for key, value in report.items():
        if key not in UNTOLD and not _is_empty(value):
            table.add_row(key, _plain(value))
    console.print(table)


def _is_empty(value: object) -> bool:
    # Nothing is compared: a number of NumPy's makes an array of a comparison with a list.
    return value is None or (isinstance(value, dict | list) and not value)


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list) and all(isinstance(item, dict) for item in value):
        return "; ".join(map(_plain, value))
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _print_comparison(rows: Sequence[Tested | Shown], against: str) -> None:
    table = Table(title=f"against {against}", title_justify="left", box=None)
    for heading in ("metric", "users", "ours", "theirs", "difference", "95 % interval", "p (Holm)"):
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    for row in rows:
        table.add_row(
            row["metric"],
            f"{row['users']:,}",
            *(f"{row[name]:.4f}" for name in ("ours", "theirs")),
            f"{row['difference']:+.4f}",
            "" if row["low"] is None else f"{row['low']:+.4f} to {row['high']:+.4f}",
            "not tested" if row["p_holm"] is None else f"{row['p_holm']:.3f}",
        )
    console.print(table)


def _print_evaluation(report: Report) -> None:
    """A row a ranker: main metrics of all videos, and the headline metric of warm and cold ones."""
    from recsys.evaluation.metrics import table as metric_table
    from recsys.evaluation.metrics.accuracy import WARM_AND_COLD
    from recsys.evaluation.report.wording import (
        baseline_lines,
        metric_title,
        ranker_title,
        slice_title,
    )

    rankers, k = report["evaluation"], report["setup"]["headline_k"]
    shown = [f"{metric.name}@{k}" for metric in metric_table.METRICS if metric.is_main]
    parts = [part for part in WARM_AND_COLD if rankers["model"][part]["users"]]
    table = Table(title="evaluate: all videos ranked", title_justify="left", box=None)
    table.pad_edge, table.collapse_padding = False, True  # 80 columns are enough
    table.add_column("ranker")
    headings = [metric_title(name).replace("@", "\n@") for name in shown]
    for heading in (*headings, *(slice_title(part).replace(" ", "\n") for part in parts)):
        table.add_column(heading, justify="right", min_width=6)
    for name, figures in rankers.items():
        cells = [figures["all"].get(metric, figures.get(metric)) for metric in shown]
        cells += [figures[part][f"ndcg@{k}"] for part in parts]
        texts = ["–" if cell is None else f"{cell:.4f}" for cell in cells]
        table.add_row(ranker_title(name), *texts)
    users = [f"{rankers['model'][part]['users']:,}" for part in ("all", *parts)]
    table.add_row("users", users[0], *[""] * (len(shown) - 1), *users[1:])
    console.print(table)
    console.print(
        f"warm, cold: NDCG@{k} with only these relevant; among: and no others in the list"
    )
    for line in baseline_lines(report["setup"]["baselines"]):
        console.print(line)
    for task, figures in rankers["model"].get("tasks", {}).items():
        if figures.get("auc") is not None:
            console.print(f"{task}: AUC {figures['auc']:.4f}, log loss {figures['log_loss']:.4f}")
