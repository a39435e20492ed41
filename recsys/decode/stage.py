"""The decode stage: video files in, OUT/clips.lance out, as a Ray Data pipeline.

`DecodeClips` can be mapped over any dataset of addresses alone; `decode_videos` is the whole stage,
with its quarantine table, its report, and going on where an earlier run was stopped.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys import cluster
from recsys.config.data import DecodeConfig
from recsys.config.run import ContentConfig
from recsys.data import storage
from recsys.decode.actor import gpus
from recsys.decode.actor.encoder import ClipEncoder
from recsys.decode.actor.plan import ActorPlan, Resources, plan_actors
from recsys.decode.clips import DecodeClips
from recsys.decode.hardware.choice import is_asked
from recsys.decode.stamps import FilesNow, look_at_files
from recsys.decode.writer import LIMITED_BY, ClipCounts, ClipWriter
from recsys.errors import InputError
from recsys.progress import progress
from recsys.run_lock import only_writer
from recsys.schema import clip_schema, feature_schema

if TYPE_CHECKING:
    import ray

logger = logging.getLogger(__name__)

_BATCH_VIDEOS = 4
_MAX_BLOCK_VIDEOS = 64
_BLOCKS_A_WORKER = 32  # many, so that the workers end together
_LOOKED_AT_ONCE = 1 << 16  # files whose addresses are Python strings meanwhile
_BLOCK_BYTES = 8 * 2**20  # of decoded rows; small, so that rows come out of a task early


class BusyShares(TypedDict):
    """What the workers did with their time, the start of the processes included."""

    actors: int
    processes: int
    """Decoding processes of all actors."""
    decoding: float
    """Share of the processes' time in which they decoded …"""
    encoding: float
    """… and of the encoders', one an actor, in which they encoded; 0 where frames are stored."""


class Said(TypedDict):
    """What a reader said of files that it did not read, or not wholly; its own faults show here."""

    num: int
    """Files of this run that it was said of."""
    first: str
    """Word for word, of the first one."""


class DecodeReport(ClipCounts):
    """What a run of the stage did, beside what there is after it."""

    decoded: int
    """Videos that were decoded in this run …"""
    changed: int
    """… and those among them whose files are not what they were in the last one."""
    unseen: int
    """Videos of earlier runs whose files are gone or do not answer; what was decoded is kept."""
    seconds: float
    videos_per_s: float
    busy: BusyShares
    said: dict[str, Said]
    """What readers said of files that others then read, and what captions lack, by reason."""


def decode_videos(
    uris: Sequence[str] | pa.Table,
    out: str,
    config: DecodeConfig,
    *,
    content: ContentConfig | None = None,
    report: Callable[[str], None] = logger.info,
) -> dict[str, DecodeReport]:
    """Decodes videos into `out`; those that are already there are left alone.

    Args:
        uris: Addresses, or a table with the column `uri`; each is decoded once.
        out: Output folder, a path or address.
        config: How videos become clips.
        content: Names the frame encoder where `config.features`.
        report: Takes each line that the user should see.

    Returns:
        `{"decode": …}`, as OUT/report.json has it.

    Raises:
        InputError: No videos are given, none of them gives a clip, or `out` cannot be written.
    """
    wanted = _unique(uris)
    if not len(wanted):
        raise InputError("no videos to decode; check the videos' addresses")
    with only_writer(out):
        result = _decode_into(wanted, out, config, content=content, report=report)
    if not result["ok"] + result["damaged"]:
        reasons = ", ".join(f"{n} {reason}" for reason, n in result["quarantined"].items())
        table = storage.join(out, "quarantine.parquet")
        raise InputError(f"none of {len(wanted)} videos gives a clip ({reasons}); see {table}")
    return {"decode": result}


def _decode_into(
    wanted: pa.Array,
    out: str,
    config: DecodeConfig,
    *,
    content: ContentConfig | None,
    report: Callable[[str], None],
) -> DecodeReport:
    schema, settings = _layout(config, content)
    limits = {name: getattr(config, name) for name in LIMITED_BY.values()}
    writer = ClipWriter(out, schema=schema, settings=settings, limits=limits)
    if writer.changed_settings:
        report(f"decode: {', '.join(writer.changed_settings)} changed; decoding all videos anew")
    files = _forget_changed(writer, wanted, config, report)
    done = writer.done().column("uri")
    missing = wanted.filter(pc.invert(pc.is_in(wanted, done)))
    if len(missing) < len(wanted):
        report(f"decode: {len(wanted) - len(missing)} of {len(wanted)} videos are already there")
    start = time.monotonic()
    num_broken, busy_s, said = 0, np.zeros(2), dict[str, Said]()
    with progress("decode", total=len(missing), unit="videos", report=report) as advance:
        plan = _plan(len(missing), config) if len(missing) else ActorPlan(0, 0.0)
        for rows in _rows(missing, config, content, plan) if len(missing) else ():
            writer.add(rows)
            busy_s += [pc.sum(rows.column(name)).as_py() for name in ("decode_s", "encode_s")]
            count_said(said, rows)
            num_broken += len(rows) - rows.column("reason").null_count
            advance(len(rows), note=f"{num_broken} broken")
    seconds = time.monotonic() - start
    counts = writer.finish(wanted)
    busy = busy_shares(*busy_s.tolist(), plan=plan, seconds=seconds)
    if len(missing):
        report(busy_line(busy))
    for line in (*reader_lines(counts["why"]), *said_lines(said)):
        report(line)
    result: DecodeReport = {
        **counts,
        "decoded": len(missing),
        "changed": len(files.changed),
        "unseen": files.unseen,
        "seconds": round(seconds, 3),
        "videos_per_s": round(len(missing) / seconds, 2) if len(missing) else 0.0,
        "busy": busy,
        "said": said,
    }
    storage.write_json({"decode": result}, storage.join(out, "report.json"))
    return result


def _forget_changed(
    writer: ClipWriter, wanted: pa.Array, config: DecodeConfig, report: Callable[[str], None]
) -> FilesNow:
    """Looks at the files of what is there, and has those that have changed decoded anew."""
    there = writer.done()
    there = there.filter(pc.is_in(there.column("uri"), wanted))
    changed: list[str] = []
    unseen = 0
    for start in range(0, len(there), _LOOKED_AT_ONCE):
        some = there.slice(start, _LOOKED_AT_ONCE)
        columns = (some.column(name).to_pylist() for name in ("uri", "stamp"))
        known = dict(zip(*columns, strict=True))
        now = look_at_files(known, schemes=config.schemes, base=os.getcwd())
        changed, unseen = [*changed, *now.changed], unseen + now.unseen
    if unseen:
        report(f"decode: {unseen} files are gone or do not answer; what is there is kept")
    if changed:
        report(f"decode: {len(changed)} files are not what they were; decoding them anew")
        writer.forget(changed)
    return FilesNow(changed, unseen)


def busy_shares(decode_s: float, encode_s: float, *, plan: ActorPlan, seconds: float) -> BusyShares:
    """What share of the time the processes and the encoders had something to do.

    >>> from recsys.decode.actor.processes import ProcessSet
    >>> busy_shares(36.0, 3.0, plan=ActorPlan(2, 2.0, 1.0, ProcessSet(2)), seconds=10.0)
    {'actors': 2, 'processes': 4, 'decoding': 0.9, 'encoding': 0.15}
    """
    return {
        "actors": plan.actors,
        "processes": plan.num_processes,
        "decoding": round(decode_s / (max(plan.num_processes, 1) * seconds), 3),
        "encoding": round(encode_s / (max(plan.actors, 1) * seconds), 3),
    }


def busy_line(busy: BusyShares) -> str:
    """What the user is told of it.

    >>> busy_line({"actors": 1, "processes": 16, "decoding": 0.97, "encoding": 0.121})
    'decode: 16 processes decoded 97 % of the time, 1 encoder encoded 12 % of it'
    """
    processes, actors = busy["processes"], busy["actors"]
    return (
        f"decode: {processes} process{'es' * (processes != 1)} decoded {busy['decoding']:.0%} of "
        f"the time, {actors} encoder{'s' * (actors != 1)} encoded {busy['encoding']:.0%} of it"
    ).replace("%", " %")


def reader_lines(why: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """Who read how many clips, and a line for each reader's reasons.

    >>> list(reader_lines({"pyav": {"not decord: it failed": 1, "only key frames are wanted": 2}}))
    ['decode: 3 clips read by pyav (not decord: it failed: 1, only key frames are wanted: 2)']
    """
    for reader, reasons in why.items():
        num = sum(reasons.values())
        said = ", ".join(f"{reason}: {count}" for reason, count in reasons.items())
        yield f"decode: {num} clip{'s' * (num != 1)} read by {reader} ({said})"


def count_said(said: dict[str, Said], rows: pa.Table) -> None:
    """Adds what was said of the files of some rows, as `said_lines` tells it."""
    for row in rows.column("said").drop_null().to_pylist():
        for reason, text in row:
            said.setdefault(reason, {"num": 0, "first": text})["num"] += 1


def said_lines(said: Mapping[str, Said]) -> Iterator[str]:
    """A line for each reason why a reader did not read all of a file, of which it said more.

    >>> list(said_lines({"decord failed": {"num": 3, "first": "no such codec"}}))
    ['decode: decord failed: 3 files; said of the first: no such codec']
    """
    for reason, about in said.items():
        files = f"{about['num']} file{'s' * (about['num'] != 1)}"
        yield f"decode: {reason}: {files}; said of the first: {about['first']}"


def _unique(uris: Sequence[str] | pa.Table) -> pa.Array:
    """Each address once, in the order in which they come, without those that are missing or empty.

    >>> _unique(["b", "", "a", "b", None]).to_pylist()
    ['b', 'a']
    """
    column = uris.column("uri") if isinstance(uris, pa.Table) else pa.array(uris, pa.string())
    different = pc.unique(column.cast(pa.string())).drop_null()
    return different.filter(pc.not_equal(different, ""))


def _layout(
    config: DecodeConfig, content: ContentConfig | None
) -> tuple[pa.Schema, dict[str, object]]:
    """The clips' schema, and the settings that they depend on."""
    names = ["frames", "size", "sampling", "fit", "features", "poster_size"]
    if config.sampling == "auto":
        names.append("auto_max_frames")
    settings = {name: getattr(config, name) for name in names}
    settings["features"] = bool(config.features)
    if not config.features:
        return clip_schema(config.frames, config.size), settings
    encoder = (content or ContentConfig()).encoder
    settings["encoder"] = encoder
    if config.encode_precision != "auto":
        settings["encode_precision"] = config.encode_precision
    return feature_schema(config.frames, ClipEncoder(encoder).dim), settings


def _plan(num_videos: int, config: DecodeConfig) -> ActorPlan:
    """What the cluster is asked for: GPUs where frames are encoded or decoded on them."""
    cluster.connect()
    import ray

    free = ray.available_resources()
    has = Resources(
        free.get("CPU", 0.0),
        free.get("GPU", 0.0) if config.features or config.hardware_processes else 0.0,
        [node["Resources"] for node in ray.nodes() if node["Alive"]],
    )
    planned = functools.partial(plan_actors, config.workers, num_videos=num_videos)
    plan = planned(has=has)
    if plan.gpus:
        usable, in_hardware = _usable_gpus(has.free_gpus, config)
        plan = planned(has=replace(has, free_gpus=usable), in_hardware=in_hardware)
    elif has.free_gpus:
        logger.info("decode: on CPUs, for not every node that has CPUs has a GPU")
    cluster.tell_of_gpus("decode", plan.actors, plan.gpus)
    return plan


def _usable_gpus(free: float, config: DecodeConfig) -> tuple[float, int]:
    """How much of the free GPUs is of use, and how many processes of each decode in hardware."""
    uses = gpus.ask()
    decodes = is_asked(uses.decoder, config.reader)
    in_hardware = config.hardware_processes if decodes else 0
    if in_hardware or (config.features and uses.encodes):
        return free, in_hardware
    no_decoder = uses.decoder == "cpu"
    asked = f"{uses.decoder} is not asked (decode.reader={config.reader})"
    reasons = ["no decoder there uses it" if no_decoder else asked]
    remedies = ["pip install 'recsys[gpu]' on its node"] if no_decoder or config.features else []
    if config.features:
        reasons.append("PyTorch does not see it")
    else:
        remedies.append("set decode.hardware_processes=0 to ask for none")
    logger.warning(
        "decode: on CPUs, though there is a GPU: %s; %s", ", ".join(reasons), ", or ".join(remedies)
    )
    return 0.0, 0


def _pool(plan: ActorPlan) -> ray.data.ActorPoolStrategy:
    """The actors; where one has many processes, a batch begins while the one before it ends."""
    import ray

    if plan.processes.num == 1:
        return ray.data.ActorPoolStrategy(size=plan.actors)
    return ray.data.ActorPoolStrategy(
        size=plan.actors, max_concurrent_calls_per_actor=2, enable_true_multi_threading=True
    )


def _rows(
    uris: pa.Array, config: DecodeConfig, content: ContentConfig | None, plan: ActorPlan
) -> Iterator[pa.Table]:
    """Decoded rows, in the order in which they are ready."""
    import ray

    on_cores = plan.processes.on_cores
    context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = _BLOCK_BYTES
    context.enable_progress_bars = False
    share = len(uris) // (plan.actors * on_cores * _BLOCKS_A_WORKER)
    step = on_cores * max(1, min(_MAX_BLOCK_VIDEOS, share))
    with ray.data.DataContext.current(context):  # a dataset keeps the context it was made in
        # from_arrow would run a task, and so wait for a CPU.
        table = pa.table({"uri": uris})
        blocks = [table.slice(start, step) for start in range(0, len(uris), step)]
        dataset = ray.data.from_blocks(blocks).map_batches(
            DecodeClips,
            fn_constructor_args=[config],
            fn_constructor_kwargs={
                "content": content,
                "base": os.getcwd(),
                "processes": plan.processes,
            },
            compute=_pool(plan),
            num_cpus=plan.cpus,
            num_gpus=plan.gpus or None,
            batch_size=_BATCH_VIDEOS * on_cores,
            batch_format="pyarrow",
        )
    yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow")
