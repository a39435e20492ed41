"""How prepare, a pass of batches, evaluate, publish and a server's start grow with the events.

Events of two sizes are made (`_events.py`) and taken through the stages, each in a process of its
own; the model's weights are random, for its figures mean nothing here. Measured are wall and CPU
seconds, and the most private memory of all processes together and of the largest: what they have
written to, for pages of mapped files are the system's to drop.

Polars makes the same timelines, in memory and without any check, as a measure of the CPU seconds.
A size or a step alone (`--sizes`, `--steps`) is measured anew, and the others are kept as they are
in the result's file. A larger catalogue (`--videos`) has a file of its own.
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
from _bars import bar, write
from _events import world_config, write_world
from _memory import Watched

from recsys.config.run import RunConfig
from recsys.data.run_folder import RunFolder
from recsys.data.storage import read_json

BAR_GROWTH, BAR_BYTES, BAR_POLARS = 1.15, 3e9, 2.0
STORE_BYTES = 10**9
BATCH_PARTITIONS = 4
EVALUATED_USERS = 20_000
LARGE = 10**9
PEAK_OF = "most bytes of a "


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
    """Steps of some partitions, as a training worker makes them; the times are those of all."""
    from recsys.prepare.prepared import Prepared
    from recsys.schema import VALID
    from recsys.train.loop import Job, make_batcher

    prepared = Prepared(config)
    batcher, rng = make_batcher(Job(config, VALID, 1), prepared), np.random.default_rng(0)
    events = steps = 0
    begin, busy = time.perf_counter(), time.process_time()
    for number in range(BATCH_PARTITIONS):
        timelines = prepared.timelines(number)
        events += len(timelines.video_rows)
        for starts, stops in batcher.plan(timelines, rng):
            batcher.make(timelines, starts, stops, rng)
            steps += 1
    seconds, cpu_s = time.perf_counter() - begin, time.process_time() - busy
    total = sum(read_json(prepared.folder.report_of("prepare"))["events"].values())
    whole = {"seconds": seconds * total / events, "cpu_s": cpu_s * total / events}
    return {**whole, "events_per_s": events / seconds, "steps": steps}


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
    named = {f"{PEAK_OF}{name}": peak for name, peak in job.peaks.items()}
    return {"cpu_s": job.cpu_s, **figures, **memory, **named}


def bars(sizes: dict[str, dict[str, dict[str, float]]]) -> dict[str, tuple[float, float]]:
    """What must hold, of what was measured: each figure, and what it may be at most."""
    checked: dict[str, tuple[float, float]] = {}
    few, many = min(sizes, key=int), max(sizes, key=int)
    for step in [step for step in sizes[many] if step != "polars"]:
        figures, name = sizes[many][step], f"{step}: memory of the largest process, bytes"
        checked[name] = (figures["largest_bytes"], BAR_BYTES)
        if step in sizes[few] and few != many:
            growth = figures["cpu_s"] / sizes[few][step]["cpu_s"] / (int(many) / int(few))
            checked[f"{step}: growth of CPU seconds over that of the events"] = (growth, BAR_GROWTH)
    ours = sizes[many].get("prepare")
    if ours and "polars" in sizes[many]:
        ratio = ours["cpu_s"] / sizes[many]["polars"]["cpu_s"]
        checked["prepare: CPU seconds over those of polars"] = (ratio, BAR_POLARS)
    return checked


def report(sizes: dict[str, dict[str, dict[str, float]]], out: Path) -> None:
    for size, steps in sorted(sizes.items(), key=lambda item: int(item[0])):
        for step, figures in steps.items():
            memory = f"{figures['all_bytes'] / 1e9:5.2f} GB, {figures['largest_bytes'] / 1e9:5.2f}"
            seconds = f"{figures['seconds']:7.1f} s, {figures['cpu_s']:7.1f} of CPUs"
            print(f"  {int(size):>12,} {step:10} {seconds}, {memory} in the largest process")
            peaks = {name: peak for name, peak in figures.items() if name.startswith(PEAK_OF)}
            for name, peak in sorted(peaks.items(), key=lambda item: -item[1]):
                print(f"  {'':23} {name}: {peak / 1e9:.2f} GB")
    extrapolate(sizes)
    result: dict[str, Any] = {"sizes": sizes}
    for name, (value, limit) in bars(sizes).items():
        bar(result, name, value, limit, least=False)
    write(result, out)


def extrapolate(sizes: dict[str, dict[str, dict[str, float]]]) -> None:
    """Says what `LARGE` events would take, if all goes on as between the two sizes."""
    few, many = min(sizes, key=int), max(sizes, key=int)
    if few == many:
        return
    further = (LARGE - int(many)) / (int(many) - int(few))
    for step in [step for step in sizes[few] if step in sizes[many]]:
        small, large = sizes[few][step], sizes[many][step]
        cpu_s, size = (
            large[figure] + (large[figure] - small[figure]) * further
            for figure in ("cpu_s", "largest_bytes")
        )
        told = f"{cpu_s / 3600:.1f} h of a CPU, {size / 1e9:.1f} GB in the largest process"
        print(f"  {LARGE:,} events, if it goes on so: {step} {told}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10**7, 4 * 10**7])
    parser.add_argument("--videos", type=int, help="of each size; else 100,000 for 10 M events")
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
    named = f"-{args.videos}-videos" if args.videos else ""
    out = args.out.with_stem(args.out.stem + named)
    sizes = json.loads(out.read_text())["sizes"] if out.exists() else {}
    for size in args.sizes:
        folder = args.work / f"{size}{named}"
        write_world(folder, size, num_videos=args.videos)
        for step in args.steps:
            sizes.setdefault(str(size), {})[step] = measure(step, folder)
            report(sizes, out)


if __name__ == "__main__":
    main()
