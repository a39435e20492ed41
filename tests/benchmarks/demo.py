"""What each part of the model is worth on the demo world, all videos ranked.

Runs the whole chain as it is, and with one part switched off or replaced, over several training
seeds and worlds: no frames; frames without an ID; the mean of the frames in place of the LSTM; a
frozen random CNN; key frames in place of frames over the whole clip. A variant is compared with the
chain as it is of the same seed and world. World 0 is `recsys demo`'s.

What a user liked before is left out of every ranking, the baselines' too. On each slice the model
must beat the best of them: of all videos, of warm and of cold ones among all, and of warm among
warm and cold among cold ones, where no list gains by what it does not show.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from _bars import bar, write

from recsys.demo.viewers import WorldSettings
from recsys.demo.world import make_world
from recsys.evaluation.metrics.accuracy import WARM_AND_COLD
from recsys.evaluation.report.wording import slice_title

VARIANTS = {
    "as it is": [],
    # With settings that suit IDs alone: those of the demo are for frames.
    "no frames": [
        *("model.content.encoder=none", "model.id_dim=64"),
        *("train.table_lr=0.05", "train.content_first=0"),
    ],
    "no video ID": ["model.use_id=false"],
    "mean of frames": ["model.content.temporal=mean"],
    "frozen random CNN": ["model.content.train_encoder=false"],
    "key frames": ["decode.sampling=keyframes"],
}
METRICS = ("hr@10", "ndcg@10")
SLICES = ("all", *WARM_AND_COLD)
NO_BASELINES = ("model", "model_reranked", "previous")


def measure(world: Path, run: Path, settings: list[str]) -> dict[str, Any]:
    """The evaluation of one run of the chain."""
    command = [sys.executable, "-m", "recsys", "run", "--config", str(world / "run.yaml")]
    command += [f"run={run}", "evaluate.mask_history=true", *settings]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stdout}{done.stderr}")
    evaluation: dict[str, Any] = json.loads((run / "report.json").read_text())["evaluation"]
    return evaluation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--worlds", type=int, nargs="*", default=[0], help="their seeds")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/demo.json"))
    parser.add_argument("--only", nargs="*", default=list(VARIANTS), choices=list(VARIANTS))
    args = parser.parse_args()
    if "as it is" not in args.only:
        parser.error('--only: add "as it is", which the others are compared with')
    by_name: dict[str, list[dict[str, Any]]] = {name: [] for name in args.only}
    with tempfile.TemporaryDirectory() as folder:
        for number in args.worlds:
            world = Path(folder) / f"world-{number}"
            make_world(world, world=WorldSettings(seed=number))
            for seed, name in product(range(args.seeds), args.only):
                run = world / f"{name.replace(' ', '-')}-{seed}"
                settings = [*VARIANTS[name], f"train.seed={seed}"]
                by_name[name].append(measure(world, run, settings))
                shown = line([by_name[name][-1]["model"]])
                print(f"world {number}, seed {seed}, {name}: {shown}", flush=True)
    report(by_name, args.out)


def values(results: list[dict[str, Any]], part: str, metric: str) -> list[float]:
    return [float(result[part][metric]) for result in results]


def line(results: list[dict[str, Any]]) -> str:
    parts = []
    for part in SLICES:
        for metric in METRICS:
            seen = values(results, part, metric)
            spread = f" ± {stdev(seen):.3f}" if len(seen) > 1 else ""
            parts.append(f"{slice_title(part)} {metric} {mean(seen):.3f}{spread}")
    return ", ".join(parts)


def ratio(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], part: str, key: str) -> float:
    return mean(values(ours, part, key)) / max(mean(values(theirs, part, key)), 1e-9)


def gains(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> str:
    """How far the chain as it is lies above a variant, by runs of the same seed and world."""
    parts = []
    for part in SLICES:
        pairs = (values(results, part, "ndcg@10") for results in (ours, theirs))
        above = [one - other for one, other in zip(*pairs, strict=True)]
        won = sum(gain > 0 for gain in above)
        parts.append(f"{slice_title(part)} {mean(above):+.4f} (above in {won} of {len(above)})")
    return ", ".join(parts)


def of_models(by_name: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """The models' figures, without the baselines'."""
    return {name: [result["model"] for result in results] for name, results in by_name.items()}


def baselines_of(results: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Each baseline's figures, run by run."""
    names = [name for name in results[0] if name not in NO_BASELINES]
    return {name: [result[name] for result in results] for name in names}


def best_of(others: dict[str, list[dict[str, Any]]], part: str) -> str:
    """The baseline that is best on a slice."""
    return max(others, key=lambda name: mean(values(others[name], part, "ndcg@10")))


def bars_of(by_name: dict[str, list[dict[str, Any]]]) -> dict[str, tuple[float, float]]:
    """What must hold, of what was run."""
    models = of_models(by_name)
    ours = models["as it is"]
    others = baselines_of(by_name["as it is"])
    bars = {}
    for part in SLICES:
        best = best_of(others, part)
        bars[f"NDCG@10 over the best baseline, {best}, {slice_title(part)}"] = (
            ratio(ours, others[best], part, "ndcg@10"),
            1.0,
        )
    for name, part in (
        ("no frames", "cold"),
        ("no video ID", "all"),
        ("no frames", "all"),
        ("mean of frames", "cold"),
        ("frozen random CNN", "cold"),
    ):
        if name in models:
            bars[f"NDCG@10 over {name}, {part}"] = (ratio(ours, models[name], part, "ndcg@10"), 1.0)
    if "key frames" in models:
        value = ratio(models["key frames"], ours, "all", "ndcg@10")
        bars["NDCG@10 of key frames over frames of the whole clip"] = (value, 0.97)
    return bars


def report(by_name: dict[str, list[dict[str, Any]]], out: Path) -> None:
    first = by_name["as it is"]
    models = of_models(by_name)
    ours = models.pop("as it is")
    print(f"{'as it is':20} {line(ours)}")
    for name, results in models.items():
        print(f"{name:20} {line(results)}")
        print(f"{'':20} NDCG@10 as it is, over this: {gains(ours, results)}")
    for name, results in baselines_of(first).items():
        print(f"{name:20} {line(results)}")
    result: dict[str, Any] = {"runs": by_name}
    for name, (value, limit) in bars_of(by_name).items():
        bar(result, name, value, limit, least=True)
    write(result, out)


if __name__ == "__main__":
    main()
