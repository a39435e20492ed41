"""A decoder that crashes, hangs or swells costs one file and nothing else."""

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recsys.decode import sandbox as sandbox_module
from recsys.decode.contract import ReadError
from recsys.decode.files import LocalFile
from recsys.decode.sandbox import Sandbox
from tests.videos import gray, numbered, numbers_of, render, spec


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox(max_memory_bytes=512 * 2**20)
    yield made
    made.close()


class FarFile:
    """A file that the sandbox reads through its parent; `on_read` runs before each piece."""

    path = None

    def __init__(self, path: Path, on_read: Callable[[int], None]):
        self._data = path.read_bytes()
        self.size = len(self._data)
        self._on_read = on_read
        self.num_reads = 0

    def read_at(self, offset: int, size: int) -> bytes:
        self._on_read(self.num_reads)
        self.num_reads += 1
        return self._data[offset : offset + size]


def _process_of(sandbox: Sandbox) -> int:
    assert sandbox._process is not None
    return sandbox._process.pid


def test_a_far_file_is_read_through_the_parent(sandbox: Sandbox, tmp_path: Path) -> None:
    file = FarFile(numbered(tmp_path / "a.mp4"), lambda _: None)
    assert numbers_of(sandbox.read(file, spec(), name="a.mp4").frames) == [3, 9, 15, 21]
    assert file.num_reads > 0


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL])
def test_a_crash_costs_one_file(number: signal.Signals, sandbox: Sandbox, tmp_path: Path) -> None:
    path = numbered(tmp_path / "a.mp4")
    file = FarFile(path, lambda _: os.kill(_process_of(sandbox), number))
    with pytest.raises(ReadError, match=number.name) as caught:
        sandbox.read(file, spec(), name="a.mp4")
    assert caught.value.reason == "crashed"
    clip = sandbox.read(LocalFile(str(path)), spec(), name="a.mp4")
    assert numbers_of(clip.frames) == [3, 9, 15, 21]


def test_a_crash_of_the_first_reader_leaves_the_second(sandbox: Sandbox, tmp_path: Path) -> None:
    def crash_once(num_reads: int) -> None:
        if num_reads == 0:
            os.kill(_process_of(sandbox), signal.SIGSEGV)

    file = FarFile(numbered(tmp_path / "a.mp4"), crash_once)
    clip = sandbox.read(file, spec(), name="a.mp4")
    assert (clip.reader, numbers_of(clip.frames)) == ("pyav", [3, 9, 15, 21])
    assert clip.why == "not decord: the decoder died"
    assert "SIGSEGV" in clip.said["the decoder died"]


def test_a_decoder_that_hangs_is_stopped(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox_module, "_GRACE_S", 0.1)
    path = numbered(tmp_path / "a.mp4")
    sandbox.read(LocalFile(str(path)), spec(), name="a.mp4")
    process = _process_of(sandbox)
    file = FarFile(path, lambda _: os.kill(process, signal.SIGSTOP))
    with pytest.raises(ReadError) as caught:
        sandbox.read(file, spec(max_decode_s=0.3), name="a.mp4")
    assert caught.value.reason == "too_slow"
    assert not Path(f"/proc/{process}").exists()
    clip = sandbox.read(LocalFile(str(path)), spec(), name="a.mp4")
    assert numbers_of(clip.frames) == [3, 9, 15, 21]


def test_a_long_decode_ends_by_itself(sandbox: Sandbox, tmp_path: Path) -> None:
    path = render(tmp_path / "a.mp4", [gray(3, width=640, height=480)] * 100)
    sandbox.read(LocalFile(str(path)), spec(), name="a.mp4")
    process = _process_of(sandbox)
    with pytest.raises(ReadError) as caught:
        sandbox.read(LocalFile(str(path)), spec(max_decode_s=0.005), name="a.mp4")
    assert caught.value.reason == "too_slow"
    assert _process_of(sandbox) == process  # it looked at the clock; nobody had to kill it


def test_memory_is_bounded(tmp_path: Path) -> None:
    # A frame of 4096 × 4096 takes 25 MB, and a decoder holds some.
    options = {"bf": "0", "preset": "ultrafast"}
    pictures = [gray(number, width=4096, height=4096) for number in range(3)]
    path = render(tmp_path / "a.mp4", pictures, options=options)
    small = Sandbox(max_memory_bytes=72 * 2**20)
    with pytest.raises(ReadError) as caught:
        small.read(LocalFile(str(path)), spec(), name="a.mp4")
    assert caught.value.reason == "too_much_memory"
    other = numbered(tmp_path / "b.mp4")
    assert numbers_of(small.read(LocalFile(str(other)), spec(), name="b.mp4").frames)[0] == 3
    small.close()


@pytest.mark.parametrize(
    ("limit", "reason"),
    [({"max_pixels": 64 * 48 - 1}, "too_many_pixels"), ({"max_duration_s": 0.5}, "too_long")],
)
@pytest.mark.parametrize("ending", ["mp4", "h264"])
def test_limits(
    limit: dict[str, float], reason: str, ending: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    path = numbered(tmp_path / f"a.{ending}")
    with pytest.raises(ReadError) as caught:
        sandbox.read(LocalFile(str(path)), spec(**limit), name=path.name)
    assert caught.value.reason == reason


def test_a_server_that_stops_answering_is_no_fault_of_the_file(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    def gone(num_reads: int) -> None:
        raise ReadError("unreachable", "no answer in 1 s")

    with pytest.raises(ReadError) as caught:
        sandbox.read(FarFile(numbered(tmp_path / "a.mp4"), gone), spec(), name="a.mp4")
    assert caught.value.reason == "unreachable"


def test_the_process_dies_with_its_parent(tmp_path: Path) -> None:
    path = numbered(tmp_path / "a.mp4")
    code = (
        "import os, signal\n"
        "from recsys.decode.files import LocalFile\n"
        "from recsys.decode.sandbox import Sandbox\n"
        "from tests.videos import spec\n"
        "sandbox = Sandbox(max_memory_bytes=2**29)\n"
        f"sandbox.read(LocalFile({str(path)!r}), spec(), name='a.mp4')\n"
        "print(sandbox._process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    try:
        child = os.pidfd_open(int(done.stdout))
    except ProcessLookupError:
        return
    assert select.select([child], [], [], 10)[0], "the sandbox outlives its parent"


def test_the_process_outlives_the_thread_that_first_needed_it(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    path = numbered(tmp_path / "a.mp4")
    processes = []

    def read() -> None:
        sandbox.read(LocalFile(str(path)), spec(), name="a.mp4")
        processes.append(_process_of(sandbox))

    for _ in range(2):
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()
    assert processes[0] == processes[1]


def test_no_secret_reaches_the_process(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    sandbox.read(LocalFile(str(numbered(tmp_path / "a.mp4"))), spec(), name="a.mp4")
    environment = Path(f"/proc/{_process_of(sandbox)}/environ").read_bytes()
    assert b"AWS_SECRET" not in environment
