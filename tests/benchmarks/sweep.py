"""What a trial of a sweep costs beyond its training, and what ending weak trials early saves.

`tiny`: 8 trials of one epoch on a tiny world, where training takes a second and nearly all is
overhead. Beside it, what each trial cost when it was a `TorchTrainer.fit` of its own. `demo`: 16
trials on a smaller demo world with ASHA, and the same sweep with every trial to its end, one trial
at a time and by CPU seconds too; then the first one again, killed in the middle and gone on with.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recsys.config.run import load_config
from recsys.demo.viewers import WorldSettings
from recsys.demo.world import make_world
from tests.benchmarks._memory import family

SPACE = "tuning/spaces/optimizer.yaml"
SMALL = (
    *("prepare.partitions=3", "decode.frames=4", "decode.size=32"),
    *("model.dim=16", "model.id_dim=16", "model.feature_dim=4", "model.state_dim=16"),
    *("model.content.frame_dim=16", "model.content.dim=16", "train.batch_timelines=16"),
    *("train.epochs=1", "train.refit=false", "tune.trials=8", "tune.concurrent=1"),
)
FITS = 3
WORLD = WorldSettings(num_videos=160, num_users=800, size=64, clip_s=1.0)
DEMO = ("train.epochs=4", "tune.concurrent=1")
SAMPLE_S = 0.5


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


@dataclass
class Sweep:
    """A sweep that has ended, or was killed."""

    run: Path
    """Its run folder."""
    spent: list[tuple[float, float]] = field(default_factory=list)
    """Over time, in seconds since 1970: the CPU seconds of all its processes."""

    @property
    def report(self) -> dict[str, Any]:
        whole: dict[str, Any] = json.loads((self.run / "tune" / "report.json").read_text())
        return whole

    @property
    def done(self) -> dict[int, float]:
        """The trials that are never to run again, by number, with the time when each ended."""
        return {t["number"]: t["ended"] for t in rows(self.run) if t["state"] != "running"}

    def to_score(self, wanted: float) -> tuple[float, float]:
        """Seconds, and CPU seconds, until a trial with such a score had ended."""
        ended = min(
            trial["ended"]
            for trial in rows(self.run)
            if trial["state"] != "failed" and best_score(trial) >= wanted
        )
        cpu_s = next((cpu_s for at, cpu_s in self.spent if at >= ended), self.spent[-1][1])
        return ended - self.spent[0][0], cpu_s


def best_score(trial: dict[str, Any]) -> float:
    return max((epoch["score"] for epoch in trial["epochs"]), default=float("-inf"))


def swept(sweep: Sweep, arguments: list[str], *, kill_at: int | None = None) -> Sweep:
    """Runs a sweep to its end, or kills all of it once so many trials are done."""
    command = [sys.executable, "-m", "recsys", "tune", "--space", SPACE, *arguments]
    seconds: dict[int, float] = {}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        while process.poll() is None:
            seconds |= {pid: cpu_s for pid, cpu_s in family(process.pid).items() if cpu_s}
            sweep.spent.append((time.time(), sum(seconds.values())))
            if kill_at is not None and len(sweep.done) >= kill_at:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return sweep
            time.sleep(SAMPLE_S)
        log.seek(0)
        if process.returncode or kill_at is not None:
            raise SystemExit(f"{' '.join(command)}: {log.read()}")
    return sweep


def demo(folder: Path, trials: int) -> dict[str, dict[str, object]]:
    """The best of a sweep beside the config as it is, the time to it, and what a kill costs."""
    make_world(folder / "world", world=WORLD)
    config, prepared = ["--config", str(folder / "world" / "run.yaml")], folder / "prepared"
    for stage in ("prepare", "decode"):
        recsys(stage, *config, f"run={prepared}", *DEMO)
    asked = [*config, *DEMO, f"tune.trials={trials}"]

    def begin(name: str) -> Sweep:
        """With a copy of what was prepared and decoded once."""
        return Sweep(Path(shutil.copytree(prepared, folder / name)))

    sweeps = {name: begin(name) for name in ("asha", "none")}
    for name, sweep in sweeps.items():
        swept(sweep, [*asked, f"run={sweep.run}", f"tune.scheduler={name}"])
        tell(sweep, name)
    wanted = min(sweep.report["score"] for sweep in sweeps.values())
    wall, cpu = zip(*(sweep.to_score(wanted) for sweep in sweeps.values()), strict=True)
    print(f"  to a score of {wanted:.4f}: with ASHA {wall[0]:.0f} s, {cpu[0]:.0f} CPU seconds;")
    print(f"  all to the end {wall[1]:.0f} s, {cpu[1]:.0f} CPU seconds", flush=True)
    gain = sweeps["asha"].report["score"] - best_score(rows(sweeps["asha"].run)[0])
    again, same = killed(begin("killed"), asked, trials // 2, sweeps["asha"])
    return {
        "the best less the config as it is": bar(gain, 0, gain > 0),
        "time to that quality, ASHA of all to the end": bar(
            wall[0] / wall[1], 1, wall < wall[::-1]
        ),
        "CPU time to that quality, likewise": saved(*cpu),
        "trials run again after kill -9": bar(again, 0, not again),
        "the same winner after kill -9": bar(same, 1, same),
    }


def saved(ours: float, theirs: float) -> dict[str, object]:
    return bar(ours / theirs, 1, ours < theirs)


def killed(sweep: Sweep, asked: list[str], kill_at: int, whole: Sweep) -> tuple[int, bool]:
    """Kills a sweep and goes on with it: finished trials that ran again; whether the same wins."""
    arguments = [*asked, f"run={sweep.run}", "tune.scheduler=asha"]
    before = swept(sweep, arguments, kill_at=kill_at).done
    after = swept(sweep, [*arguments, "--resume"]).done
    again = sum(after[number] != ended for number, ended in before.items())
    print(f"  killed when {len(before)} were done: {again} of them run again", flush=True)
    tell(sweep, "killed")
    # Not its figures: two processes add up in other orders, and the epochs make more of it.
    return again, all(sweep.report[name] == whole.report[name] for name in ("winner", "best"))


def tell(sweep: Sweep, name: str) -> None:
    """Prints what a sweep found and cost."""
    trials, report, (started, _) = rows(sweep.run), sweep.report, sweep.spent[0]
    ended, cpu_s = sweep.spent[-1]
    epochs = sum(len(trial["epochs"]) for trial in trials)
    print(f"{name}: {len(trials)} trials, {epochs} epochs, {ended - started:.0f} s, ", end="")
    print(f"{cpu_s:.0f} CPU seconds; best {report['score']:.4f}, trial {report['winner']},")
    print(f"  as it is {best_score(trials[0]):.4f}; test {report['test']}", flush=True)


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
