"""Videos a second of this project's decoder, PyAV, torchcodec and decord; one thread each.

All take the same 16 frames of each clip and give them resized to a short side of 112. Each runs in
a process of its own; they take turns clip by clip, so that a busy moment meets all of them. What
counts are seconds of the CPU, our sandbox's among them; those of the clock are reported too.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from _bars import bar, write
from _clips import make_clips

BAR_UNIFORM, BAR_KEYFRAMES = 0.95, 8.0
BAR_FASTEST = {"B-frames": 1.4, "no B-frames": 1.0}
FRAMES, WIDTH, HEIGHT = 16, 199, 112
KINDS = {"B-frames": {}, "no B-frames": {"bf": "0"}}
OTHERS = ("pyav", "torchcodec", "torchcodec-resize", "decord")
READERS = {"fastest": "fastest", "decord-only": "decord"}
OURS = ("ours-uniform", "ours-keyframes", "ours-auto", *(f"ours-{how}" for how in READERS))
Decode = Callable[[str], np.ndarray]
Cost = tuple[float, float]  # seconds of the CPU, seconds of the clock


def by_pyav() -> Decode:
    import av

    def decode(path: str) -> np.ndarray:
        with av.open(path) as container:
            stream = container.streams.best("video")
            stream.codec_context.thread_count = 1
            wanted, pictures = set(indices(stream.frames)), []
            for number, frame in enumerate(container.decode(stream)):
                if number in wanted:
                    small = frame.reformat(width=WIDTH, height=HEIGHT, format="rgb24")
                    pictures.append(small.to_ndarray())
                if len(pictures) == FRAMES:
                    break
        return np.stack(pictures)

    return decode


def by_torchcodec(resize: bool) -> Decode:
    import torch
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    torch.set_num_threads(1)

    def decode(path: str) -> np.ndarray:
        transforms = [Resize((HEIGHT, WIDTH))] if resize else None
        decoder = VideoDecoder(path, num_ffmpeg_threads=1, transforms=transforms)
        frames = decoder.get_frames_at(indices(len(decoder))).data
        if not resize:
            frames = torch.nn.functional.interpolate(frames.float(), (HEIGHT, WIDTH)).byte()
        return frames.numpy()

    return decode


def by_decord() -> Decode:
    import decord

    decord.logging.set_level(decord.logging.ERROR)

    def decode(path: str) -> np.ndarray:
        reader = decord.VideoReader(path, width=WIDTH, height=HEIGHT, num_threads=1)
        return reader.get_batch(indices(len(reader))).asnumpy()

    return decode


def by_us(how: str) -> Decode:
    from recsys.config.data import DecodeConfig
    from recsys.decode.clips import clip_spec
    from recsys.decode.files import LocalFile
    from recsys.decode.sandbox import Sandbox

    reader = READERS.get(how, "auto")
    sampling = how if reader == "auto" else "uniform"
    config = DecodeConfig(frames=FRAMES, size=HEIGHT, sampling=sampling, reader=reader)
    sandbox = Sandbox(max_memory_bytes=config.max_memory_bytes)
    sandboxes.append(sandbox)
    return lambda path: sandbox.read(LocalFile(path), clip_spec(config), name="clip.mp4").frames


sandboxes: list[Any] = []


def cpu_s() -> float:
    """CPU seconds that this process and its sandbox have used."""
    processes = [sandbox._process.pid for sandbox in sandboxes if sandbox._process]
    # The clock of another process (clock_getcpuclockid of the C library).
    return time.process_time() + sum(time.clock_gettime((~pid << 3) | 2) for pid in processes)


def indices(num: int) -> list[int]:
    return [int((part + 0.5) * num / FRAMES) for part in range(FRAMES)]


def serve(method: str) -> None:
    """Decodes each path that comes in and answers with what that cost."""
    makers: dict[str, Callable[[], Decode]] = {
        "pyav": by_pyav,
        "torchcodec": lambda: by_torchcodec(False),
        "torchcodec-resize": lambda: by_torchcodec(True),
        "decord": by_decord,
    }
    ours = method.removeprefix("ours-")
    decode = by_us(ours) if ours != method else makers[method]()
    for line in sys.stdin:
        start, start_cpu = time.perf_counter(), cpu_s()
        assert len(decode(line.strip())) == FRAMES
        print(cpu_s() - start_cpu, time.perf_counter() - start, flush=True)


class Method:
    """A process that decodes in one way."""

    def __init__(self, name: str, environment: dict[str, str]):
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )

    def decode(self, path: Path) -> Cost:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        cpu, clock = self._process.stdout.readline().split()
        return float(cpu), float(clock)

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


def torchcodec_environment(folder: Path) -> tuple[dict[str, str] | None, str]:
    """In what environment torchcodec loads, and with which FFmpeg, or why it does not load.

    It brings no FFmpeg. It gets the one inside decord's wheel, as new as ours, so that decoders and
    not versions are compared; else it takes what the machine has.
    """
    if importlib.util.find_spec("torchcodec") is None:
        return None, "not installed; pip install torchcodec==0.13.0 to compare with it"
    said = ""
    for environment in (decord_libraries(folder), dict(os.environ)):
        code = "import torchcodec; print('FFmpeg', torchcodec.ffmpeg_major_version)"
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True
        )
        if done.returncode == 0:
            return environment, done.stdout.strip()
        said = done.stderr.strip().splitlines()[-1]
    return None, f"could not be loaded; it needs FFmpeg's libraries ({said})"


def decord_libraries(folder: Path) -> dict[str, str]:
    """The environment with the libraries of decord's wheel under their usual names."""
    import decord

    libraries = Path(decord.__file__).parents[1] / "decord2.libs"
    for library in libraries.glob("lib*.so.*"):
        stem, version = library.name.split(".so.")
        link = folder / f"{stem.split('-')[0]}.so.{version.split('.')[0]}"
        if not link.exists():
            link.symlink_to(library)
    paths = [str(folder), str(libraries), os.environ.get("LD_LIBRARY_PATH", "")]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(path for path in paths if path)}


def measure(
    clips: list[Path], environments: dict[str, dict[str, str]], repeats: int
) -> dict[str, Cost]:
    """Videos a second by method, of the CPU and of the clock: each clip's cheapest turn counts."""
    methods = {name: Method(name, environment) for name, environment in environments.items()}
    best = {name: np.full((len(clips), 2), np.inf) for name in methods}
    for method in methods.values():
        method.decode(clips[0])  # warm up
    for _ in range(repeats):
        for number, clip in enumerate(clips):
            for name, method in methods.items():
                best[name][number] = np.minimum(best[name][number], method.decode(clip))
    for method in methods.values():
        method.close()
    rates = {name: (1 / np.median(costs, axis=0)).tolist() for name, costs in best.items()}
    return {name: (cpu, clock) for name, (cpu, clock) in rates.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--work", type=Path, default=Path("runs/bench/clips"))
    parser.add_argument("--out", type=Path, default=Path("runs/bench/decode.json"))
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve)
        return
    rates = {}
    with tempfile.TemporaryDirectory() as libraries:
        environment, said = torchcodec_environment(Path(libraries))
        environments = {
            name: environment if name.startswith("torchcodec") else dict(os.environ)
            for name in (*OTHERS, *OURS)
        }
        used = {name: value for name, value in environments.items() if value is not None}
        for kind, options in KINDS.items():
            folder = args.work / f"{kind.replace(' ', '-')}-{args.seconds:g}s"
            clips = make_clips(folder, args.clips, seconds=args.seconds, **options)
            rates[kind] = measure(clips, used, args.repeats)
    report(args, rates, said)


def report(args: argparse.Namespace, rates: dict[str, dict[str, Cost]], torchcodec: str) -> None:
    bars = {}
    others = [name for name in OTHERS if name in next(iter(rates.values()))]
    for kind, costs in rates.items():
        rate = {name: cpu for name, (cpu, _) in costs.items()}
        best = max(others, key=lambda name: rate[name])
        bars[f"uniform over the best other ({best}), {kind}"] = (
            rate["ours-uniform"] / rate[best],
            BAR_UNIFORM,
        )
        bars[f"fastest over the best other ({best}), {kind}"] = (
            rate["ours-fastest"] / rate[best],
            BAR_FASTEST[kind],
        )
        bars[f"keyframes over uniform, {kind}"] = (
            rate["ours-keyframes"] / rate["ours-uniform"],
            BAR_KEYFRAMES,
        )
    result: dict[str, Any] = {
        "sizes": {name: getattr(args, name) for name in ("clips", "seconds", "repeats")},
        "torchcodec": torchcodec,
        "videos_per_cpu_s": {k: {n: cost[0] for n, cost in r.items()} for k, r in rates.items()},
        "videos_per_s": {k: {n: cost[1] for n, cost in r.items()} for k, r in rates.items()},
    }
    print(f"{args.clips} clips of {args.seconds:g} s, 640x360 H.264, {FRAMES} frames")
    print("videos a second of the CPU (of the clock)")
    print(f"  {'':20}" + "".join(f"{kind:>18}" for kind in rates))
    for name in next(iter(rates.values())):
        cells = [f"{rate[name][0]:.2f} ({rate[name][1]:.2f})" for rate in rates.values()]
        print(f"  {name:20}" + "".join(f"{cell:>18}" for cell in cells))
    print(f"  torchcodec: {torchcodec}")
    for name, (value, limit) in bars.items():
        bar(result, name, value, limit, least=True)
    write(result, args.out)


if __name__ == "__main__":
    main()
