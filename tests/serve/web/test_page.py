"""The page in a real browser: every flow on a desk and on a phone, in both languages."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

import pytest

from recsys.live.videos.encoding_queue import REFUSALS
from recsys.serve.asks import Kind
from recsys.serve.http.tokens import Tokens
from recsys.serve.metrics import STEPS
from recsys.serve.operator.trace import Cause
from recsys.serve.recommender import ServingRecommender
from recsys.serve.routes.page import WEB
from recsys.serve.versions.replica import State
from tests.serve.web._server import BROKEN, HELD, WITHOUT_FILE, PageServer, make_world, serving

pytest.importorskip("playwright", reason="playwright, which drives the browser, is not installed")
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Page,
    expect,
    sync_playwright,
)

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")

DESK: dict[str, Any] = {"viewport": {"width": 1280, "height": 900}}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "is_mobile": True,
    "has_touch": True,
}
everywhere = pytest.mark.parametrize(
    ("language", "screen"), [("en", DESK), ("zh", PHONE)], ids=["en-desk", "zh-phone"]
)
SHIFTS = """
window.shifts = 0;
new PerformanceObserver((list) => {
  for (const shift of list.getEntries()) if (!shift.hadRecentInput) window.shifts += shift.value;
}).observe({ type: "layout-shift", buffered: true });
"""
"""Adds up what moved without anybody's doing: cumulative layout shift."""
LATE = """() => {
  const soon = window.fetch;
  window.fetch = async (...asked) => {
    await new Promise((done) => setTimeout(done, 600));
    return soon(...asked);
  };
}"""
"""Every answer comes over half a second after a tap: a shift before that would not be counted."""
PLAYED = """(video, s) => new Promise((done) => {
  const look = () => video.currentTime >= s && done();
  video.addEventListener("timeupdate", look);
  look();
})"""
"""Waits until a video has played for so many seconds."""
FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
"""Waits until what was changed has been painted, and what came into view was told of."""
LOUD = ("error", "warning")
MARKUP = "<img src=x onerror=alert(1)>\u202e\u0301"
"""A name that must stay text."""
UNPLAYABLE = (f"v{BROKEN}", f"v{WITHOUT_FILE}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; what is expected of a page may take its time where the machine has other work."""
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("page"))


@pytest.fixture
def server(world: Path, tmp_path: Path) -> Iterator[PageServer]:
    with serving(world, tmp_path / "live.sqlite") as server:
        yield server


@contextmanager
def opened(
    browser: Browser,
    server: PageServer,
    path: str = "?user=u9",
    *,
    expected: str | None = None,
    **screen: Any,
) -> Iterator[Page]:
    """A page that complains of nothing, asks nobody else, and moves nothing by itself.

    `expected` is in what the browser itself says of each answer that is a refusal.
    """
    context = browser.new_context(locale="en-US", **(screen or DESK))
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda m: wrong.append(_complaint(m)) if m.type in LOUD else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on(
        "request", lambda r: wrong.append(r.url) if not r.url.startswith(server.address) else None
    )
    sent: list[str | None] = []  # with what was refused
    page.on("response", lambda r: sent.append(r.request.post_data) if not r.ok else None)
    page.add_init_script(SHIFTS)
    page.goto(server.address + path)
    yield page
    assert not [text for text in wrong if expected is None or expected not in text], sent
    assert page.evaluate("shifts") < 0.1
    context.close()


def _complaint(message: ConsoleMessage) -> str:
    """What the browser complains of, and which address."""
    return f"{message.text} {message.location['url']}"


def feed(page: Page) -> list[str]:
    """The names of the feed's videos, when it is there."""
    page.locator("article").first.wait_for()
    return page.locator("article").evaluate_all("all => all.map((one) => one.card.id)")


def first_playable(ids: list[str]) -> int:
    """The place of the first video that a browser plays."""
    return next(place for place, one in enumerate(ids) if one not in UNPLAYABLE)


def words(language: str) -> dict[str, str]:
    """What the page says in a language, by its keys."""
    text = (WEB / "strings" / f"{language}.js").read_text()
    return dict(re.findall(r'^  (\w+): "(.*)",$', text, re.MULTILINE))


def whole_feed(page: Page, language: str = "en") -> list[str]:
    """Scrolls until nothing more comes."""
    num = len(feed(page))
    while page.locator(".foot").text_content() != words(language)["feed_end"]:
        page.keyboard.press("End")
        page.wait_for_timeout(50)
    assert len(feed(page)) > num
    return feed(page)


def said(page: Page, text: str) -> None:
    expect(page.locator("#said")).to_contain_text(text)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("screen", [DESK, PHONE], ids=["desk", "phone"])
def test_a_like_is_kept_and_the_rest_of_the_feed_follows_it(
    browser: Browser, server: PageServer, screen: dict[str, Any], language: str
) -> None:
    with opened(browser, server, f"?user=u9&lang={language}", **screen) as page:
        before = feed(page)
        assert page.locator("html").get_attribute("lang") == language
        page.evaluate(LATE)
        page.locator("article .like").nth(1).evaluate("one => (one.click(), one.click())")
        said(page, {"en": "You liked", "zh": "你喜欢了"}[language])
        after = feed(page)
        assert after[:2] == before[:2] and len(set(after)) == len(after)
        assert page.locator("article .like").nth(1).get_attribute("aria-pressed") == "true"
        assert page.evaluate("document.documentElement.scrollWidth") <= screen["viewport"]["width"]
    (like,) = server.events("task")
    assert (like.user_id, like.video_id, like.positive) == ("u9", before[1], True)
    assert like.labels == {"click": True, "like": True} and like.impression_id and like.version


def test_what_one_has_gone_on_to_stays_when_the_answer_comes(
    browser: Browser, server: PageServer
) -> None:
    with opened(browser, server, **PHONE) as page:
        before = feed(page)
        page.evaluate(LATE)
        page.locator("article .like").first.click()
        page.locator("article").nth(3).scroll_into_view_if_needed()
        said(page, "You liked")
        after = feed(page)
        assert after[:4] == before[:4] and after[4:] != before[4:]
        assert len(set(after)) == len(after)


@pytest.mark.parametrize("screen", [DESK, PHONE], ids=["desk", "phone"])
def test_what_is_refused_does_not_come_again(
    browser: Browser, server: PageServer, screen: dict[str, Any]
) -> None:
    with opened(browser, server, **screen) as page:
        refused = feed(page)[0]
        page.evaluate(LATE)
        page.locator("article .not_interested").first.click()
        said(page, "No more of")
        page.mouse.move(0, 0)  # a clip that is looked away from stops, and takes its own note along
        expect(page.locator("article").first).to_contain_text("You will not be shown this again.")
        assert refused not in feed(page)[1:]
        creator = page.locator("article .creator").nth(1).text_content()
        page.locator("article .hide_creator").nth(1).click()
        said(page, f"No more of {creator}.")
        assert creator not in page.locator("article .creator").all_text_contents()[2:]
    assert [event.video_id for event in server.events("not_interested")] == [refused]
    assert [event.creator_id for event in server.events("hide_creator")] == [creator]


@everywhere
def test_an_impression_counts_once_a_list_and_video(
    browser: Browser, server: PageServer, language: str, screen: dict[str, Any]
) -> None:
    path = f"?user=u9&lang={language}"
    with (
        opened(browser, server, path, **screen) as page,
        page.expect_response("**/v1/events"),
    ):
        feed(page)
        page.wait_for_timeout(900)
        for y in (2000, 0, 2000, 0):
            page.evaluate("(y) => scrollTo(0, y)", y)
            page.wait_for_timeout(700)
        shown = feed(page)
    exposures = server.events("exposure")
    keys = [(event.impression_id, event.video_id) for event in exposures]
    assert len(keys) == len(set(keys)) > 0
    assert all(event.place == shown.index(str(event.video_id)) for event in exposures[:3])


@everywhere
def test_the_feed_never_repeats_and_ends(
    browser: Browser, server: PageServer, language: str, screen: dict[str, Any]
) -> None:
    with opened(browser, server, f"?user=u1&lang={language}", **screen) as page:
        ids = whole_feed(page, language)
        assert len(ids) == len(set(ids)) > 20
        places = page.locator("article").evaluate_all(
            "all => all.map((one) => [one.ariaPosInSet, one.ariaSetSize])"
        )
        assert places == [[str(place + 1), str(len(ids))] for place in range(len(ids))]


def test_a_card_names_one_video_that_it_resembles_and_its_panel_all(
    browser: Browser, server: PageServer
) -> None:
    with opened(browser, server) as page:
        feed(page)
        of_two = "all => all.findIndex((one) => one.card.item.reason.video_ids.length === 2)"
        place = page.locator("article").evaluate_all(of_two)
        card = page.locator("article").nth(place)
        expect(card.locator(".reason")).to_have_text(re.compile("^Because you watched “[^“]*”$"))
        card.locator(".why").click()
        expect(card.locator(".facts")).to_contain_text(re.compile("watched “[^“]*” and “[^“]*”"))


def test_what_was_watched_until_the_page_was_left_is_kept(
    browser: Browser, server: PageServer
) -> None:
    with opened(browser, server) as page:
        ids = feed(page)
        playable = first_playable(ids)
        page.locator("article").nth(playable).hover()
        page.locator("article video").evaluate(PLAYED, 0.6)
        page.goto("about:blank")
        for _ in range(1500):  # what is sent on leaving arrives when nobody waits for it any more
            if server.events("view"):
                break
            page.wait_for_timeout(20)
    (view,) = server.events("view")
    assert view.video_id == ids[playable] and view.positive
    (details,) = server.post("v1/details", {"video_ids": [view.video_id]})["items"]
    assert view.watched is not None and 0.6 <= view.watched / details["duration"] <= 1
    assert view.labels == {"click": True, "like": False}, "to watch is not yet to like"


@everywhere
def test_why_a_video_is_there(
    browser: Browser, server: PageServer, language: str, screen: dict[str, Any]
) -> None:
    told = words(language)
    with opened(browser, server, f"?user=u9&lang={language}", **screen) as page:
        feed(page)
        why = page.locator("article .why").first
        why.click()
        assert why.get_attribute("aria-expanded") == "true"
        facts = page.locator("article .facts").first
        chances = [told["why_chance"].format(task=task) for task in ("click", "like")]
        for text in (told["why_source"], *chances, told["why_version"]):
            expect(facts).to_contain_text(text)
        why.click()
        expect(page.locator("article .facts")).to_have_count(0)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_how_well_a_video_matches_is_its_rank_among_those_chosen_with_it(
    browser: Browser, server: PageServer, language: str
) -> None:
    told = {
        "en": "Number {} of the 12 chosen together (score {}; a larger score is a closer match)",
        "zh": "同批 12 个中第 {}（得分 {}；得分越大，匹配越好）",
    }
    with opened(browser, server, f"?user=u9&lang={language}") as page:
        feed(page)
        for why in page.locator("article .why").all()[:12]:
            why.click()
        facts = page.locator("article .facts").all_text_contents()[:12]
        score_of = "all => all.map((one) => one.card.item.score).slice(0, 12)"
        scores = page.locator("article").evaluate_all(score_of)
        for text, score in zip(facts, scores, strict=True):
            better = sum(other > score for other in scores)
            assert told[language].format(better + 1, f"{score:.2f}".rstrip("0").rstrip(".")) in text


@pytest.mark.parametrize("language", ["en", "zh"])
def test_where_the_model_fails_the_feed_says_that_it_is_for_everybody(
    browser: Browser, server: PageServer, monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    words = {"en": ("the same for everybody", "Match"), "zh": ("对所有人相同", "匹配度")}
    for_everybody, match = words[language]

    def fault(*_: object) -> None:
        raise RuntimeError("the model is broken")

    monkeypatch.setattr(ServingRecommender, "answer", fault)
    with opened(browser, server, f"?user=u9&lang={language}") as page:
        feed(page)
        said(page, for_everybody)
        page.locator("article .why").first.click()
        expect(page.locator("article .facts")).not_to_contain_text(match)
        page.locator("article .like").first.click()
        said(page, for_everybody)
        page.locator("article").last.scroll_into_view_if_needed()
        newest = page.locator("article .reason").last
        expect(newest).to_have_text({"en": "Among the newest", "zh": "最新上线之一"}[language])


@everywhere
def test_history_and_figures(
    browser: Browser, server: PageServer, language: str, screen: dict[str, Any]
) -> None:
    told = words(language)
    with opened(browser, server, f"?user=u9&lang={language}#history", **screen) as page:
        expect(page.locator(".history li")).to_have_count(
            27
        )  # u9's events, as tests/bundles.py has it
        page.get_by_role("link", name=told["run"], exact=True).click()
        expect(page.locator(".tiles")).to_contain_text(told["run_rate"])
        expect(page.locator(".run")).to_contain_text("hr@10")
        expect(page.locator(".run")).to_contain_text(told["run_step_read"])
        expect(page.get_by_role("button", name=told["roll_back"])).to_have_count(0)  # to what?
        expect(page.locator(".chart .uplot")).to_have_count(7)


def test_what_others_made_is_as_they_made_it() -> None:
    vendor = WEB / "vendor"
    told = dict(re.findall(r"`(uplot/\S+)`.*`(\w{64})`", (vendor / "README.md").read_text()))
    files = {path for path in (vendor / "uplot").iterdir()}
    hashes = {f"uplot/{path.name}": sha256(path.read_bytes()).hexdigest() for path in files}
    assert hashes == told


def test_the_whole_feed_by_keyboard_alone(browser: Browser, server: PageServer) -> None:
    focused = "document.activeElement.closest('article')?.ariaPosInSet ?? null"
    with opened(browser, server) as page:
        feed(page)
        for _ in range(12):
            if page.evaluate(focused) == "1":
                break
            page.keyboard.press("Tab")
        page.keyboard.press("PageDown")
        page.keyboard.press("PageDown")
        assert page.evaluate(focused) == "3"
        page.keyboard.press("PageUp")
        assert page.evaluate(focused) == "2"
        page.keyboard.press("Tab")  # the title, which opens the player
        page.keyboard.press("Enter")
        page.locator("dialog[open]").wait_for()
        page.keyboard.press("Escape")
        expect(page.locator("dialog")).to_have_count(0)
        assert page.evaluate(focused) == "2"
        page.keyboard.press("Tab")  # like
        page.keyboard.press("Enter")
        said(page, "You liked")
        assert page.evaluate(focused) == "2"
    assert len(server.events("task")) == 1


def test_whoever_goes_from_view_to_view_by_keys_stays_where_they_are(
    browser: Browser, server: PageServer
) -> None:
    focused = "document.activeElement.id"
    with opened(browser, server) as page:
        feed(page)
        page.get_by_role("link", name="History").focus()
        page.keyboard.press("Enter")
        page.locator(".history li").first.wait_for()
        assert page.evaluate(focused) == "to-history"
        for there, key in (("user", "Enter"), ("new-viewer", "Space"), ("language", "ArrowDown")):
            page.locator(".history").evaluate("one => (one.id = 'before')")
            page.locator(f"#{there}").focus()
            page.keyboard.press(key)
            expect(page.locator("#before")).to_have_count(0)
            page.locator(".history").wait_for()
            assert page.evaluate(focused) == there


DARK: dict[str, Any] = {**DESK, "color_scheme": "dark", "reduced_motion": "reduce"}


@pytest.mark.parametrize("view", ["watch", "history", "run", "add"])
@pytest.mark.parametrize(
    ("language", "screens"), [("en", (DESK, PHONE, DARK)), ("zh", (DESK,))], ids=["en", "zh"]
)
def test_axe_finds_nothing(
    browser: Browser, server: PageServer, language: str, screens: tuple[dict[str, Any]], view: str
) -> None:
    for screen in screens:
        with opened(browser, server, f"?user=u9&lang={language}#{view}", **screen) as page:
            page.locator("article, .history li, .tiles, .give").first.wait_for()
            if view == "watch":
                page.locator("article .why").first.click()
            assert not violations(page)
            if view == "watch":
                page.evaluate(HELD)
                page.locator("article .open").first.click()
                page.locator("dialog aside li").first.wait_for()
                assert not violations(page)


def violations(page: Page) -> list[str]:
    elements = Axe().run(page).response["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html']}" for one in elements]


def test_whoever_wants_no_motion_gets_none(browser: Browser, server: PageServer) -> None:
    with opened(browser, server, **PHONE, reduced_motion="reduce") as page:
        feed(page)
        page.wait_for_timeout(400)
        assert page.locator("video").count() == 0
    with opened(browser, server, **PHONE) as page:
        feed(page)
        page.locator("article video").first.wait_for(state="attached")
        assert page.locator("video").evaluate_all("all => all.every((one) => one.muted)")


def test_a_token_is_asked_for_and_stays_in_the_tab(
    browser: Browser, world: Path, tmp_path: Path
) -> None:
    digest = sha256(b"0123456789abcdef").digest()
    tokens = Tokens({"read": (digest,), "events": (digest,)})
    with serving(world, tmp_path / "live.sqlite", tokens) as server:
        context = browser.new_context(**DESK)
        page = context.new_page()
        page.goto(server.address)
        page.get_by_label("Token").fill("not the token")
        assert page.locator("#said").text_content() == "", "nothing has gone wrong yet"
        page.keyboard.press("Enter")
        said(page, "this token is not known here")
        page.get_by_label("Token").fill("0123456789abcdef")
        page.get_by_role("button", name="Use token").click()
        feed(page)
        # Pictures and clips come too, though their elements send no token.
        picture = page.locator("article img").first
        assert picture.evaluate("one => one.decode().then(() => one.naturalWidth)") == 64
        assert page.evaluate("document.cookie") == ""  # no script reads the pass
        (cookie,) = context.cookies()
        assert (cookie["name"], cookie["path"]) == ("recsys_media", "/v1/videos")
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        page.locator("article .like").first.click()
        said(page, "You liked")
        assert page.evaluate("Object.values(localStorage).join()").find("0123456789abcdef") == -1
        context.close()
        assert len(server.events("task")) == 1


def test_the_page_is_small_and_says_the_same_in_every_language() -> None:
    assert sum(path.stat().st_size for path in WEB.rglob("*") if path.is_file()) < 250_000
    keys = [
        set(re.findall(r"^  (\w+):", path.read_text(), re.MULTILINE))
        for path in (WEB / "strings").iterdir()
    ]
    assert len(keys) == 2 and keys[0] == keys[1]
    code = "".join(path.read_text() for path in WEB.rglob("*.js") if "vendor" not in path.parts)
    used = set(re.findall(r"\bt\(\"(\w+)\"", code))
    assert used and used <= keys[0]
    named = {"refused": REFUSALS, "left_out": get_args(Cause)}
    named["kind"] = named["reason"] = get_args(Kind)
    named["state"] = ("stored", "indexed", *get_args(State))
    named["run_step"] = STEPS
    for kind, words in named.items():
        assert {f"{kind}_{word}" for word in words} <= keys[0]
    assert "innerHTML" not in code
