"""What a trial of a sweep costs beyond its training, and what ending weak trials early saves.

`tiny`: 8 trials of one epoch on a tiny world, where training takes a second and nearly all is
overhead. Beside it, what each trial cost when it was a `TorchTrainer.fit` of its own. `demo`: 16
trials on the demo world with ASHA, and the same sweep with every trial to its end.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from recsys.config.run import load_config
from recsys.demo.viewers import WorldSettings
from recsys.demo.world import make_world

SPACE = "tuning/spaces/optimizer.yaml"
SMALL = (
    *("prepare.partitions=3", "decode.frames=4", "decode.size=32"),
    *("model.dim=16", "model.id_dim=16", "model.feature_dim=4", "model.state_dim=16"),
    *("model.content.frame_dim=16", "model.content.dim=16", "train.batch_timelines=16"),
    *("train.epochs=1", "train.refit=false", "tune.trials=8", "tune.concurrent=1"),
)
FITS = 3


def recsys(*arguments: str) -> float:
    """Runs a command; gives its seconds."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "recsys", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {done.stdout}{done.stderr}")
    return time.perf_counter() - started


def trained_s(epochs: list[dict[str, float]]) -> float:
    """Seconds of training and validation alone."""
    return sum(epoch["epoch_s"] + epoch["validate_s"] for epoch in epochs)


def rows(run: Path) -> list[dict[str, Any]]:
    """The trials of a sweep, each with the time when it ended."""
    paths = sorted((run / "tune" / "trials").glob("*.json"))
    return [json.loads(path.read_text()) | {"ended": path.stat().st_mtime} for path in paths]


def fits(config: Path, settings: list[str]) -> list[float]:
    """Seconds beyond training of a few `TorchTrainer.fit`, one after the other in one Ray."""
    from recsys import cluster
    from recsys.train.trainer import make_trainer

    cluster.connect()
    took = []
    for number in range(FITS):
        trainer = make_trainer(load_config(str(config), settings), name=f"bench-{number}")
        started = time.perf_counter()
        result = trainer.fit()
        took.append(time.perf_counter() - started - trained_s([result.metrics]))
    return took


def tiny(folder: Path) -> dict[str, dict[str, object]]:
    """The cost of a trial beyond its training."""
    make_world(folder / "world", world=WorldSettings.tiny())
    config, run = folder / "world" / "run.yaml", folder / "run"
    settings = [f"run={run}", *SMALL]
    for stage in ("prepare", "decode"):
        recsys(stage, "--config", str(config), *settings)
    whole = recsys("tune", "--config", str(config), "--space", SPACE, *settings)
    trials = rows(run)
    training = sum(trained_s(trial["epochs"]) for trial in trials)
    ends = [trial["ended"] for trial in trials]
    between = (max(ends) - min(ends) - training * 7 / 8) / 7
    before = fits(config, settings)
    print(f"8 trials of 1 epoch: {whole:.1f} s in all, of which training {training:.1f} s")
    print(
        f"  beyond training: {(whole - training) / 8:.2f} s a trial with Ray's start and the end,"
    )
    print(f"  {between:.2f} s from one trial to the next")
    print("  a TorchTrainer.fit each, as before: " + ", ".join(f"{s:.1f}" for s in before) + " s")
    ratio = between / min(before)
    return {"a trial beyond training, of a fit's": bar(ratio, 0.25, ratio <= 0.25)}


def demo(folder: Path, trials: int) -> dict[str, dict[str, object]]:
    """The best of a sweep beside the config as it is, and the time to it."""
    make_world(folder / "world", world=WorldSettings())
    config, reached = folder / "world" / "run.yaml", {}
    for scheduler in ("asha", "none"):
        run = folder / scheduler
        settings = [f"run={run}", f"tune.trials={trials}", f"tune.scheduler={scheduler}"]
        for stage in ("prepare", "decode"):
            recsys(stage, "--config", str(config), *settings)
        took = recsys("tune", "--config", str(config), "--space", SPACE, *settings)
        reached[scheduler] = told(run, scheduler, took)
    wanted = min(best for best, _, _ in reached.values())
    times = {name: time_to(wanted, curve) for name, (_, _, curve) in reached.items()}
    print(f"  to a score of {wanted:.4f}: " + ", ".join(f"{n} {s:.0f} s" for n, s in times.items()))
    best, default, _ = reached["asha"]
    saved = times["asha"] / times["none"]
    return {
        "the best less the config as it is": bar(best - default, 0, best > default),
        "time to that quality, ASHA of all to the end": bar(saved, 1, saved < 1),
    }


def told(run: Path, name: str, took: float) -> tuple[float, float, list[tuple[float, float]]]:
    """Prints a sweep; gives the best score, that of the config as it is, and scores over time."""
    report, trials = json.loads((run / "tune" / "report.json").read_text()), rows(run)
    first = max(epoch["score"] for epoch in trials[0]["epochs"])
    started = (run / "tune" / "sweep.json").stat().st_mtime
    curve = sorted(
        (trial["ended"] - started, max(epoch["score"] for epoch in trial["epochs"]))
        for trial in trials
        if trial["epochs"] and trial["state"] != "failed"
    )
    epochs = sum(len(trial["epochs"]) for trial in trials)
    print(
        f"{name}: {len(trials)} trials, {epochs} epochs, {took:.0f} s; best {report['score']:.4f},"
    )
    print(f"  as it is {first:.4f}; test {report['test']}")
    return report["score"], first, curve


def time_to(wanted: float, curve: list[tuple[float, float]]) -> float:
    """Seconds until a trial with such a score had ended."""
    return next(seconds for seconds, score in curve if score >= wanted)


def bar(value: float, wanted: float, holds: bool) -> dict[str, object]:
    return {"value": round(value, 4), "bar": wanted, "holds": holds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("tiny", "demo"))
    parser.add_argument("--trials", type=int, default=16, help="of the demo world's sweeps")
    arguments = parser.parse_args()
    bars: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory() as folder:
        if arguments.only != "demo":
            bars |= tiny(Path(folder, "tiny"))
        if arguments.only != "tiny":
            bars |= demo(Path(folder, "demo"), arguments.trials)
    out = Path("runs/bench/sweep.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"bars": bars}, indent=2) + "\n")
    for name, line in bars.items():
        print(f"{'holds ' if line['holds'] else 'MISSED'} {name}: {line['value']} ({line['bar']})")


if __name__ == "__main__":
    main()
