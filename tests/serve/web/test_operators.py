"""What operators do in the page, in a real browser: videos are handed in, versions are changed."""

import re
import shutil
import socket
import threading
from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from recsys.live.log.event import EXPOSURE, TASK, Event
from recsys.live.videos.live_videos import LiveVideos
from recsys.serve.http.tokens import Tokens
from recsys.serve.videos import desk
from recsys.serve.videos.encoding import Decoded, Encoding
from recsys.serve.videos.fetching import Fetcher
from tests.bundles import NEW, OLD
from tests.serve.web._server import PageServer, make_world, serving
from tests.serve.web.test_page import (
    BROWSER,
    DESK,
    LATE,
    MARKUP,
    PHONE,
    browser,
    opened,
    said,
    violations,
)

pytest.importorskip("playwright", reason="playwright, which drives the browser, is not installed")
from playwright.sync_api import Browser, Page, expect

pytestmark = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")
__all__ = ["browser"]

ROOT = "http://films.example/clips/"
INSIDE = "http://inside.example/clips/"
SERVE = {"max_k": 20, "max_videos": 40, "video_roots": [ROOT, INSIDE]}
HOSTS = {"films.example": "93.184.216.34", "inside.example": "10.0.0.7"}
"""By name the address that a resolver gives: a public one, and one of a network's own."""
TOKEN = "operators-0123456789"
HEIGHTS = """(list) => {
  window.heights = [];
  new ResizeObserver(() => window.heights.push(list.offsetHeight)).observe(list);
}"""
"""Keeps each height that a list has had since."""
everywhere = pytest.mark.parametrize(
    ("language", "screen"),
    [("en", DESK), ("zh", PHONE), ("en", {**PHONE, "color_scheme": "dark"})],
    ids=["en-desk", "zh-phone", "en-dark-phone"],
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("operators"), serve=SERVE)


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
        expect(job.locator("[data-step=indexed].reached")).to_be_visible(timeout=20_000)
        for step in ("stored", "decoded"):
            expect(job.locator(f"[data-step={step}].reached")).to_be_visible()
        expect(job.locator(".near li")).to_have_count(6, timeout=20_000)
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
        expect(page.locator(".job [data-step=stored].reached")).to_be_visible(timeout=20_000)
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
        job.get_by_role("button", name="Take it out").click(timeout=20_000)
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
        expect(told).to_contain_text("Refused: it is no video", timeout=20_000)
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
        expect(job.locator("[data-step=indexed].reached")).to_be_visible(timeout=20_000)
        expect(job.locator(".near li")).to_have_count(6, timeout=20_000)
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
        expect(told).to_contain_text("Refused: it is no video", timeout=20_000)


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
        expect(reached).to_have_count(2, timeout=20_000)
        assert page.locator(".job h3").all_text_contents() == ["two", "one"]
        # The second is the first once more, under another id.
        twin = re.compile(r"nearly the same as “.+” \((one|two)-\w+\)")
        expect(page.locator(".job .told", has_text=twin)).to_have_count(1)
        expect(page.locator(".near small", has_text=MARKUP).first).to_be_visible()
        assert page.locator(".near small *").count() == 0


@everywhere
def test_the_operator_sees_what_was_shown_and_changes_the_version(
    browser: Browser,
    world: Path,
    two_versions: Path,
    tmp_path: Path,
    screen: dict[str, Any],
    language: str,
) -> None:
    words = {"en": ("Activate", "in memory", "tried on some"), "zh": ("启用", "在内存中", "试用中")}
    activate, warm, tried = words[language]
    with (
        serving(world, tmp_path / "live.sqlite", versions=two_versions) as server,
        opened(browser, server, f"?user=u9&lang={language}#run", **screen) as page,
    ):
        for place, version in enumerate((OLD, NEW)):
            event = Event("u1", EXPOSURE, f"v{place + 1}", impression_id=f"{version}.1")
            server.log.append([event])
        page.evaluate(LATE)
        versions = page.get_by_role("row").filter(has_text=NEW)
        versions.get_by_role("button", name=activate).click()
        versions.get_by_role("button", name=activate).click()
        page.locator(".versions > .wide").evaluate(HEIGHTS)
        said(page, NEW)
        old = page.get_by_role("row").filter(has_text=OLD).filter(has_text=warm)
        expect(old).to_be_visible(timeout=20_000)
        expect(page.locator(".run > .note").last).to_contain_text(NEW, timeout=20_000)
        assert server.get("v1/versions")["serving"] == NEW
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        server.post(f"v1/versions/{OLD}/challenge", {"share": 0.5})
        expect(page.get_by_role("row").filter(has_text=tried)).to_be_visible(timeout=30_000)
        page.locator(".challenger summary").click()
        expect(page.locator(".challenger tbody tr")).to_have_count(2)
        expect(page.locator(".challenger tbody")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= screen["viewport"]["width"]
        assert not violations(page)
        assert page.evaluate("Math.max(...heights) - Math.min(...heights)") < 5
        # Whoever else ends the trial, nothing is asked for that is no longer there.
        httpx.delete(server.address + "v1/challenger").raise_for_status()
        expect(page.get_by_role("row").filter(has_text=tried)).to_have_count(0, timeout=30_000)
        assert not [url for url in asked if "/v1/challenger" in url]


@everywhere
def test_a_version_is_tried_on_some_watched_and_ended(
    browser: Browser,
    world: Path,
    two_versions: Path,
    tmp_path: Path,
    screen: dict[str, Any],
    language: str,
) -> None:
    words = {
        "en": ("Try on some", "tried on some", "End the trial", "The trial is over"),
        "zh": ("试用", "试用中", "结束试用", "试用结束"),
    }
    begin, tried, end, over = words[language]
    tokens = Tokens({"videos": (sha256(TOKEN.encode()).digest(),)})
    path = f"?user=u9&lang={language}#run"
    with (
        serving(world, tmp_path / "live.sqlite", tokens, versions=two_versions) as server,
        opened(browser, server, path, expected="status of 401", **screen) as page,
    ):
        page.locator("#token").fill(TOKEN)
        page.keyboard.press("Enter")
        row = page.get_by_role("row").filter(has_text=NEW)
        row.get_by_role("button", name=begin, exact=True).click()
        share = page.get_by_role("spinbutton")
        expect(share).to_be_focused()
        assert not violations(page)
        share.fill("0")
        row.get_by_role("button", name=begin, exact=True).click()
        expect(share).to_be_visible()  # what cannot be is not sent
        share.fill("50")
        row.get_by_role("button", name=begin, exact=True).click()
        said(page, "50%")
        expect(row.filter(has_text=tried)).to_be_visible(timeout=30_000)
        assert server.get("v1/challenger")["share"] == 0.5
        _five_viewers_of_each(server)
        page.reload()
        page.locator(".challenger summary").click()
        _rates_are_told(page, language)
        assert not violations(page)
        assert page.evaluate("shifts") < 0.1
        page.get_by_role("button", name=end).click()
        page.locator(".challenger .yes").click()
        said(page, over)
        expect(row.filter(has_text=tried)).to_have_count(0, timeout=30_000)
        expect(page.get_by_role("button", name=end)).to_be_disabled()
        _rates_are_told(page, language, running=False)
        page.locator(".challenger summary").click()
        expect(page.locator(".challenger table")).to_have_count(0)
        assert server.get("v1/challenger")["status"] == 404


def _rates_are_told(page: Page, language: str, *, running: bool = True) -> None:
    """Of five viewers of each version: 5 clicks of 10 impressions beside 5 of 20.

    All viewers of a version are alike, so its impressions count as independent, and Wilson's
    interval of 5 of 10 is 0.5 +- 0.263, that of 5 of 20 is 0.290 +- 0.178. The difference 0.25 ends
    at hypot(0.263, 0.219) below and hypot(0.263, 0.138) above (`live/versions/click_rates.py`).
    """
    rates = ["50% (23.7% – 76.3%)", "25% (11.2% – 46.9%)", "25% (-9.2% – 54.7%)"]
    if language == "zh":
        rates = [rate.replace(" (", "（").replace(")", "）") for rate in rates]
    for rate in rates[:2] if running else []:
        expect(page.locator(".challenger summary")).to_contain_text(rate)
    for rate in rates:
        expect(page.locator(".challenger > div")).to_contain_text(rate)


def _five_viewers_of_each(server: PageServer) -> None:
    """Those of the new version are shown 2 videos each, the others 4, and like one of them."""
    seen = {OLD: 4, NEW: 2}
    arms: dict[str, int] = {OLD: 0, NEW: 0}
    for number in range(100):
        user = f"guest-{number}"
        shown = server.post("v1/recommend", {"user_id": user, "k": 4})
        version, impression = shown["version"], shown["impression_id"]
        if arms[version] == 5:
            continue
        arms[version] += 1
        ids = [item["video_id"] for item in shown["items"]][: seen[version]]
        server.log.append([Event(user, EXPOSURE, one, impression_id=impression) for one in ids])
        like = Event(user, TASK, ids[0], labels={"like": True}, impression_id=impression)
        server.log.append([like])
    assert arms == {OLD: 5, NEW: 5}


@everywhere
def test_why_somebody_got_a_list_and_what_other_weights_would_do(
    browser: Browser, server: PageServer, screen: dict[str, Any], language: str
) -> None:
    words = {
        "en": ("Show the steps", "From retrieval to the list", "Look", "Creators' exposure"),
        "zh": ("显示各步骤", "从召回到列表", "查看", "作者曝光"),
    }
    steps, list_of, look, exposure = words[language]
    with opened(browser, server, f"?user=u9&lang={language}#run", **screen) as page:
        page.evaluate(LATE)
        page.get_by_role("button", name=steps, exact=True).click()
        traced = server.get("v1/operator/trace?user_id=u9")
        rows = page.get_by_role("table", name=list_of).locator("tbody tr")
        expect(rows).to_have_count(len(traced["videos"]))
        page.get_by_role("button", name=look, exact=True).click()
        now = server.post("v1/operator/preview", {})
        panel = page.locator(".panel", has=page.locator(".sliders"))
        expect(panel.locator("pre")).to_have_text(now["settings"])
        slider = panel.get_by_label(exposure)
        slider.focus()
        page.keyboard.press("End")  # the most that the slider gives
        weights = {**now["weights"], "creator_exposure": 0.4}
        then = server.post("v1/operator/preview", weights)
        expect(panel.locator("pre")).to_have_text(then["settings"])
        lost = 1 - then["then"]["relevance"] / then["now"]["relevance"]
        told = panel.locator(".worth > p").first
        for share in (lost, then["changed_places"]):
            expect(told).to_contain_text(f"{share:.1%}".replace(".0%", "%"))
        assert page.evaluate("document.documentElement.scrollWidth") <= screen["viewport"]["width"]
        assert not violations(page)
