"""A page that is left and seen again, goes back, or does not get what it asks for."""

import pytest

from tests.serve.web._server import HELD, PageServer, stop_the_clock
from tests.serve.web.test_page import (
    BROWSER,
    browser,
    feed,
    first_playable,
    opened,
    server,
    world,
)

pytest.importorskip("playwright", reason="playwright, which drives the browser, is not installed")
from playwright.sync_api import Browser, Page, Route, expect

pytestmark = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")
__all__ = ["browser", "server", "world"]


def seen(page: Page, is_seen: bool) -> None:
    """As where the person goes to another tab, or comes back from it."""
    page.evaluate(
        """(is) => {
          Object.defineProperty(document, "hidden", { value: !is, configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }""",
        is_seen,
    )


def test_what_plays_goes_on_after_another_tab(browser: Browser, server: PageServer) -> None:
    """In the player and in the feed; watch time is that of both parts together."""
    with opened(browser, server) as page:
        place = first_playable(feed(page))
        page.evaluate(HELD)
        page.locator("article .open").nth(place).click()
        video = page.locator("dialog video")
        video.evaluate("(video) => { video.currentTime = 0.5; }")
        expect(video).to_have_js_property("seeking", False)
        seen(page, False)
        expect(video).to_have_count(0)
        seen(page, True)
        expect(video).to_have_count(1)
        expect(video).to_have_js_property("currentTime", 0.5)
        expect(video).to_have_js_property("controls", True)


def test_nothing_comes_next_while_nobody_looks(browser: Browser, server: PageServer) -> None:
    with opened(browser, server) as page:
        place = first_playable(feed(page))
        stop_the_clock(page)
        page.locator("article .open").nth(place).click()
        title = page.locator("dialog h2")
        first = title.text_content()
        expect(page.locator("dialog .next")).to_contain_text("Up next")
        seen(page, False)
        page.clock.run_for(20_000)
        expect(title).to_have_text(str(first))
        seen(page, True)
        page.clock.run_for(7000)
        expect(title).not_to_have_text(str(first))


def test_what_is_said_in_the_player_is_said_there(browser: Browser, server: PageServer) -> None:
    with opened(browser, server) as page:
        place = first_playable(feed(page))
        page.evaluate(HELD)
        page.locator("article .open").nth(place).click()
        page.locator("dialog .like").click()
        told = page.locator("dialog [role=status]")
        expect(told).to_contain_text("You liked")
        expect(told).to_be_in_viewport(ratio=1)


def test_back_leaves_no_player_over_another_view(browser: Browser, server: PageServer) -> None:
    with opened(browser, server, "#history") as page:
        page.locator("#to-watch").click()
        place = first_playable(feed(page))
        page.evaluate(HELD)
        page.locator("article .open").nth(place).click()
        page.locator("dialog video").wait_for()
        page.go_back()
        expect(page.locator("body")).to_have_attribute("data-view", "history")
        expect(page.locator("dialog")).to_have_count(0)


def test_a_list_that_nobody_sees_is_not_asked_for(browser: Browser, server: PageServer) -> None:
    """Whoever watched a video and went back is told nothing of a feed that is gone."""
    with opened(browser, server, "?user=u9#history") as page:
        page.locator("#to-watch").click()
        place = first_playable(feed(page))
        stop_the_clock(page)
        page.locator("article .open").nth(place).click()
        expect(page.locator("dialog video")).to_have_js_property("ended", True)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.go_back()
        expect(page.locator("body")).to_have_attribute("data-view", "history")
        page.locator(".history").first.wait_for()
        page.clock.run_for(3000)
        assert not [url for url in asked if url.endswith("v1/recommend")]
        expect(page.locator("#said")).not_to_contain_text("You watched")


SAME_CREATOR = """(all, place) => {
  const [one, next] = all.slice(place).map((article) => article.card.item.details);
  next.creator_id = one.creator_id;
}"""
"""Has the next video be of the same creator."""


def test_a_creator_that_is_hidden_while_it_counts_down_does_not_come_next(
    browser: Browser, server: PageServer
) -> None:
    with opened(browser, server) as page:
        place = first_playable(feed(page))
        page.locator("article").evaluate_all(SAME_CREATOR, place)
        stop_the_clock(page)
        page.locator("article .open").nth(place).click()
        coming = page.locator("dialog .next b")
        expect(coming).to_have_count(1)
        before = coming.text_content()
        page.locator("dialog .hide_creator").click()
        expect(coming).not_to_have_text(str(before))
        after = coming.text_content()
        page.get_by_role("button", name="Play next").click()
        expect(page.locator("dialog h2")).to_have_text(str(after))


def test_a_page_of_the_feed_that_failed_can_be_asked_for_again(
    browser: Browser, server: PageServer
) -> None:
    fails = iter([True])

    def answered(route: Route) -> None:
        if "cursor" in str(route.request.post_data) and next(fails, False):
            route.abort()
        else:
            route.continue_()

    with opened(browser, server, expected="ERR_FAILED") as page:
        page.route("**/v1/recommend", answered)
        page.reload()
        ids = feed(page)
        page.locator(".foot").scroll_into_view_if_needed()
        page.locator(".foot button", has_text="Try again").click()
        expect(page.locator("article").nth(len(ids))).to_be_attached()
