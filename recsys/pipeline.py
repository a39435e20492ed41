"""The stages of a run in order, and which of them are still current.

A stage's fingerprint is a hash of its settings, its input files and the fingerprints of the stages
before it. It stands in the stage's report, which is written last: a stage whose report has the
fingerprint that it would have now is skipped.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from recsys.bundle.versions import FORMAT, find_bundle, newest_other, read_manifest
from recsys.config.run import RunConfig, dump_config
from recsys.data.run_folder import REPORT, RunFolder
from recsys.data.storage import exists, filesystem, join, read_json, remove, write_json, write_text
from recsys.errors import InputError
from recsys.prepare.showings import Showings
from recsys.prepare.tables import parquet_files
from recsys.run_lock import only_writer
from recsys.schema import PREPARE_FORMAT
from recsys.stopping import told

logger = logging.getLogger(__name__)

StageReport = Mapping[str, object]
"""What a stage writes into its report.json."""

ASIDE = ("seconds", "fingerprint", "evaluation", "trained", "prepared")
"""Entries of a stage's report that RUN/report.json has elsewhere, or not at all."""
GOES_ON = "the same command goes on from here"
STARTS_ANEW = "the same command starts this stage anew and skips those that are done"


@dataclass(frozen=True)
class Stage:
    """One stage: its name, its folder in the run, and what it depends on."""

    name: str
    folder: str
    settings: Callable[[RunConfig], object]
    """The settings whose change makes its output out of date."""
    after: tuple[str, ...]
    """Stages whose output it reads."""
    run: Callable[[RunConfig, str, str], StageReport]
    """(config, folder, fingerprint) → report."""
    renew: Callable[[RunConfig], None] = lambda config: None
    """Brings up to date what it reads besides files, before it is asked whether it is current."""
    goes_on: bool = False
    """Whether it goes on where it was stopped; a stage that does not starts anew."""


def _prepare(config: RunConfig, out: str, fingerprint: str) -> StageReport:
    from recsys.prepare.stage import prepare

    return prepare(config, out)


def _renew_showings(config: RunConfig) -> None:
    # Its libraries are loaded by those alone who keep a log.
    if config.data.live is None:
        for copy in (RunFolder(config.run).showings, RunFolder(config.run).live_videos):
            remove(copy)
        return
    from recsys.live.export.snapshot import renew_showings

    renew_showings(config)


def _decode(config: RunConfig, out: str, fingerprint: str) -> StageReport:
    import pyarrow as pa

    from recsys import cluster
    from recsys.decode.stage import decode_videos
    from recsys.prepare.prepared import Prepared

    if not config.decodes:
        return {"skipped": f"no video files are used: {_why_not_decoded(config)}"}
    cluster.connect()
    uris = pa.table({"uri": Prepared(config).catalog.uris()})
    settings = config.decode.model_copy(update={"features": config.stores_features})
    report = decode_videos(uris, out, settings, content=config.model.content, report=say)
    return report["decode"]


def _why_not_decoded(config: RunConfig) -> str:
    if config.model.content.encoder == "none":
        return "model.content.encoder is none"
    columns = config.data.video_columns
    return "data.video_columns.uri is not set" if columns.vector is None else "there are vectors"


def _train(config: RunConfig, out: str, wanted: str) -> StageReport:
    from recsys.train.stage import train

    prepared = fingerprint(config, BY_NAME["prepare"])
    return {**train(config, out, wanted[:12]), "prepared": prepared}


def _evaluate(config: RunConfig, out: str, _: str) -> StageReport:
    from recsys.evaluation.stage import evaluate

    return {**evaluate(config, out, _previous(config)), "trained": _training(config)}


def _training(config: RunConfig) -> str | None:
    """Names the very training whose model lies in the run folder; None where there is none.

    By what it reports, losses and time among it: with the same settings and other workers, or once
    more after its folder was removed, training comes to another model.
    """
    report = read_json(RunFolder(config.run).report_of("train"))
    if report is None:
        return None
    return hashlib.sha256(json.dumps(report, sort_keys=True).encode()).hexdigest()


def _figures(config: RunConfig) -> Mapping[str, object] | None:
    """What the evaluation found of this very training; None where it is another's, or not there."""
    report = read_json(RunFolder(config.run).report_of("evaluate")) or {}
    trained = _training(config)
    return report.get("evaluation") if trained and report.get("trained") == trained else None


def _publish(config: RunConfig, out: str, _: str) -> StageReport:
    from recsys.bundle.stage import publish
    from recsys.evaluation.stage import rerank_traits
    from recsys.serve.versions.known import ASKED
    from recsys.train.trained import load_trained

    figures = _figures(config)
    if figures is None:
        say(
            "publish: no figures go into the bundle, for this training has not been evaluated; run "
            "`recsys evaluate`, then `recsys publish` again"
        )
    trained = load_trained(config)
    version = publish(
        trained,
        out,
        metrics=figures,
        traits=rerank_traits(config, trained),
        training=fingerprint(config, BY_NAME["train"]),
        asked=ASKED,
    )
    return {"version": version, "index": read_manifest(join(out, version))["index"]}


def _data_settings(config: RunConfig) -> object:
    inputs = {name: getattr(config.data, name) for name in ("events", "videos", "users")}
    files = {
        spec: [_stamp(path) for path in parquet_files(spec, f"data.{name}")]
        for name, spec in inputs.items()
        if spec
    }
    # The copy, not the log, which grows while the later stages run.
    copy = Showings.read(RunFolder(config.run).showings) if config.data.live is not None else None
    videos = RunFolder(config.run).live_videos
    live = copy and [vars(copy), *([_stamp(videos)] if exists(videos) else [])]
    return [PREPARE_FORMAT, config.data, config.split, config.prepare.partitions, files, live]


def _decode_settings(config: RunConfig) -> object:
    encoder = config.model.content.encoder if config.stores_features else None
    settings = config.decode.model_dump(exclude={"workers", "features"})
    return [settings, config.decodes, encoder]


def _train_settings(config: RunConfig) -> object:
    train = config.train.model_dump(exclude={"workers", "device", "max_failures", "mlflow"})
    # The epoch is chosen by validation lists with or without what users liked before.
    masked = config.evaluate.mask_history
    return [config.model, train, config.prepare.min_video_events, masked]


def _evaluate_settings(config: RunConfig) -> object:
    return [config.evaluate, config.rerank, _previous(config), _training(config)]


def _previous(config: RunConfig) -> str | None:
    """The folder of the bundle that the model is compared with."""
    if config.evaluate.previous is not None:
        return find_bundle(config.evaluate.previous)
    return newest_other(RunFolder(config.run).bundles, fingerprint(config, BY_NAME["train"]))


def _publish_settings(config: RunConfig) -> object:
    # A bundle without figures is out of date once there are some, one of another format at once.
    return [FORMAT, config.publish, config.serve, config.rerank, _figures(config) is not None]


STAGES = (
    Stage("prepare", "prepare", _data_settings, (), _prepare, renew=_renew_showings),
    Stage("decode", "decode", _decode_settings, ("prepare",), _decode, goes_on=True),
    Stage("train", "train", _train_settings, ("prepare", "decode"), _train, goes_on=True),
    Stage("evaluate", "evaluate", _evaluate_settings, ("train",), _evaluate),
    Stage("publish", "bundles", _publish_settings, ("train",), _publish),
)
BY_NAME = {stage.name: stage for stage in STAGES}


def say(line: str) -> None:
    """One line for the user."""
    logger.info("%s", line)


def fingerprint(config: RunConfig, stage: Stage) -> str:
    """Hash of all that the stage's output follows from."""
    parts = [stage.name, stage.settings(config)]
    parts += [fingerprint(config, BY_NAME[name]) for name in stage.after]
    text = json.dumps(parts, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: object) -> object:
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else str(value)


def _stamp(path: str) -> list[str]:
    """Size and age of a file: enough to see that it is another one."""
    fs, inner = filesystem(path)
    info = fs.info(inner)
    changed = next((info[key] for key in ("ETag", "mtime", "LastModified") if key in info), "")
    return [path, str(info.get("size")), str(changed)]


def is_current(config: RunConfig, stage: Stage) -> bool:
    """Whether the stage's output is there and follows from what is given now."""
    report = read_json(RunFolder(config.run).report_of(stage.folder))
    return bool(report) and report.get("fingerprint") == fingerprint(config, stage)


def run_stage(config: RunConfig, stage: Stage) -> StageReport:
    """Runs one stage, unless its output is current, and returns its report.

    Raises:
        InputError: A stage before it has not run, or ran on other inputs or settings.
    """
    out = RunFolder(config.run).of_stage(stage.folder)
    started = time.perf_counter()
    stage.renew(config)
    if is_current(config, stage):
        say(f"{stage.name}: up to date, skipped")
        current: StageReport = read_json(join(out, REPORT))
        return current
    require_current(config, stage.after, stage.name)
    wanted = fingerprint(config, stage)
    # Output that is half replaced must not look current to the settings that it was made with.
    remove(join(out, REPORT))
    with told(f"in {stage.name}; {GOES_ON if stage.goes_on else STARTS_ANEW}"):
        report = stage.run(config, out, wanted)
    seconds = round(time.perf_counter() - started, 1)
    report = {**report, "seconds": seconds, "fingerprint": wanted}
    write_json(report, join(out, REPORT))
    say(f"{stage.name}: done in {seconds:.1f} s")
    return report


def require_current(config: RunConfig, names: Sequence[str], whose: str) -> None:
    """Refuses to read stages that have not run, or ran on other inputs or settings.

    Args:
        config: The run.
        names: The stages that are read.
        whose: Who reads them, for the message.

    Raises:
        InputError: One of them is not current.
    """
    for name in names:
        unused = name == "decode" and not config.decodes
        if not unused and not is_current(config, BY_NAME[name]):
            folder = RunFolder(config.run).of_stage(BY_NAME[name].folder)
            raise InputError(
                f"{folder}: {whose} needs the {name} of these "
                f"inputs and settings, and it is not there; run `recsys {name}` first, or "
                "`recsys run` for all stages"
            )


def run_stages(
    config: RunConfig,
    names: Sequence[str],
    show: Callable[[str, StageReport], None] = lambda name, report: None,
) -> StageReport:
    """Runs some stages in order and writes RUN/report.json.

    Args:
        config: The run.
        names: Which stages.
        show: Called with each stage's name and report.

    Returns:
        What RUN/report.json holds.

    Raises:
        InputError: Another command writes into the run folder.
    """
    with only_writer(config.run):
        return run_in_order(config, [BY_NAME[name] for name in names], show)


def run_in_order(
    config: RunConfig, stages: Sequence[Stage], show: Callable[[str, StageReport], None]
) -> StageReport:
    """As `run_stages`, for one who holds the run folder already."""
    write_text(dump_config(config), RunFolder(config.run).config)
    for stage in stages:
        show(stage.name, run_stage(config, stage))
    return write_report(config)


def write_report(config: RunConfig) -> StageReport:
    """Gathers the stages' reports into RUN/report.json."""
    reports = {
        stage.name: read_json(RunFolder(config.run).report_of(stage.folder)) or {}
        for stage in STAGES
    }
    if _figures(config) is None:  # of the model that lay there before
        reports["evaluate"] = {}
    whole = {
        "seconds": {name: r["seconds"] for name, r in reports.items() if "seconds" in r},
        **{name: without(r, *ASIDE) for name, r in reports.items()},
        "evaluation": reports["evaluate"].get("evaluation", {}),
    }
    write_json(whole, RunFolder(config.run).report)
    return whole


def without(report: StageReport, *names: str) -> StageReport:
    """The report without some of its entries."""
    return {name: value for name, value in report.items() if name not in names}
