from pathlib import Path

import pyarrow as pa
import pytest

from recsys.config.data import DecodeConfig
from recsys.config.run import ContentConfig
from recsys.decode.actor.processes import Processes, ProcessSet, shared_processes
from recsys.decode.clips import DecodeClips, clip_spec
from recsys.decode.files import LocalFile
from tests.videos import numbered

MIB = 2**20


def _visible(pid: int) -> str | None:
    """CUDA_VISIBLE_DEVICES of a running process."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    values = [e.split(b"=", 1)[1].decode() for e in entries if e.startswith(b"CUDA_VISIBLE")]
    return values[0] if values else None


def test_only_those_of_the_hardware_see_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8932f937")
    file = LocalFile(str(numbered(tmp_path / "a.mp4")))
    processes = Processes(ProcessSet(2, in_hardware=1), max_memory_bytes=512 * MIB)
    visible, loaded = [], []
    with processes.one() as first, processes.one() as second, processes.one() as third:
        for sandbox in (first, second, third):
            sandbox.read(file, clip_spec(DecodeConfig(frames=2, size=32)), name="a.mp4")
            assert sandbox._process is not None
            visible.append(_visible(sandbox._process.pid))
            loaded.append(Path(f"/proc/{sandbox._process.pid}/maps").read_text())
    processes.close()
    assert visible == ["GPU-8932f937", "", ""]
    assert not any("libcuda" in maps or "libtorch" in maps for maps in loaded[1:])


def test_those_that_are_alike_are_shared() -> None:
    one = shared_processes(ProcessSet(2), max_memory_bytes=512 * MIB)
    assert shared_processes(ProcessSet(2), max_memory_bytes=512 * MIB) is one
    assert shared_processes(ProcessSet(3), max_memory_bytes=512 * MIB) is not one
    assert shared_processes(ProcessSet(2), max_memory_bytes=511 * MIB) is not one


def test_two_processes_and_one_encoder_decode_a_batch(tmp_path: Path) -> None:
    """The whole of an actor, on a CPU: the same features as by one process, in the same order."""
    videos = [str(numbered(tmp_path / f"{name}.mp4", num=8 + n)) for n, name in enumerate("abcde")]
    broken = tmp_path / "text.mp4"
    broken.write_text("no video")
    uris = [*videos[:2], str(broken), *videos[2:]]
    config = DecodeConfig(frames=4, size=32, features=True, poster_size=0)
    content = ContentConfig(encoder="small_cnn")
    tables = [
        DecodeClips(config, content=content, processes=wanted)(pa.table({"uri": uris}))
        for wanted in (ProcessSet(1), ProcessSet(2))
    ]
    timing = ["decode_s", "encode_s"]
    assert tables[1].column("uri").to_pylist() == uris
    assert tables[0].drop_columns(timing) == tables[1].drop_columns(timing)
    assert tables[1].column("reason").to_pylist()[2] == "not_video"
    assert min(tables[1].column("decode_s").to_pylist()) > 0
    encode_s = tables[1].column("encode_s").to_pylist()
    assert encode_s[2] == 0 and min(encode_s[:2] + encode_s[3:]) > 0
