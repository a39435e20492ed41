"""Video files that another server has: who asks is sent there, for what is below a folder alone."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from recsys.bundle.contents import Bundle
from recsys.config.run import ServeConfig
from recsys.live.log.events import EventLog
from recsys.serve.api import make_api
from recsys.serve.service import Service
from recsys.serve.videos.elsewhere import address_elsewhere
from tests.bundles import make_run

AT = {
    "/data/videos": "https://cdn.example/v",
    "/data/videos/old/": "http://media:8081/old/",
    "s3://bucket/clips": "https://bucket.example",
}


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("/data/videos/a.mp4", "https://cdn.example/v/a.mp4"),
        ("file:///data/videos/a.mp4", "https://cdn.example/v/a.mp4"),
        ("/data/videos/x/ü ?#.MP4", "https://cdn.example/v/x/%C3%BC%20%3F%23.MP4"),
        ("/data/videos/old/a.mp4", "http://media:8081/old/a.mp4"),
        ("s3://bucket/clips/a.webm", "https://bucket.example/a.webm"),
        ("/data/videos2/a.mp4", None),
        ("/data/videos/../secret/a.mp4", None),
        ("/data/videos//etc/a.mp4", None),
        ("/data/videos/a.txt", None),
        ("s3://other/clips/a.mp4", None),
        (None, None),
    ],
)
def test_addresses(uri: str | None, address: str | None) -> None:
    assert address_elsewhere(uri, AT) == address


@pytest.mark.parametrize(
    "wrong",
    [
        "cdn.example/v",
        "ftp://cdn.example",
        "https://user:word@cdn.example",
        "https://cdn.example; script-src *",
        "https://cdn.example/v?a=b",
        "https://cdn.example/\r\nSet-Cookie:",
    ],
)
def test_what_is_no_address_of_files_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="is no address of a file server; write http"):
        ServeConfig(files_at={"/data": wrong})


def test_who_asks_for_a_file_is_sent_to_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    here = tmp_path / "here" / "two.mp4"
    here.write_bytes(b"two")
    files_at = {str(tmp_path / "cdn"): "https://cdn.example/v"}
    uris: list[str | None] = [str(tmp_path / "cdn" / "one.mp4"), str(here)]
    run = make_run(tmp_path / "run", uris=uris, serve={"files_at": files_at})
    service = Service(Bundle.load(str(run.run)), EventLog(str(tmp_path / "live.sqlite")))
    client = TestClient(make_api(service), follow_redirects=False)
    sent = client.get("/v1/videos/v1/file")
    assert (sent.status_code, sent.headers["location"]) == (307, "https://cdn.example/v/one.mp4")
    assert client.get("/v1/videos/v2/file").content == b"two"
    policy = client.get("/").headers["content-security-policy"]
    assert "media-src 'self' https://cdn.example;" in policy
    service.close()
