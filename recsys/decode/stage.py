"""The decode stage: video files in, OUT/clips.lance out, as a Ray Data pipeline.

`DecodeClips` can be mapped over any dataset of addresses alone; `decode_videos` is the whole stage,
with its quarantine table, its report, and going on where an earlier run was stopped.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from recsys import cluster
from recsys.config.data import DecodeConfig
from recsys.config.run import ContentConfig
from recsys.data import storage
from recsys.decode.clips import DecodeClips, Encoder
from recsys.decode.stamps import changed_files
from recsys.decode.writer import LIMITED_BY, ClipCounts, ClipWriter
from recsys.errors import InputError
from recsys.progress import progress
from recsys.run_lock import only_writer
from recsys.schema import clip_schema, feature_schema

logger = logging.getLogger(__name__)

_BATCH_VIDEOS = 4
_MAX_BLOCK_VIDEOS = 64
_BLOCKS_A_WORKER = 32  # many, so that the workers end together
_BLOCK_BYTES = 8 * 2**20  # of decoded rows; small, so that rows come out of a task early


class DecodeReport(ClipCounts):
    """What a run of the stage did, beside what there is after it."""

    decoded: int
    """Videos that were decoded in this run …"""
    changed: int
    """… and those among them whose files are not what they were in the last one."""
    seconds: float
    videos_per_s: float


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
    if not wanted:
        raise InputError("no videos to decode; check the videos' addresses")
    with only_writer(out):
        result = _decode_into(wanted, out, config, content=content, report=report)
    if not result["ok"] + result["damaged"]:
        reasons = ", ".join(f"{n} {reason}" for reason, n in result["quarantined"].items())
        table = storage.join(out, "quarantine.parquet")
        raise InputError(f"none of {len(wanted)} videos gives a clip ({reasons}); see {table}")
    return {"decode": result}


def _decode_into(
    wanted: list[str],
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
    there = writer.done()
    known = {uri: there[uri] for uri in wanted if uri in there}
    changed = changed_files(known, schemes=config.schemes, base=os.getcwd())
    if changed:
        report(f"decode: {len(changed)} files are not what they were; decoding them anew")
        writer.forget(changed)
    done = writer.done()
    missing = [uri for uri in wanted if uri not in done]
    if len(missing) < len(wanted):
        report(f"decode: {len(wanted) - len(missing)} of {len(wanted)} videos are already there")
    start = time.monotonic()
    num_broken = 0
    with progress("decode", total=len(missing), unit="videos", report=report) as advance:
        for rows in _rows(missing, config, content):
            writer.add(rows)
            num_broken += len(rows) - rows.column("reason").null_count
            advance(len(rows), note=f"{num_broken} broken")
    seconds = time.monotonic() - start
    counts = writer.finish(set(wanted))
    for said in reader_lines(counts["why"]):
        report(said)
    result: DecodeReport = {
        **counts,
        "decoded": len(missing),
        "changed": len(changed),
        "seconds": round(seconds, 3),
        "videos_per_s": round(len(missing) / seconds, 2) if missing else 0.0,
    }
    storage.write_json({"decode": result}, storage.join(out, "report.json"))
    return result


def reader_lines(why: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """Who read how many clips, and a line for each reader's reasons.

    >>> list(reader_lines({"pyav": {"not decord: it failed": 1, "only key frames are wanted": 2}}))
    ['decode: 3 clips read by pyav (not decord: it failed: 1, only key frames are wanted: 2)']
    """
    for reader, reasons in why.items():
        num = sum(reasons.values())
        said = ", ".join(f"{reason}: {count}" for reason, count in reasons.items())
        yield f"decode: {num} clip{'s' * (num != 1)} read by {reader} ({said})"


def _unique(uris: Sequence[str] | pa.Table) -> list[str]:
    values = uris.column("uri").to_pylist() if isinstance(uris, pa.Table) else uris
    return list(dict.fromkeys(uri for uri in values if uri))


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
    dim = Encoder(encoder).dim
    return feature_schema(config.frames, dim), {**settings, "encoder": encoder}


def plan_pool(
    workers: int | None, *, num_videos: int, free_cpus: float, free_gpus: float = 0.0
) -> tuple[int, float, float]:
    """How many decoding actors, and the CPUs and GPUs of each.

    As many as wished for, but no more than free CPUs and videos: an actor that waits for a CPU that
    is not there would stop everything. Where no CPU is free, one actor that asks for none. GPUs are
    shared out among the actors.

    >>> plan_pool(None, num_videos=100, free_cpus=2.0)
    (2, 1.0, 0.0)
    >>> plan_pool(8, num_videos=3, free_cpus=16.0, free_gpus=1.0)
    (3, 1.0, 0.3333)
    >>> plan_pool(None, num_videos=9, free_cpus=0.5)
    (1, 0.5, 0.0)
    """
    size = max(1, min(workers or num_videos, num_videos, int(free_cpus)))
    return size, min(1.0, free_cpus), int(1e4 * min(1.0, free_gpus / size)) / 1e4


def shared_gpus(nodes: list[dict[str, Any]], free_gpus: float) -> float:
    """GPUs that decoding may share out: none unless each node that has CPUs has GPUs too.

    An actor takes CPU and GPU of one node; one that found no node with both would wait for ever.

    >>> cpu_node, gpu_node = {"CPU": 8.0}, {"CPU": 8.0, "GPU": 1.0}
    >>> [
    ...     shared_gpus([{"Alive": True, "Resources": node} for node in nodes], 1.0)
    ...     for nodes in ([gpu_node, gpu_node], [cpu_node, gpu_node], [cpu_node, {"GPU": 1.0}])
    ... ]
    [1.0, 0.0, 0.0]
    """
    with_cpus = [
        node["Resources"] for node in nodes if node["Alive"] and node["Resources"].get("CPU")
    ]
    both = all(resources.get("GPU") for resources in with_cpus)
    if free_gpus and not both:
        logger.info("decode: on CPUs, for not every node that has CPUs has a GPU")
    return free_gpus if both else 0.0


def _rows(
    uris: list[str], config: DecodeConfig, content: ContentConfig | None
) -> Iterator[pa.Table]:
    """Decoded rows, in the order in which they are ready."""
    if not uris:
        return
    cluster.connect()
    import ray

    free = ray.available_resources()
    size, cpus, gpus = plan_pool(
        config.workers,
        num_videos=len(uris),
        free_cpus=free.get("CPU", 0.0),
        free_gpus=shared_gpus(ray.nodes(), free.get("GPU", 0.0)) if config.features else 0.0,
    )
    context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = _BLOCK_BYTES
    context.enable_progress_bars = False
    step = max(1, min(_MAX_BLOCK_VIDEOS, len(uris) // (size * _BLOCKS_A_WORKER)))
    with ray.data.DataContext.current(context):  # a dataset keeps the context it was made in
        # from_arrow would run a task, and so wait for a CPU.
        rows = [{"uri": uri} for uri in uris]
        dataset = ray.data.from_items(rows, override_num_blocks=-(-len(uris) // step)).map_batches(
            DecodeClips,
            fn_constructor_args=[config],
            fn_constructor_kwargs={"content": content, "base": os.getcwd()},
            compute=ray.data.ActorPoolStrategy(size=size),
            num_cpus=cpus,
            num_gpus=gpus or None,
            batch_size=_BATCH_VIDEOS,
            batch_format="pyarrow",
        )
    yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow")
