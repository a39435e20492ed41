"""Files that would have FFmpeg open other files or addresses do not get it to."""

import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recsys.decode.contract import Clip, ClipSpec, ReadError
from tests.videos import numbered, numbers_of, spec

Read = Callable[[Path, ClipSpec], Clip]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A good video that lies beside the hostile file; no clip may show it."""
    folder = tmp_path / "secret"
    folder.mkdir()
    return numbered(folder / "a.ts")


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """A web server's address, and what was asked of it."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{made.server_port}", asked
        made.shutdown()


def _playlists(target: str) -> dict[str, str]:
    return {
        "hls": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXT-X-MEDIA-SEQUENCE:0\n"
        f"#EXTINF:2.4,\n{target}\n#EXT-X-ENDLIST\n",
        "master": f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{target}\n",
        "concat": f"ffconcat version 1.0\nfile '{target}'\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        "m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT2S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011">'
        '<Period><AdaptationSet mimeType="video/mp2t"><Representation id="1" bandwidth="1">'
        f"<BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>",
        "asx": f'<asx version="3.0"><entry><ref href="{target}"/></entry></asx>',
        "rtsp": f"rtsptext\n{target}\n",
        "metadata": f";FFMETADATA1\ntitle={target}\n",
        "subtitles": "1\n00:00:00,000 --> 00:00:02,000\nhello\n\n",
        "vobsub": "# VobSub index file, v7\nsize: 720x576\nid: en, index: 0\n"
        "timestamp: 00:00:00:000, filepos: 000000000\n",
        "ansi": "\x1b[31mred\x1b[0m\n" * 40,
    }


@pytest.mark.parametrize("kind", sorted(_playlists("")))
@pytest.mark.parametrize("ending", ["mp4", "m3u8", "ffconcat", "sdp", "mpd", "idx", "txt"])
def test_a_playlist_is_not_followed(
    kind: str, ending: str, read: Read, secret: Path, tmp_path: Path
) -> None:
    path = tmp_path / f"a.{ending}"
    path.write_text(_playlists(str(secret))[kind])
    with pytest.raises(ReadError) as caught:
        read(path, spec())
    assert caught.value.reason in ("not_video", "unsupported_format")


@pytest.mark.parametrize("kind", ["hls", "master", "concat", "dash", "asx"])
def test_no_address_is_asked(
    kind: str, read: Read, server: tuple[str, list[str]], tmp_path: Path
) -> None:
    address, asked = server
    path = tmp_path / "a.mp4"
    path.write_text(_playlists(f"{address}/a.ts")[kind])
    with pytest.raises(ReadError):
        read(path, spec())
    assert asked == []


def test_a_relative_playlist_is_not_followed(read: Read, secret: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_text(_playlists("secret/a.ts")["concat"])
    with pytest.raises(ReadError) as caught:
        read(path, spec())
    assert caught.value.reason == "unsupported_format"


@pytest.mark.parametrize(
    "name",
    [
        "two words.mp4",
        "-rf.mp4",
        "http:a.mp4",
        "concat:a|b.mp4",
        "frame%03d.mp4",
        "üñí-视频.mp4",
        "'quoted' \"name\" $(x) `y`.mp4",
        "new\nline.mp4",
        "crypto:key.mp4",
        "no_ending",
        "*[glob]?.mp4",
    ],
)
@pytest.mark.parametrize("bframes", ["0", "3"])  # decord's way and PyAV's
def test_odd_names_are_only_names(name: str, bframes: str, read: Read, tmp_path: Path) -> None:
    made = numbered(tmp_path / "made.mp4", options={"bf": bframes, "crf": "10"})
    clip = read(made.rename(tmp_path / name), spec())
    assert numbers_of(clip.frames) == [3, 9, 15, 21]
