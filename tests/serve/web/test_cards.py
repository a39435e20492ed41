"""What a card of the feed plays and shows, in a real browser."""

import re

import pytest

from tests.serve.web._server import HELD, PageServer, stop_the_clock
from tests.serve.web.test_page import (
    BROWSER,
    PHONE,
    browser,
    feed,
    first_playable,
    opened,
    said,
    server,
    world,
)

pytest.importorskip("playwright", reason="playwright, which drives the browser, is not installed")
from playwright.sync_api import Browser, expect

pytestmark = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")
__all__ = ["browser", "server", "world"]
UPPERMOST = """(one) => {
  const { x, y, width, height } = one.getBoundingClientRect();
  return document.elementFromPoint(x + width / 2, y + height / 2) === one;
}"""
"""Whether nothing lies over the middle of an element."""


@pytest.mark.parametrize("refusal", ["not_interested", "hide_creator"])
def test_what_is_refused_before_it_plays_does_not_play(
    browser: Browser, server: PageServer, refusal: str
) -> None:
    with opened(browser, server) as page:
        place = first_playable(feed(page))
        card = page.locator("article").nth(place)
        stop_the_clock(page)
        card.locator(f".{refusal}").click()  # the pointer is on the card, and time stands still
        page.clock.run_for(3000)
        said(page, "No more of")
        expect(card.locator(".note")).to_have_count(1)
        expect(card.locator("video")).to_have_count(0)
        page.get_by_role("link", name="History").hover()
        card.hover()
        page.clock.run_for(3000)
        expect(card.locator("video")).to_have_count(0)
    assert not server.events("view")


def test_the_length_is_seen_over_the_video_that_plays(browser: Browser, server: PageServer) -> None:
    with opened(browser, server, **PHONE) as page:
        card = page.locator("article").nth(first_playable(feed(page)))
        card.scroll_into_view_if_needed()
        card.locator("video").wait_for(state="attached")
        assert card.locator(".length").evaluate(UPPERMOST)
        card.locator(".not_interested").click()
        said(page, "No more of")
        assert card.locator(".note").evaluate(UPPERMOST)
        assert not card.locator(".length").evaluate(UPPERMOST)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_box_of_the_viewer_is_named_on_a_phone(
    browser: Browser, server: PageServer, language: str
) -> None:
    with opened(browser, server, f"?user=u9&lang={language}", **PHONE) as page:
        feed(page)
        label = page.locator("label[for=user]")
        expect(label).to_have_text({"en": "Viewer", "zh": "观众"}[language])
        assert label.evaluate(UPPERMOST)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_what_is_said_out_of_sight_is_said_under_the_header_for_a_while(
    browser: Browser, server: PageServer
) -> None:
    with opened(browser, server, **PHONE) as page:
        feed(page)
        aloft = page.locator("#aloft")
        expect(aloft).to_be_hidden()  # the greeting stands in its own place, which is in view
        stop_the_clock(page)
        card = page.locator("article").nth(3)
        card.scroll_into_view_if_needed()
        card.locator(".like").click()
        said(page, "You liked")
        expect(aloft).to_have_text(page.locator("#said").inner_text())
        expect(aloft).to_be_visible()
        expect(page.locator("#said")).not_to_be_in_viewport()
        header, box = page.locator("#header").bounding_box(), aloft.bounding_box()
        assert header is not None and box is not None
        assert box["y"] == pytest.approx(header["y"] + header["height"], abs=1)
        page.clock.run_for(10_000)
        expect(aloft).to_be_hidden()


def test_watch_time_has_the_unit_of_the_catalogues_durations(
    browser: Browser, server: PageServer
) -> None:
    with opened(browser, server) as page:
        told = page.evaluate(
            """async () => {
              const { Telling } = await import("./web/telling.js");
              const told = (duration, watched_per_s, seconds, share) => {
                const model = { tasks: [], watched_per_s, front: "feed" };
                const telling = new Telling({ user: "u9", model });
                let event;
                telling.tell = (_, one) => (event = one);
                telling.watched({ id: "v1", item: { details: { duration } } }, seconds, share);
                return event.watched ?? null;
              };
              return [told(8000, 1000, 4, 0.5), told(8000, null, 4, 0.5), told(null, 1000, 4, 0.5),
                      told(null, 1, 4, 0.5), told(null, null, 4, 0.5), told(8000, 1000, 4, 0)];
            }"""
        )
    assert told == [4000, 4000, 4000, 4, None, 4000]


def test_what_is_in_the_history_can_be_watched_again(browser: Browser, server: PageServer) -> None:
    with opened(browser, server, "?user=u9#history") as page:
        lines = page.locator(".history li")
        expect(lines).to_have_count(27)
        page.evaluate(HELD)
        again = lines.filter(has_text="Video number").nth(2)
        title = again.locator("b").inner_text()
        expect(again.get_by_role("button")).to_have_accessible_name(
            re.compile(f"^{title}, 1 second, .*(passed over|click|like)")
        )
        again.get_by_role("button").click()
        expect(page.locator("dialog h2")).to_have_text(title)
        page.locator("dialog .like").click()
        page.keyboard.press("Escape")
        said(page, f"You liked “{title}”.")
        expect(lines).to_have_count(28)
        expect(lines.first).to_contain_text(title)
        expect(lines.first.get_by_role("button")).to_be_focused()
    (like,) = server.events("task")
    assert like.user_id == "u9" and like.positive


def test_what_is_under_the_pointer_does_not_play_behind_the_player(
    browser: Browser, server: PageServer
) -> None:
    with opened(browser, server) as page:
        card = page.locator("article").nth(first_playable(feed(page)))
        stop_the_clock(page)
        card.hover()
        card.locator(".open").press("Enter")
        page.clock.run_for(3000)
        expect(page.locator("dialog video")).to_have_count(1)
        expect(card.locator("video")).to_have_count(0)


def test_a_like_in_the_player_is_what_is_said_when_it_closes(
    browser: Browser, server: PageServer
) -> None:
    """Whoever likes a video has watched it: the feed has followed that already."""
    with opened(browser, server) as page:
        place = first_playable(feed(page))
        stop_the_clock(page)
        page.locator("article .open").nth(place).click()
        page.locator("dialog .like").click()
        said(page, "You liked")
        expect(page.locator("dialog video")).to_have_js_property("ended", True)
        page.get_by_role("button", name="Stop", exact=True).click()
        page.mouse.move(0, 0)  # away from the card, which would play once it is seen again
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        with page.expect_response(lambda answer: "view" in (answer.request.post_data or "")):
            page.keyboard.press("Escape")
            expect(page.locator("dialog")).to_have_count(0)
            page.clock.run_for(3000)
        assert not [url for url in asked if url.endswith("v1/recommend")]
        said(page, "You liked")
    assert len(server.events("view")) == 1
