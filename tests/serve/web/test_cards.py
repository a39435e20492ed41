"""What a card of the feed plays and shows, in a real browser."""

from datetime import datetime, timedelta

import pytest

from tests.serve.web._server import PageServer
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
AHEAD = timedelta(hours=1)
"""How far the clock of a page is turned on, so that it can be stopped there."""
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
        page.clock.install()
        page.clock.pause_at(datetime.now() + AHEAD)
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
