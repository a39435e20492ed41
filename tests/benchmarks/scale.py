"""How prepare, a pass of batches, evaluate, publish and a server's start grow with the events.

Events of two sizes are made (`_events.py`) and taken through the stages, each in a process of its
own; the model's weights are random, for its figures mean nothing here. Measured are wall and CPU
seconds, and the most private memory of all processes together and of the largest: what they have
written to, for pages of mapped files are the system's to drop.

Polars makes the same timelines, in memory and without any check, as a measure of the CPU seconds.
A size or a step alone (`--sizes`, `--steps`) is measured anew, and the others are kept as they are
in the result's file.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _events import world_config, write_world
from _memory import Watched

from recsys.config.run import RunConfig
from recsys.data.run_folder import RunFolder

BAR_GROWTH, BAR_BYTES, BAR_POLARS = 1.15, 3e9, 2.0
STORE_BYTES = 10**9
BATCH_PARTITIONS = 4
EVALUATED_USERS = 20_000
LARGE = 10**9


def connect() -> None:
    """A Ray of two CPUs."""
    import ray

    ray.init(
        num_cpus=2,
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )


def random_model(config: RunConfig) -> Any:
    """The run as if it had been trained."""
    import torch

    from recsys.inference.encode import all_vectors
    from recsys.model.embeddings import PlainTables
    from recsys.model.recommender import Recommender, table_specs
    from recsys.prepare.prepared import Prepared
    from recsys.train.trained import Trained

    prepared = Prepared(config)
    tables = PlainTables(table_specs(config.model, prepared.sizes))
    model = Recommender(config.model, prepared.sizes, tables=tables).eval()
    videos = prepared.video_inputs(with_valid=True)
    vectors = all_vectors(model, videos, torch.device("cpu"))
    return Trained(
        prepared, model, videos, vectors, prepared.catalog.known_events(with_valid=True) == 0
    )


def run_prepare(config: RunConfig) -> dict[str, float]:
    from recsys.pipeline import BY_NAME, run_stage

    connect()
    begin = time.perf_counter()
    report = run_stage(config, BY_NAME["prepare"])
    return {"seconds": time.perf_counter() - begin, "partitions": len(report["partitions"])}


def run_batches(config: RunConfig) -> dict[str, float]:
    """Steps of some partitions, as a training worker makes them; seconds a million events."""
    from recsys.prepare.prepared import Prepared
    from recsys.schema import VALID
    from recsys.train.loop import Job, make_batcher

    prepared = Prepared(config)
    batcher, rng = make_batcher(Job(config, VALID, 1), prepared), np.random.default_rng(0)
    events = steps = 0
    begin = time.perf_counter()
    for number in range(BATCH_PARTITIONS):
        timelines = prepared.timelines(number)
        events += len(timelines.video_rows)
        for starts, stops in batcher.plan(timelines, rng):
            batcher.make(timelines, starts, stops, rng)
            steps += 1
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "events_per_s": events / seconds, "steps": steps}


def run_evaluate(config: RunConfig) -> dict[str, float]:
    from recsys.evaluation import stage

    connect()
    begin = time.perf_counter()
    trained = random_model(config)
    stage.load_trained = lambda _: trained
    report = stage.evaluate(config, RunFolder(config.run).evaluate)
    return {"seconds": time.perf_counter() - begin, "users": report["setup"]["users"]}


def run_publish(config: RunConfig) -> dict[str, float]:
    from recsys.bundle.stage import publish

    begin = time.perf_counter()
    publish(random_model(config), RunFolder(config.run).bundles)
    return {"seconds": time.perf_counter() - begin}


def run_start(config: RunConfig) -> dict[str, float]:
    """What a replica does before its first answer."""
    from recsys.bundle.contents import Bundle
    from recsys.serve.recommender import ServingRecommender

    begin = time.perf_counter()
    ServingRecommender(Bundle.load(config.run))
    return {"seconds": time.perf_counter() - begin}


def run_polars(config: RunConfig) -> dict[str, float]:
    script = Path(__file__).parent / "_polars_timelines.py"
    folder, cuts = Path(config.run).parent, (config.split.valid_from, config.split.test_from)
    begin = time.perf_counter()
    subprocess.run([sys.executable, script, folder, *map(str, cuts)], check=True)
    return {"seconds": time.perf_counter() - begin}


STEPS: dict[str, Callable[[RunConfig], dict[str, float]]] = {
    "prepare": run_prepare,
    "batches": run_batches,
    "evaluate": run_evaluate,
    "publish": run_publish,
    "start": run_start,
    "polars": run_polars,
}


def measure(step: str, folder: Path) -> dict[str, float]:
    """Runs one step in a process of its own."""
    if step == "prepare":
        shutil.rmtree(folder / "run", ignore_errors=True)
    command = [sys.executable, __file__, "--run", step, "--folder", str(folder)]
    job = Watched(command, shared=False)
    figures = json.loads(job.output().strip().splitlines()[-1])
    memory = {"all_bytes": job.peak_bytes, "largest_bytes": job.largest_bytes}
    return {**figures, "cpu_s": job.cpu_s, **memory}


def bars(sizes: dict[str, dict[str, dict[str, float]]]) -> dict[str, dict[str, object]]:
    """What must hold, of what was measured."""
    found: dict[str, tuple[float, float]] = {}
    few, many = min(sizes, key=int), max(sizes, key=int)
    ours = sizes[many].get("prepare")
    for step, figures in sizes[many].items():
        if step != "polars":
            name = f"{step}: memory of the largest process, bytes"
            found[name] = (figures["largest_bytes"], BAR_BYTES)
    if ours and "prepare" in sizes[few] and few != many:
        growth = ours["seconds"] / sizes[few]["prepare"]["seconds"] / (int(many) / int(few))
        found["prepare: growth over that of the events"] = (growth, BAR_GROWTH)
    if ours and "polars" in sizes[many]:
        ratio = ours["cpu_s"] / sizes[many]["polars"]["cpu_s"]
        found["prepare: CPU seconds over those of polars"] = (ratio, BAR_POLARS)
    return {
        name: {"value": value, "bar": bar, "holds": value <= bar}
        for name, (value, bar) in found.items()
    }


def report(sizes: dict[str, dict[str, dict[str, float]]], out: Path) -> None:
    result = {"sizes": sizes, "bars": bars(sizes)}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2))
    for size, steps in sorted(sizes.items(), key=lambda item: int(item[0])):
        for step, figures in steps.items():
            memory = f"{figures['all_bytes'] / 1e9:5.2f} GB, {figures['largest_bytes'] / 1e9:5.2f}"
            seconds = f"{figures['seconds']:7.1f} s, {figures['cpu_s']:7.1f} of CPUs"
            print(f"  {int(size):>12,} {step:10} {seconds}, {memory} in the largest process")
    last = max(sizes, key=int)
    if "prepare" in sizes[last]:
        hours = sizes[last]["prepare"]["seconds"] * LARGE / int(last) / 3600
        print(f"  {LARGE:,} events: {hours:.1f} h of prepare, if time goes on with their number")
    for name, bar in bars(sizes).items():
        print(f"  {'holds' if bar['holds'] else 'MISSED'}: {name}: {bar['value']:.3g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10**7, 4 * 10**7])
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--work", type=Path, default=Path("runs/bench/scale"))
    parser.add_argument("--out", type=Path, default=Path("runs/bench/scale.json"))
    parser.add_argument("--run", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        config = world_config(args.folder, evaluate={"users": EVALUATED_USERS})
        print(json.dumps(STEPS[args.run](config)))
        return
    sizes = json.loads(args.out.read_text())["sizes"] if args.out.exists() else {}
    for size in args.sizes:
        folder = args.work / str(size)
        write_world(folder, size)
        for step in args.steps:
            sizes.setdefault(str(size), {})[step] = measure(step, folder)
            report(sizes, args.out)


if __name__ == "__main__":
    main()
