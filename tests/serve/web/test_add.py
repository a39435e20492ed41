"""The Add view, in a real browser: videos are handed in, followed, refused and taken out."""

import re
import shutil
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from recsys.bundle.contents import Bundle
from recsys.live.log.event import EXPOSURE, Event
from recsys.live.videos.live_videos import LiveVideos
from recsys.serve.videos import desk
from recsys.serve.videos.encoding import Decoded, Encoding
from recsys.serve.videos.fetching import Fetcher
from tests.serve.web._server import PageServer, listening, make_world, serving, with_details
from tests.serve.web.test_operators import everywhere
from tests.serve.web.test_page import BROWSER, DESK, MARKUP, browser, opened, violations

pytest.importorskip("playwright", reason="playwright, which drives the browser, is not installed")
from playwright.sync_api import Browser, expect

pytestmark = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")
__all__ = ["browser"]

ROOT = "http://films.example/clips/"
INSIDE = "http://inside.example/clips/"
SERVE = {"max_k": 20, "max_videos": 40, "video_roots": [ROOT, INSIDE]}
HOSTS = {"films.example": "93.184.216.34", "inside.example": "10.0.0.7"}
"""By name the address that a resolver gives: a public one, and one of a network's own."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("add"), serve=SERVE)


class Films(SimpleHTTPRequestHandler):
    """A web server of a folder, which says nothing, and answers when it may."""

    may_answer = threading.Event()
    may_answer.set()

    def do_GET(self) -> None:
        """Answers as it always does, once it may."""
        assert self.may_answer.wait(60)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def films(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A web server that the one under test takes for that of `films.example`."""
    clips = tmp_path / "web" / "clips"
    clips.mkdir(parents=True)
    shutil.copy(world.parent / "9.mp4", clips / "ninth.mp4")
    shutil.copy(clips / "ninth.mp4", clips.parent / "outside.mp4")
    (clips / "notes.mp4").write_text("no video at all")
    handler = partial(Films, directory=str(clips.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as site:

        def resolve(host: str, _: int) -> list[str]:
            return [HOSTS[host]]

        def connect(address: str, port: int, timeout_s: float) -> socket.socket:
            assert (address, port) == (HOSTS["films.example"], 80)
            return socket.create_connection(("127.0.0.1", site.server_port), timeout_s)

        monkeypatch.setattr(desk, "Fetcher", partial(Fetcher, resolve=resolve, connect=connect))
        thread = threading.Thread(target=site.serve_forever)
        thread.start()
        yield
        site.shutdown()
        thread.join()


@pytest.fixture
def server(world: Path, films: None, tmp_path: Path) -> Iterator[PageServer]:
    with serving(world, tmp_path / "live.sqlite") as server:
        yield server


@everywhere
def test_a_video_is_handed_in_and_followed_until_a_viewer_sees_it(
    browser: Browser, server: PageServer, world: Path, screen: dict[str, Any], language: str
) -> None:
    clip = next(world.parent.glob("9.mp4"))
    with opened(browser, server, f"?user=u9&lang={language}#add", **screen) as page:
        page.locator("#add-creator").fill("c1")
        page.locator("#add-files").set_input_files([clip])
        job = page.locator(".job")
        expect(job.locator("[data-step=indexed].reached")).to_be_visible()
        for step in ("stored", "decoded"):
            expect(job.locator(f"[data-step={step}].reached")).to_be_visible()
        expect(job.locator(".near li")).to_have_count(6)
        audience = {"en": "of 10 viewers", "zh": "10 位里"}[language]
        expect(job.locator(".around")).to_contain_text(audience)
        (video,) = LiveVideos(server.log.database).newest(1)
        assert video.facts.creator_id == "c1" and video.video_id.startswith("9-")
        assert video.facts.title == "9", "where nobody says another, the file's name"
        expect(job.locator("[data-step=shown].reached")).to_have_count(0)
        server.log.append([Event("u1", EXPOSURE, video.video_id, impression_id="v.1")])
        expect(job.locator("[data-step=shown].reached")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= screen["viewport"]["width"]
        assert not violations(page)


def test_viewers_whom_it_reaches_by_lot_are_counted(
    browser: Browser, world: Path, tmp_path: Path
) -> None:
    """Half of the places are for new videos, whatever the viewers like."""
    bundle = with_details(Bundle.load(str(world)))
    tries = bundle.config.serve.model_copy(update={"explore": 0.5})
    bundle = replace(bundle, config=bundle.config.model_copy(update={"serve": tries}))
    with (
        listening(bundle, tmp_path / "live.sqlite") as server,
        opened(browser, server, "?user=u9#add") as page,
    ):
        with page.expect_response(re.compile("v1/operator/audience")) as answered:
            page.locator("#add-files").set_input_files([world.parent / "9.mp4"])
        viewers = answered.value.json()["viewers"]
        tried = sum(one["reason"] == "explore" for one in viewers)
        assert tried
        by_lot = f"For {'one' if tried == 1 else tried} of them it was drawn by lot"
        expect(page.locator(".job .around")).to_contain_text(by_lot)


def test_what_is_cancelled_before_all_of_it_was_sent_is_not_stored(
    browser: Browser, server: PageServer, world: Path
) -> None:
    with opened(browser, server, "?user=u9#add", expected="net::ERR_") as page:
        page.route("**/v1/videos?**", lambda _: None)  # on its way, for good
        page.locator("#add-files").set_input_files([world.parent / "9.mp4"])
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator(".job.cancelled .told")).to_contain_text("Cancelled")
        assert LiveVideos(server.log.database).page() == []


def test_what_is_cancelled_while_its_address_is_fetched_is_deleted(
    browser: Browser, server: PageServer
) -> None:
    """The server goes on fetching; what it then has is asked to be deleted."""
    with opened(browser, server, "?user=u9#add") as page:
        Films.may_answer.clear()
        page.locator("#add-address").fill(f"{ROOT}ninth.mp4")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator(".job .told")).to_contain_text("Being cancelled")
        with page.expect_response(lambda answer: answer.request.method == "DELETE") as deleted:
            Films.may_answer.set()
        assert deleted.value.json()["video_id"].startswith("ninth-")
        expect(page.locator(".job.cancelled .told")).to_contain_text("Cancelled")
        assert LiveVideos(server.log.database).page() == []


@pytest.mark.parametrize("by_address", [False, True], ids=["upload", "address"])
def test_what_is_cancelled_while_it_is_decoded_is_deleted(
    browser: Browser,
    server: PageServer,
    world: Path,
    monkeypatch: pytest.MonkeyPatch,
    by_address: bool,
) -> None:
    begun, may_end = threading.Event(), threading.Event()
    decode = Encoding.decode

    def held(encoding: Encoding, uri: str) -> Decoded:
        begun.set()
        assert may_end.wait(60)
        return decode(encoding, uri)

    monkeypatch.setattr(Encoding, "decode", held)
    with opened(browser, server, "?user=u9#add") as page:
        if by_address:
            page.locator("#add-address").fill(f"{ROOT}ninth.mp4")
            page.keyboard.press("Enter")
        else:
            page.locator("#add-files").set_input_files([world.parent / "9.mp4"])
        expect(page.locator(".job [data-step=stored].reached")).to_be_visible()
        assert begun.wait(20)
        videos = LiveVideos(server.log.database)
        (video,) = videos.page()
        assert video.state == "stored"
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator(".job.cancelled .told")).to_contain_text("Cancelled")
        may_end.set()
        assert videos.page() == []
        gone = videos.get(video.video_id)
        assert gone is not None and gone.state == "deleted"


def test_a_video_that_was_handed_in_can_be_taken_out(
    browser: Browser, server: PageServer, world: Path
) -> None:
    with opened(browser, server, "?user=u9#add") as page:
        page.locator("#add-files").set_input_files([world.parent / "9.mp4"])
        job = page.locator(".job")
        job.get_by_role("button", name="Take it out").click()
        expect(job).to_contain_text("its id is not given again")
        job.get_by_role("button", name="Take it out").click()
        expect(job.locator(".told")).to_contain_text("Cancelled")
        assert LiveVideos(server.log.database).newest(1) == []


def test_what_is_no_video_is_refused_in_words(
    browser: Browser, server: PageServer, tmp_path: Path
) -> None:
    broken = tmp_path / "<b>no video.mp4"
    broken.write_bytes(b"no video at all")
    with opened(browser, server, "?user=u9#add") as page:
        page.locator("#add-files").set_input_files([broken])
        told = page.locator(".job .told")
        expect(told).to_contain_text("Refused: it is no video")
        assert page.locator(".job h3").text_content() == broken.stem
        assert page.locator(".job h3 *").count() == 0


@everywhere
def test_a_video_is_handed_in_by_its_address(
    browser: Browser, server: PageServer, screen: dict[str, Any], language: str
) -> None:
    with opened(browser, server, f"?user=u9&lang={language}#add", **screen) as page:
        page.locator("#add-title").fill("From <i>elsewhere</i>")
        page.locator("#add-address").fill(f"{ROOT}ninth.mp4?size=1")
        page.keyboard.press("Enter")
        job = page.locator(".job")
        expect(job.locator("[data-step=indexed].reached")).to_be_visible()
        expect(job.locator(".near li")).to_have_count(6)
        assert job.locator("h3").text_content() == "From <i>elsewhere</i>"
        assert not violations(page)
    (video,) = LiveVideos(server.log.database).newest(1)
    assert video.video_id.startswith("ninth-")
    assert video.file is not None and video.file.source == f"{ROOT}ninth.mp4?size=1"
    assert video.facts.title == "From <i>elsewhere</i>"


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://films.example/outside.mp4", "it lies below none of them; upload the file"),
        ("http://films.example/clips/../outside.mp4", "it lies below none of them"),
        ("http://127.0.0.1/clips/ninth.mp4", "it lies below none of them"),
        ("/etc/passwd", "it lies below none of them"),
        (f"{INSIDE}ninth.mp4", "Refused: uri: the host 'inside.example' is inside a network"),
        (f"{ROOT}gone.mp4", "Refused: uri: its server answered 404"),
    ],
)
def test_an_address_that_may_not_be_fetched_is_refused_with_its_reason(
    browser: Browser, server: PageServer, address: str, reason: str
) -> None:
    with opened(browser, server, "?user=u9#add", expected="status of 422", **DESK) as page:
        page.locator("#add-address").fill(address)
        page.get_by_role("button", name="Add the address").click()
        told = page.locator(".job.wrong .told")
        expect(told).to_contain_text("Refused: uri")
        expect(told).to_contain_text(reason)
        assert page.locator("#add-address").input_value() == ""
        assert LiveVideos(server.log.database).newest(1) == []


def test_what_lies_at_an_address_and_is_no_video_is_refused_in_words(
    browser: Browser, server: PageServer
) -> None:
    with opened(browser, server, "?user=u9#add") as page:
        page.locator("#add-address").fill(f"{ROOT}notes.mp4")
        page.keyboard.press("Enter")
        told = page.locator(".job.wrong .told")
        expect(told).to_contain_text("Refused: it is no video")


def test_files_are_dropped(browser: Browser, server: PageServer, world: Path) -> None:
    clip = (world.parent / "9.mp4").read_bytes()
    dropped = """(bytes) => {
      const all = new DataTransfer();
      const content = new Uint8Array(bytes);
      for (const name of ["one.mp4", "two.mp4"]) all.items.add(new File([content], name));
      return all;
    }"""
    with opened(browser, server, "?user=u9#add") as page:
        page.locator("#add-creator").fill(MARKUP)
        given = page.evaluate_handle(dropped, list(clip))
        page.locator(".zone").dispatch_event("drop", {"dataTransfer": given})
        reached = page.locator(".job [data-step=indexed].reached")
        expect(reached).to_have_count(2)
        assert page.locator(".job h3").all_text_contents() == ["two", "one"]
        # The second is the first once more, under another id.
        twin = re.compile(r"nearly the same as “.+” \((one|two)-\w+\)")
        expect(page.locator(".job .told", has_text=twin)).to_have_count(1)
        expect(page.locator(".near small", has_text=MARKUP).first).to_be_visible()
        assert page.locator(".near small *").count() == 0
        assert page.evaluate("shifts") < 0.02, "what lies below kept its place"
