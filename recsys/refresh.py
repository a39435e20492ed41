"""`recsys refresh`: a new model of what has happened since, which serves only if it is not worse.

The stages of the run, with three things pinned when a refresh begins, so that one that was killed
goes on as the same refresh: the copy of the event log that it learns from, the bundle that it is
compared with, and the model that it starts from. Only `bundles/` is served, and it is written last.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TypedDict

from recsys.bundle.versions import CURRENT, find_bundle, read_manifest
from recsys.config.run import RunConfig
from recsys.data.run_folder import RunFolder
from recsys.data.storage import (
    copy_folder,
    exists,
    is_uri,
    join,
    local_folder,
    read_json,
    remove,
    write_json,
)
from recsys.errors import InputError
from recsys.evaluation.gate import Judgement, judge
from recsys.evaluation.metrics import table as metric_table
from recsys.evaluation.report.files import LISTS, read_users
from recsys.evaluation.report.verdict import PREVIOUS
from recsys.pipeline import (
    BY_NAME,
    StageReport,
    fingerprint,
    is_current,
    run_in_order,
    run_stage,
    say,
    write_report,
)
from recsys.run_lock import only_writer

Show = Callable[[str, StageReport], None]


class RefreshDecision(TypedDict):
    """What RUN/refresh/report.json holds."""

    decision: str
    """`published` or `kept`."""
    reason: str
    """In one line, with the figures."""
    version: str
    """Of the bundle that serves afterwards."""
    previous: str | None
    """Of the bundle that served before; None where there was none."""
    gate: dict[str, object] | None
    """The figures of the test; None where there was nothing to compare."""


@dataclass(frozen=True)
class Underway:
    """What is pinned while a refresh runs: RUN/refresh/underway.json."""

    previous: str | None
    """Folder of the bundle that serves."""
    start_from: str | None
    """Folder of the model that training starts from."""

    def pinned(self, config: RunConfig) -> RunConfig:
        """The config of this refresh."""
        evaluate = config.evaluate.model_copy(update={"previous": self.previous})
        train = config.train
        if self.start_from is not None:
            train = train.model_copy(update={"start_from": self.start_from})
        return config.model_copy(update={"evaluate": evaluate, "train": train})


def refresh(config: RunConfig, show: Show = lambda name, report: None) -> RefreshDecision:
    """Trains on what there is now and publishes the model if it is not worse; says which.

    Args:
        config: Of the run whose bundles are served.
        show: Called with each stage's name and report.

    Raises:
        InputError: Input or a setting is wrong, or another command writes into the run folder.
    """
    folder = RunFolder(config.run)
    config = _with_log(config)
    _require_metric(config)
    with only_writer(config.run):
        known = read_json(folder.refresh_underway)
        underway = Underway(**known) if known else _begin(config, folder)
        decision = _decide(config, underway, show)
        write_json(decision, folder.refresh_report)
        remove(folder.refresh_underway)
    say(f"refresh: {decision['decision']}, {decision['version']} serves: {decision['reason']}")
    return decision


def _with_log(config: RunConfig) -> RunConfig:
    """The config with the server's own event log, where `data.live` names no other."""
    live = config.data.live or config.serve.events
    own = RunFolder(config.run).live_log
    if live is None and not is_uri(own) and exists(own):
        live = own
    say(f"refresh: live events: {live or 'none (data.live and serve.events are not set)'}")
    return config.model_copy(update={"data": config.data.model_copy(update={"live": live})})


def gate_metric(config: RunConfig) -> str:
    """The column of the users' metrics that the gate looks at."""
    return config.refresh.metric or f"ndcg@{config.evaluate.headline_k}"


def _require_metric(config: RunConfig) -> None:
    """Finds a wrong metric here and not after the training."""
    metric = gate_metric(config)
    names = [each.user_column for each in metric_table.METRICS if each.is_main]
    known = [f"{name}@{k}" for name in names for k in config.evaluate.k]
    if metric.rpartition("/")[2] not in known:
        raise InputError(
            f"refresh.metric={metric}: not a metric of lists; take one of {', '.join(known)}, or "
            f"that of a slice, such as cold/{known[0]}"
        )


def _begin(config: RunConfig, folder: RunFolder) -> Underway:
    from recsys.live.export.snapshot import renew_showings

    served, start = None, config.train.start_from
    if exists(join(folder.bundles, CURRENT)):
        served = find_bundle(folder.bundles)
        start = _keep_start(folder, read_manifest(served).get("trained")) or start
    if config.data.live is not None:
        renew_showings(config)
    underway = Underway(served, start)
    write_json(asdict(underway), folder.refresh_underway)
    return underway


def _keep_start(folder: RunFolder, served: str | None) -> str | None:
    """Keeps the model that serves where the next training does not write: what it starts from.

    Returns:
        A folder as `train.start_from` names it; None where that model is not there any more.
    """
    start = RunFolder(folder.refresh_start)
    kept, trained, prepared = (
        read_json(path) or {}
        for path in (start.report, folder.report_of("train"), folder.report_of("prepare"))
    )
    if kept.get("trained") == served:
        return start.run
    same_rows = trained.get("prepared") == prepared.get("fingerprint")
    if served is None or trained.get("fingerprint") != served or not same_rows:
        say("refresh: the model that serves is not in the run folder; training starts anew")
        return None
    remove(start.report)
    for source, target in ((folder.model, start.model), (folder.vocabs, start.vocabs)):
        remove(target)
        with local_folder(source) as local:
            copy_folder(local, target)
    write_json({"trained": served}, start.report)
    return start.run


def _decide(config: RunConfig, underway: Underway, show: Show) -> RefreshDecision:
    previous, pinned = underway.previous, underway.pinned(config)
    # The copy of the log is that of the refresh's beginning.
    data_stages = [replace(BY_NAME["prepare"], renew=lambda _: None), BY_NAME["decode"]]
    run_in_order(pinned, data_stages, show)
    if previous is not None:
        trained = read_manifest(previous).get("trained")
        if trained in {fingerprint(each, BY_NAME["train"]) for each in (config, pinned)}:
            return _kept(previous, "nothing has happened since it was trained")
    run_in_order(pinned, [BY_NAME["train"], BY_NAME["evaluate"]], show)
    if previous is None:
        return _publish(pinned, None, None, show)
    judgement = _judge(pinned)
    taken_back = _published_before(pinned)
    if taken_back is not None:
        return _kept(
            previous, f"this model was published as {taken_back} and taken back", judgement
        )
    if not judgement.passed:
        return _kept(previous, f"the new model is not shown to be as good: {judgement}", judgement)
    return _publish(pinned, previous, judgement, show)


def _publish(
    config: RunConfig, previous: str | None, judgement: Judgement | None, show: Show
) -> RefreshDecision:
    report = run_stage(config, BY_NAME["publish"])
    show("publish", report)
    write_report(config)
    return RefreshDecision(
        decision="published",
        reason=str(judgement or "there was no bundle to compare with"),
        version=str(report["version"]),
        previous=previous and _name(previous),
        gate=None if judgement is None else asdict(judgement),
    )


def _kept(previous: str, reason: str, judgement: Judgement | None = None) -> RefreshDecision:
    return RefreshDecision(
        decision="kept",
        reason=reason,
        version=_name(previous),
        previous=_name(previous),
        gate=None if judgement is None else asdict(judgement),
    )


def _judge(config: RunConfig) -> Judgement:
    metric = gate_metric(config)
    columns = [read_users(config.run, name)[1] for name in (LISTS, PREVIOUS)]
    missing = [each for each in columns if metric not in each]
    if missing:
        raise InputError(
            f"refresh.metric={metric}: not measured; there are {', '.join(sorted(missing[0]))}"
        )
    return judge(
        metric,
        *(each[metric] for each in columns),
        allowed_loss=config.refresh.allowed_loss,
        confidence=config.refresh.confidence,
        seed=config.evaluate.seed,
    )


def _published_before(config: RunConfig) -> str | None:
    """The version of this very model, where it was published and another one serves now."""
    if not is_current(config, BY_NAME["publish"]):
        return None
    version: str = read_json(RunFolder(config.run).report_of("bundles"))["version"]
    return None if version == _name(find_bundle(config.run)) else version


def _name(bundle: str) -> str:
    return bundle.rstrip("/").rpartition("/")[2]
