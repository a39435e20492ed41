"""Measures what this machine's GPU does of decoding, encoding, training and ranking: one JSON.

`make gpu-check` runs it, in at most 8 minutes. Parts whose packages are missing say so and the rest
goes on. With `--device cpu --small` it runs anywhere, to try its code; its figures then mean
nothing, and no bar is held against them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from recsys.cluster import num_cores
from tests.gpu.decoding import Scale

LIMIT_S = 8 * 60
TIME_IS_OVER = "the time is over"
PARTS = {
    "decode": "tests.gpu.decoding",
    "encode": "tests.gpu.decoding",
    "fused": "tests.gpu.decoding",
    "validate": "tests.gpu.steps",
    "train": "tests.gpu.steps",
    "feed": "tests.gpu.feeding",
    "compiled": "tests.gpu.decoding",
}
"""The parts in their order, and the modules that have them as functions."""


def main() -> None:
    arguments = parse()
    scale = make_scale(arguments, Path(tempfile.gettempdir()) / "recsys-gpu-check")
    began, parts = time.perf_counter(), dict[str, Any]()
    for name in arguments.parts:
        left_s = LIMIT_S - (time.perf_counter() - began)
        print(f"{name} …", flush=True)
        parts[name] = run_part(name, scale, left_s) if left_s > 0 else {"skipped": TIME_IS_OVER}
        print(json.dumps(parts[name], indent=1), flush=True)
        result = {
            "about": about(scale),
            "seconds": round(time.perf_counter() - began, 1),
            **parts,
            "bars": dict(bars(parts)) if scale.on_gpu else {},
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(result, indent=1))  # what there is, if it is stopped
    print(json.dumps(result["bars"] or "no GPU: no bar is held against these figures", indent=1))
    print(arguments.out)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--small", action="store_true", help="tries the code in under 2 minutes")
    parser.add_argument("--seconds", type=float, help="of each measure")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, default=Path("runs/bench/gpu-check.json"))
    return parser.parse_args()


def make_scale(arguments: argparse.Namespace, folder: Path) -> Scale:
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("gpu-check: torch sees no GPU; --device cpu --small tries the code")
    seconds = arguments.seconds or (0.2 if arguments.small else 6.0)
    return Scale(device, min(num_cores(), 16), seconds, arguments.small, folder)


def run_part(name: str, scale: Scale, left_s: float = LIMIT_S) -> dict[str, Any]:
    """A part's figures, or why there are none: a package that is missing costs its part alone.

    It is stopped where it takes longer than is left.
    """
    began = time.perf_counter()
    signal.signal(signal.SIGALRM, _stop_part)
    signal.setitimer(signal.ITIMER_REAL, left_s)
    try:
        function: Callable[[Scale], dict[str, Any]] = getattr(
            importlib.import_module(PARTS[name]), name
        )
        figures = function(scale)
    except ImportError as error:
        return {"skipped": f"{error.name or error} is not installed"}
    except Exception as error:  # the others are still worth their time; it is said and kept
        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {error}"[:500]}
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return {**figures, "seconds_of_part": round(time.perf_counter() - began, 1)}


def _stop_part(*_: object) -> None:
    raise TimeoutError(TIME_IS_OVER)


def about(scale: Scale) -> dict[str, Any]:
    facts: dict[str, Any] = {"cores": scale.cores, "torch": torch.__version__, "small": scale.small}
    if not scale.on_gpu:
        return {"device": "cpu", **facts}
    card = torch.cuda.get_device_properties(scale.device)
    return {"device": card.name, "memory_gib": round(card.total_memory / 2**30, 1), **facts}


def bars(parts: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The figures that something is asked of; those that could not be measured do not hold."""

    def figure(part: str, *names: str) -> float | None:
        value: Any = parts.get(part, {})
        for name in names:
            value = value.get(name, {}) if isinstance(value, dict) else {}
        return value if isinstance(value, float) else None

    def ratio(one: float | None, other: float | None) -> float | None:
        return one / other if one is not None and other else None

    shares = [figure("encode", name, "share_of_peak") for name in parts.get("encode", {})]
    shares.append(figure("compiled", "share_of_peak"))
    best = max((share for share in shares if share is not None), default=None)
    both, one = figure("decode", "both", "clips_per_s"), figure("decode", "one_core", "clips_per_s")
    over = {
        dim: ratio(
            figure("train", f"10000 rows, dim {dim}, float32, 128 timelines", "events_per_s"),
            figure("train", f"two cores, dim {dim}", "events_per_s"),
        )
        for dim in (64, 256)
    }
    idle = figure("train", "10000 rows, dim 256, bfloat16, 1024 timelines", "gpu_idle")
    made = figure("feed", "cores", "events_per_s")
    learnt = figure("train", "10000 rows, dim 64, float32, 128 timelines", "events_per_s")
    asked = {
        "fused_of_the_slower_half": (figure("fused", "of_the_slower_half"), ">=", 0.9),
        "encoder_share_of_peak": (best, ">=", 0.4),
        "worker_over_one_core": (ratio(both, one), ">=", 12.0),
        "training_over_two_cores": (over[64], ">=", 20.0),
        "training_over_two_cores_at_dim_256": (over[256], ">=", max(20.0, over[64] or 0.0)),
        "gpu_idle_in_training": (idle, "<=", 0.15),
        "steps_made_over_those_learnt": (ratio(made, learnt), ">=", 0.85),
    }
    for name, (value, sign, bar) in asked.items():
        holds = value is not None and (value >= bar if sign == ">=" else value <= bar)
        yield name, {"value": value, "bar": f"{sign} {bar}", "holds": holds}


if __name__ == "__main__":
    main()
