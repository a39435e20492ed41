"""The large player in a real browser, over a feed."""

import pytest

from tests.serve.web._server import BROKEN, WITHOUT_FILE, PageServer
from tests.serve.web.test_page import (
    BROWSER,
    FRAMES,
    LATE,
    PHONE,
    PLAYED,
    browser,
    feed,
    first_playable,
    opened,
    said,
    server,
    whole_feed,
    world,
)

pytest.importorskip("playwright", reason="playwright, which drives the browser, is not installed")
from playwright.sync_api import Browser, expect

pytestmark = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")
__all__ = ["browser", "server", "world"]


@pytest.mark.parametrize("row", [BROKEN, WITHOUT_FILE])
def test_what_cannot_be_played_says_so_and_the_feed_goes_on(
    browser: Browser, server: PageServer, row: int
) -> None:
    said_of = {BROKEN: "This video cannot be played", WITHOUT_FILE: "There is no file to play here"}
    with opened(browser, server, "?user=u0") as page:
        whole_feed(page)
        open_button = page.get_by_role("button", name=f"Video number {row}, 1 second", exact=True)
        open_button.first.click()
        expect(page.locator("dialog .note")).to_contain_text(said_of[row])
        page.keyboard.press("Escape")
        expect(page.locator("dialog")).to_have_count(0)
        page.locator("article .like").first.click()
        said(page, "You liked")


def test_the_player_goes_on_until_it_is_stopped_and_shows_what_is_similar(
    browser: Browser, server: PageServer
) -> None:
    with opened(browser, server) as page:
        ids = feed(page)
        playable = first_playable(ids)
        page.locator("article .open").nth(playable).click()
        expect(page.locator("dialog aside li")).to_have_count(8)
        page.locator("dialog .next").get_by_text("Up next").wait_for()
        page.get_by_role("button", name="Stop").click()
        expect(page.locator("dialog .next")).to_be_empty()
        page.get_by_role("button", name="Close").click()
        said(page, "You watched")
    (view,) = server.events("view")
    assert view.video_id == ids[playable] and view.labels == {"click": True} and view.positive


def test_what_plays_can_be_liked_where_it_plays(browser: Browser, server: PageServer) -> None:
    with opened(browser, server) as page:
        ids = feed(page)
        page.locator("article .open").nth(1).click()
        page.locator("dialog .like").click()
        expect(page.locator("dialog .like")).to_have_text("Liked")
        said(page, "You liked")
        page.keyboard.press("Escape")
        expect(page.locator("article .like").nth(1)).to_have_attribute("aria-pressed", "true")
        page.locator("article .open").nth(1).click()
        expect(page.locator("dialog .like")).to_be_disabled()
        assert feed(page)[:2] == ids[:2]
    (like,) = server.events("task")
    assert like.video_id == ids[1]


def test_what_plays_goes_on_while_the_feed_behind_it_changes(
    browser: Browser, server: PageServer
) -> None:
    with opened(browser, server, **PHONE) as page:
        place = first_playable(feed(page))
        page.evaluate(LATE)
        page.locator("article").nth(place).scroll_into_view_if_needed()
        page.locator("article .open").nth(place).click()
        page.locator("dialog video").evaluate(PLAYED, 0.1)
        page.locator("dialog .like").click()
        said(page, "You liked")
        page.evaluate(FRAMES)
        expect(page.locator("dialog video")).to_have_count(1)
        expect(page.locator("article video")).to_have_count(0)
        page.keyboard.press("Escape")
        page.locator("article video").first.wait_for(state="attached")
