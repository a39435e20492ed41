"""The decode stage over many clips: its speed beside a plain loop's, and its memory.

The plain loop is two processes that read every other clip each, with the same reader, without
sandbox, Ray or output. Memory is the proportional set size of all of the run's processes, Ray's
own among them, with an object store of 1 GB; it is measured over few and over many clips.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from _bars import bar, write
from _clips import make_clips, spread
from _memory import Watched

BAR_SPEED, BAR_GROWTH, BAR_BYTES = 0.85, 1.05, 3e9
STORE_BYTES = 10**9


def run_loop(videos: list[str], sampling: str) -> None:
    """One of the two processes of the plain loop."""
    from recsys.config.data import DecodeConfig
    from recsys.decode.clips import clip_spec
    from recsys.decode.files import LocalFile
    from recsys.decode.readers import read_clip

    spec = clip_spec(DecodeConfig(sampling=sampling))
    start = time.perf_counter()
    for video in videos:
        read_clip(LocalFile(video), spec)
    print(json.dumps({"seconds": time.perf_counter() - start}))


def run_stage(videos: list[str], sampling: str, out: Path) -> None:
    """The stage, on a Ray of two CPUs."""
    import ray

    from recsys.config.data import DecodeConfig
    from recsys.decode.stage import decode_videos

    ray.init(
        num_cpus=2,
        object_store_memory=STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    result = decode_videos(videos, str(out), DecodeConfig(sampling=sampling))
    print(json.dumps(result["decode"]))


def start(what: str, listing: Path, *more: str) -> Watched:
    """Runs a part of this file in a process of its own."""
    return Watched([sys.executable, __file__, "--run", what, "--listing", str(listing), *more])


def result_of(job: Watched) -> dict[str, Any]:
    """What the part printed last."""
    return dict(json.loads(job.output().strip().splitlines()[-1]))


def loop_rate(videos: list[str], args: argparse.Namespace) -> float:
    """Videos a second of the plain loop."""
    jobs = []
    for part in (0, 1):
        listing = args.work / f"loop{part}.json"
        listing.write_text(json.dumps(videos[part::2]))
        jobs.append(start("loop", listing, "--sampling", args.sampling))
    return len(videos) / max(result_of(job)["seconds"] for job in jobs)


def stage(videos: list[str], sampling: str, args: argparse.Namespace) -> tuple[float, int]:
    """Videos a second of the stage, and its peak memory."""
    out, listing = args.work / "out", args.work / "stage.json"
    shutil.rmtree(out, ignore_errors=True)
    listing.write_text(json.dumps(videos))
    job = start("stage", listing, "--sampling", sampling, "--clips-out", str(out))
    result = result_of(job)
    assert result["ok"] == len(videos), result
    shutil.rmtree(out, ignore_errors=True)
    return len(videos) / result["seconds"], job.peak_bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--few", type=int, default=500)
    parser.add_argument("--many", type=int, default=2000)
    parser.add_argument("--different", type=int, default=20, help="clips that are rendered")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--sampling", default="uniform", help="of the comparison of speed")
    parser.add_argument("--memory-sampling", default="keyframes", help="of the other runs")
    parser.add_argument("--work", type=Path, default=Path("runs/bench/clips"))
    parser.add_argument("--out", type=Path, default=Path("runs/bench/decode_pipeline.json"))
    for hidden in ("--run", "--listing", "--clips-out"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        videos = json.loads(Path(args.listing).read_text())
        if args.run == "loop":
            run_loop(videos, args.sampling)
        else:
            run_stage(videos, args.sampling, Path(args.clips_out))
        return
    clips = make_clips(
        args.work / f"B-frames-{args.seconds:g}s", args.different, seconds=args.seconds
    )
    folder = args.work / f"many-{args.different}-{args.seconds:g}s"
    few, many = spread(clips, folder, args.few), spread(clips, folder, args.many)
    loop = loop_rate(few, args)
    speed, memory = stage(few, args.sampling, args)
    runs = {
        "loop": {"videos_per_s": loop},
        f"stage, {args.few} clips, {args.sampling}": {"videos_per_s": speed, "peak_bytes": memory},
    }
    peaks = []
    for videos in (few, many):
        rate, peak = stage(videos, args.memory_sampling, args)
        peaks.append(peak)
        name = f"stage, {len(videos)} clips, {args.memory_sampling}"
        runs[name] = {"videos_per_s": rate, "peak_bytes": peak}
    report(args, runs, speed / loop, peaks)


def report(
    args: argparse.Namespace, runs: dict[str, dict[str, float]], speed: float, peaks: list[int]
) -> None:
    growth, peak = peaks[1] / peaks[0], max(run.get("peak_bytes", 0) for run in runs.values())
    bars = {
        "stage's speed over the plain loop's": (speed, BAR_SPEED, True),
        f"memory at {args.many} over {args.few} clips": (growth, BAR_GROWTH, False),
        "peak memory, bytes": (peak, BAR_BYTES, False),
    }
    result: dict[str, Any] = {
        "sizes": {name: getattr(args, name) for name in ("few", "many", "different", "seconds")},
        "runs": runs,
    }
    for name, run in runs.items():
        memory = f"{run['peak_bytes'] / 1e9:8.2f} GB" if "peak_bytes" in run else ""
        print(f"  {name:36} {run['videos_per_s']:8.2f} videos/s {memory}")
    for name, (value, limit, least) in bars.items():
        bar(result, name, value, limit, least=least)
    write(result, args.out)


if __name__ == "__main__":
    main()
