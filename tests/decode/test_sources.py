"""Where videos lie: local, behind a web server, in an S3 bucket."""

import hashlib
import http.server
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.config.data import DecodeConfig
from recsys.data import storage
from recsys.decode import files
from recsys.decode.clips import DecodeClips
from recsys.decode.contract import Clip, ReadError
from recsys.decode.files import RemoteFile
from recsys.decode.sandbox import Sandbox
from recsys.decode.sources import check_size, find_videos, open_source, sha256_of
from recsys.decode.stamps import FilesNow, look_at_files
from recsys.errors import InputError
from tests.videos import numbered, numbers_of, spec

SCHEMES = ("file", "http", "https", "s3", "gs")


def _open(uri: str, base: str = "", **bounds: float):  # type: ignore[no-untyped-def]
    bounds = {"max_bytes": 10**9, "timeout_s": 20.0, **bounds}
    return open_source(uri, schemes=SCHEMES, base=base, **bounds)  # type: ignore[arg-type]


def _reason(uri: str, **bounds: float) -> str:
    with pytest.raises(ReadError) as caught:
        check_size(_open(uri, **bounds), int(bounds.get("max_bytes", 10**9)))
    assert caught.value.message
    return caught.value.reason


# --- what a folder, a glob or a table names ---


def test_a_folder_gives_all_its_files_but_hidden_ones(tmp_path: Path) -> None:
    for name in ("b.mp4", "a b.mkv", "deep/c.webm", ".hidden.mp4", ".cache/d.mp4", "deep/.e.mp4"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    names = [Path(name).relative_to(tmp_path).as_posix() for name in find_videos(str(tmp_path))]
    assert names == ["a b.mkv", "b.mp4", "deep/c.webm"]


def test_a_glob_and_a_file(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.mp4", "c.mkv", "[d].mp4"):
        (tmp_path / name).write_bytes(b"x")
    names = [Path(name).name for name in find_videos(str(tmp_path / "*.mp4"))]
    assert names == ["[d].mp4", "a.mp4", "b.mp4"]
    assert find_videos(str(tmp_path / "[d].mp4")) == [str(tmp_path / "[d].mp4")]


def test_links_to_folders_of_videos_are_followed(tmp_path: Path) -> None:
    (tmp_path / "disk" / "b").mkdir(parents=True)
    (tmp_path / "disk" / "b" / "a.mp4").write_bytes(b"x")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "all").symlink_to(tmp_path / "disk")
    (tmp_path / "videos" / "b").symlink_to(tmp_path / "disk" / "b")
    (tmp_path / "disk" / "b" / "back").symlink_to(tmp_path / "videos")
    assert find_videos(str(tmp_path / "videos")) == [
        str(tmp_path / "videos" / "all" / "b" / "a.mp4")
    ]


@pytest.mark.parametrize("name", [b"caf\xe9.mp4", b"\xff?#%41 [1]::.mp4"])
def test_a_name_that_is_not_utf8_has_its_clip(name: bytes, tmp_path: Path) -> None:
    """Addresses go into tables, which hold text: the name is spelt as a file URI."""
    numbered(tmp_path / "a.mp4").rename(tmp_path / os.fsdecode(name))
    (tmp_path / os.fsdecode(b"broken \xe9.mp4")).write_bytes(b"no video")
    uris = find_videos(str(tmp_path))
    assert all(uri.isascii() and uri.startswith("file:///") for uri in uris)
    decode = DecodeClips(DecodeConfig(frames=4, size=64))
    rows = decode(pa.table({"uri": uris})).to_pylist()
    assert [row["uri"] for row in rows] == uris
    assert sorted(row["reason"] or "" for row in rows) == ["", "not_video"]
    (why,) = [row["why"] for row in rows if row["why"]]  # and no process of decord's dies of it
    assert why == "not decord: decord opens no file whose name is not UTF-8"
    stamps = {row["uri"]: row["stamp"] for row in rows}
    assert _changed(**stamps) == []
    (tmp_path / os.fsdecode(name)).write_bytes(b"another")
    assert len(_changed(**stamps)) == 1


def test_a_folder_that_spark_wrote_is_a_table(tmp_path: Path) -> None:
    (tmp_path / "_temporary").mkdir()
    for name, uri in (("part-0.parquet", "a"), ("part-1.parquet", "b"), ("_temporary/p.pq", "c")):
        pq.write_table(pa.table({"uri": [uri, None, " "]}), tmp_path / name)
    (tmp_path / "_SUCCESS").touch()
    assert find_videos(str(tmp_path)) == ["a", "b"]


def test_a_table_gives_its_addresses_once_and_in_order(tmp_path: Path) -> None:
    uris = ["s3://bucket/b.mp4", "a.mp4", None, "", "a.mp4"]
    pq.write_table(pa.table({"path": uris, "n": [1, 2, 3, 4, 5]}), tmp_path / "v.parquet")
    expected = ["s3://bucket/b.mp4", "a.mp4"]
    assert find_videos(str(tmp_path / "v.parquet"), column="path") == expected
    assert find_videos(str(tmp_path), column="path") == expected  # a folder of tables


@pytest.mark.parametrize(
    ("column", "said"),
    [("uri", "no column 'uri'; it has path, n"), ("n", "'n' is int64, not text")],
)
def test_a_wrong_column_is_named(column: str, said: str, tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": ["a"], "n": [1]}), tmp_path / "v.parquet")
    with pytest.raises(InputError, match=said):
        find_videos(str(tmp_path / "v.parquet"), column=column)


def test_two_columns_of_addresses_are_refused(tmp_path: Path) -> None:
    table = pa.table([pa.array(["a"])] * 2, names=["uri", "uri"])
    pq.write_table(table, tmp_path / "v.parquet")
    with pytest.raises(InputError, match="more than one column 'uri'; it has uri, uri"):
        find_videos(str(tmp_path / "v.parquet"))


def test_nothing_there_is_said(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none", tmp_path / "*.mp4", tmp_path / "v.parquet"):
        with pytest.raises(InputError, match="no files there"):
            find_videos(str(place))
    (tmp_path / "v.parquet").write_bytes(b"no table")
    with pytest.raises(InputError, match="not a Parquet table"):
        find_videos(str(tmp_path / "v.parquet"))


# --- local files ---


def test_relative_paths_start_from_the_base(tmp_path: Path) -> None:
    (tmp_path / "a%20b.mp4").write_bytes(b"12345")
    file = _open("a%20b.mp4", base=str(tmp_path))
    assert (file.size, file.path) == (5, str(tmp_path / "a%20b.mp4"))
    assert file.read_at(1, 3) == b"234"
    assert file.read_at(9, 3) == b""


def test_a_file_address_is_unquoted(tmp_path: Path) -> None:
    (tmp_path / "a b.mp4").write_bytes(b"12345")
    assert _open(f"file://{tmp_path}/a%20b.mp4").size == 5


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "large").write_bytes(b"123456")
    assert _reason(str(tmp_path / "none.mp4")) == "missing"
    assert _reason(str(tmp_path / "empty" / "a.mp4")) == "missing"
    assert _reason("nul\0byte.mp4") == "missing"
    assert _reason(str(tmp_path)) == "unsupported_source"
    assert _reason("/dev/zero") == "unsupported_source"
    assert _reason(str(tmp_path / "empty")) == "empty"
    assert _reason(str(tmp_path / "large"), max_bytes=5) == "too_many_bytes"
    assert _reason("file://elsewhere/a.mp4") == "unsupported_source"


@pytest.mark.parametrize(
    "uri", ["ftp://host/a.mp4", "ssh://host/a.mp4", "memory://a.mp4", "data://a", "HLS://a.m3u8"]
)
def test_other_kinds_of_address_are_refused(uri: str) -> None:
    assert _reason(uri) == "unsupported_source"


def test_a_chain_of_filesystems_is_no_address(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"12345")
    assert _reason(f"simplecache::file://{tmp_path}/a.mp4") == "missing"


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"video" * 10)
    file = _open(str(tmp_path / "a"))
    assert sha256_of(file, max_bytes=50) == hashlib.sha256(b"video" * 10).hexdigest()
    assert sha256_of(file, max_bytes=49) is None


def _look(**stamps: str | None) -> FilesNow:
    return look_at_files(stamps, schemes=SCHEMES, base="")


def _changed(**stamps: str | None) -> list[str]:
    return _look(**stamps).changed


def test_a_file_of_another_size_or_time_has_changed(tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    Path(path).write_bytes(b"video")
    stamp = _open(path).stamp
    gone = {"none.mp4": "1 2", "file://elsewhere/a": "1 2"}
    assert _look(**{path: stamp, **gone}) == FilesNow([], unseen=2)
    os.utime(path, ns=(0, 1))
    assert _changed(**{path: stamp}) == [path]
    assert _look(**{f"file://{path}": "5 1"}) == FilesNow([], unseen=0)
    Path(path).write_bytes(b"videos")
    os.utime(path, ns=(0, 1))
    assert _changed(**{path: "5 1"}) == [path]


# --- behind a web server ---


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers for the one file of a `Site`."""

    protocol_version = "HTTP/1.1"
    server: "Site"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        if self.server.is_closed:  # a connection that was kept open has a thread of its own
            self.close_connection = True
            return
        data = self.server.data
        self.server.asked.append(self.path)
        if "a.mp4" not in self.path:
            self.send_error(404)
            return
        wanted = self.headers.get("Range") if self.server.ranges else None
        first, last = 0, len(data) - 1
        if wanted:
            first, last = (int(place) for place in wanted.removeprefix("bytes=").split("-"))
            last = min(last, len(data) - 1)
        self.send_response(206 if wanted else 200)
        if self.server.ranges:
            self.send_header("Accept-Ranges", "bytes")
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("ETag", hashlib.sha256(data).hexdigest()[:8])
        self.end_headers()
        if body:
            self.server.sent_bytes.append(last - first + 1)
            self.wfile.write(data[first : last + 1])

    def log_message(self, *_: object) -> None:
        pass


class Site(http.server.ThreadingHTTPServer):
    """A web server of one file, and how much of it was sent each time."""

    daemon_threads = True

    def __init__(self, data: bytes, *, ranges: bool):
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.ranges, self.is_closed = data, ranges, False
        self.sent_bytes: list[int] = []
        self.asked: list[str] = []
        self.address = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def server_close(self) -> None:
        """Answers nobody any more."""
        self.is_closed = True
        super().server_close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    sites: list[Site] = []

    def make(*, ranges: bool = True, data: bytes | None = None) -> Site:
        if data is None:
            data = numbered(tmp_path / "a.mp4", options={"bf": "0"}).read_bytes()
        sites.append(Site(data, ranges=ranges))
        return sites[-1]

    yield make
    for made in sites:
        made.shutdown()
        made.server_close()


def _clip_of(uri: str, **settings: object) -> Clip:
    sandbox = Sandbox(max_memory_bytes=512 * 2**20)
    file = _open(uri)
    try:
        return sandbox.read(file, spec(**settings), name="a.mp4")
    finally:
        file.close()
        sandbox.close()


def test_a_small_file_is_fetched_whole_and_read_by_decord(site: Callable[..., Site]) -> None:
    clip = _clip_of(f"{site().address}/a.mp4")
    assert (clip.reader, numbers_of(clip.frames)) == ("decord", [3, 9, 15, 21])


def test_a_larger_file_is_read_by_ranges(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "FETCHED_WHOLE_BYTES", 0)
    made = site()
    clip = _clip_of(f"{made.address}/a.mp4")
    assert (clip.reader, numbers_of(clip.frames)) == ("pyav", [3, 9, 15, 21])


AS_GIVEN = [
    "/a.mp4?X-Amz-Credential=AKID%2F20240501%2Feu-west-1%2Fs3%2Faws4_request&X-Amz-Signature=0f",
    "/it%27s%40home%7Ea.mp4",
    "/x%2Fa.mp4?sig=Zm9v%2Bbar%3D%3D&sp=r",
    "/%e4%BD%a0a.mp4?q=%7e",
    "/a.mp4?name=it's@home~&list=[1]&plus=a+b",
    "/folder//./a.mp4",
]


@pytest.mark.parametrize("path", AS_GIVEN)
@pytest.mark.parametrize("ranges", [True, False])
def test_an_address_is_asked_for_byte_for_byte(
    path: str, ranges: bool, site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "FETCHED_WHOLE_BYTES", 0)
    made = site(ranges=ranges, data=b"12345")
    uri = f"{made.address}{path}"
    file = _open(uri)
    assert file.read_at(0, 5) == b"12345"
    file.close()
    assert _look(**{uri: file.stamp}) == FilesNow([], unseen=0)
    with storage.open_input(uri) as opened:
        assert opened.read() == b"12345"
    assert set(made.asked) == {path}


def test_what_no_address_may_hold_is_encoded_first(site: Callable[..., Site]) -> None:
    made = site(data=b"12345")
    for path, asked in {"/b a.mp4": "/b%20a.mp4", "/\u00fca.mp4": "/%C3%BCa.mp4"}.items():
        made.asked.clear()
        assert _open(f"{made.address}{path}").size == 5
        assert set(made.asked) == {asked}


def test_no_more_than_the_asked_ranges_are_fetched(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "FETCHED_WHOLE_BYTES", 0)
    made = site(data=bytes(range(256)) * 4096 * 8)  # 8 MiB
    file = _open(f"{made.address}/a.mp4")
    assert file.path is None
    assert file.read_at(5_000_001, 4) == bytes([65, 66, 67, 68])
    assert 4 <= sum(made.sent_bytes) <= 2 * 2**20
    file.close()


def test_a_server_without_ranges_is_read_whole(
    site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "FETCHED_WHOLE_BYTES", 0)
    clip = _clip_of(f"{site(ranges=False).address}/a.mp4")
    assert numbers_of(clip.frames) == [3, 9, 15, 21]


def test_another_file_behind_the_same_address_has_changed(site: Callable[..., Site]) -> None:
    made = site(data=b"video")
    uri = f"{made.address}/a.mp4"
    stamp = _open(uri).stamp
    assert stamp is not None and stamp.startswith("5 ")
    assert _changed(**{uri: stamp}) == []
    made.data = b"other"
    none = f"{made.address}/none.mp4"
    assert _look(**{uri: stamp, none: "1 1"}) == FilesNow([uri], unseen=1)
    made.shutdown()
    made.server_close()
    assert _look(**{uri: stamp}) == FilesNow([], unseen=1)


def test_the_temporary_file_goes(site: Callable[..., Site]) -> None:
    file = _open(f"{site().address}/a.mp4")
    assert isinstance(file, RemoteFile)
    path = Path(file.path or "")
    assert path.stat().st_size == file.size
    file.close()
    assert not path.exists()


def test_what_a_server_may_answer(site: Callable[..., Site]) -> None:
    address = site().address
    assert _reason(f"{address}/none.mp4") == "missing"
    assert _reason(f"{address}/a.mp4", max_bytes=100) == "too_many_bytes"
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert _reason(f"http://127.0.0.1:{closed.getsockname()[1]}/a.mp4") == "unreachable"
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        assert _reason(f"http://127.0.0.1:{port}/a.mp4", timeout_s=0.3) == "unreachable"


# --- in a bucket ---


@pytest.fixture
def bucket(s3_bucket: str, tmp_path: Path) -> str:
    """A folder of a bucket that holds a video."""
    import s3fs

    folder = f"{s3_bucket}/in"
    s3fs.S3FileSystem().pipe(f"{folder}/a.mp4", numbered(tmp_path / "a.mp4").read_bytes())
    return folder


def test_a_bucket(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_videos(bucket) == [f"{bucket}/a.mp4"]
    assert find_videos(f"{bucket}/*.mp4") == [f"{bucket}/a.mp4"]
    assert numbers_of(_clip_of(f"{bucket}/a.mp4").frames) == [3, 9, 15, 21]
    monkeypatch.setattr(files, "FETCHED_WHOLE_BYTES", 0)
    assert numbers_of(_clip_of(f"{bucket}/a.mp4").frames) == [3, 9, 15, 21]
    stamp = _open(f"{bucket}/a.mp4").stamp
    assert _look(**{f"{bucket}/a.mp4": stamp}) == FilesNow([], unseen=0)
    assert _changed(**{f"{bucket}/a.mp4": "1 old"}) == [f"{bucket}/a.mp4"]
    assert _reason(f"{bucket}/none.mp4") == "missing"
    assert _reason("s3://no-such-bucket/a.mp4") in ("missing", "unreachable")
