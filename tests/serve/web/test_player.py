"""The large player in a real browser, over a feed."""

from typing import Any

import pytest

from tests.serve.web._server import BROKEN, HELD, WITHOUT_FILE, PageServer, stop_the_clock
from tests.serve.web.test_page import (
    BROWSER,
    FRAMES,
    LATE,
    PHONE,
    PLAYED,
    UNPLAYABLE,
    browser,
    everywhere,
    feed,
    first_playable,
    opened,
    said,
    server,
    whole_feed,
    words,
    world,
)

pytest.importorskip("playwright", reason="playwright, which drives the browser, is not installed")
from playwright.sync_api import Browser, Route, expect

pytestmark = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")
__all__ = ["browser", "server", "world"]
IDS = "(rows) => rows.map((one) => one.querySelector('b').textContent.replace(/\\D+/, 'v'))"
"""The names of videos by their titles, where these are not hostile."""


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


@everywhere
def test_the_player_goes_on_until_it_is_stopped_and_shows_what_is_similar(
    browser: Browser, server: PageServer, language: str, screen: dict[str, Any]
) -> None:
    told = words(language)
    calm = {**screen, "reduced_motion": "reduce"}  # the feed plays nothing by itself
    with opened(browser, server, f"?user=u9&lang={language}", **calm) as page:
        ids = feed(page)
        playable = first_playable(ids)
        stop_the_clock(page)
        page.locator("article .open").nth(playable).click()
        expect(page.locator("dialog aside li")).to_have_count(8)
        page.locator("dialog .next").get_by_text(told["up_next"]).wait_for()
        title = page.locator("dialog h2").text_content()
        page.locator("dialog video").dispatch_event("ended")  # once more, while it counts down
        page.get_by_role("button", name=told["stop"], exact=True).click()
        page.clock.run_for(10_000)
        expect(page.locator("dialog .next")).to_be_empty()
        assert page.locator("dialog h2").text_content() == title
        page.get_by_role("button", name=told["close"], exact=True).click()
        said(page, told["changed_watch"].partition("{")[0])
    (view,) = server.events("view")
    assert view.video_id == ids[playable] and view.positive
    assert view.labels == {"click": True, "like": False}, "to watch is not yet to like"


def test_a_list_that_fails_late_is_told_of_beside_its_own_video(
    browser: Browser, server: PageServer
) -> None:
    held: list[Route] = []
    with opened(browser, server, expected="status of 500") as page:
        ids = feed(page)
        first = first_playable(ids)
        page.route(
            lambda url: f"v1/similar?video_id={ids[first]}&" in url,
            lambda route: held.append(route),
        )
        page.locator("article .open").nth(first).click()
        page.get_by_role("button", name="Play next").click()
        expect(page.locator("dialog aside li")).to_have_count(8)
        with page.expect_response(lambda answer: answer.status == 500):
            held[0].fulfill(status=500)
        page.evaluate(FRAMES)
        expect(page.locator("dialog aside p")).to_have_count(0)


def test_what_is_refused_where_it_plays_takes_no_other_reaction(
    browser: Browser, server: PageServer
) -> None:
    with opened(browser, server) as page:
        ids = feed(page)
        card = page.locator("article").first
        card.locator(".open").press("Enter")
        page.locator("dialog .not_interested").press("Enter")
        for act in ("like", "not_interested", "hide_creator"):
            expect(page.locator(f"dialog .{act}")).to_be_disabled()
        said(page, "No more of")
        page.keyboard.press("Escape")
        expect(card).to_be_focused()
        card.locator(".frame").click()
        expect(page.locator("dialog")).to_have_count(0)
    (refused,) = server.events("not_interested")
    assert refused.video_id == ids[0] and not server.events("hide_creator")


def test_what_plays_can_be_liked_where_it_plays(browser: Browser, server: PageServer) -> None:
    with opened(browser, server) as page:
        ids = feed(page)
        page.evaluate(HELD)  # what is watched would have the feed listed once more
        page.locator("article .open").nth(1).click()
        page.locator("dialog .like").click()
        expect(page.locator("dialog .like")).to_have_text("Liked")
        said(page, "You liked")
        # The feed behind the player was listed anew: what is in view is told of once it is seen.
        come = page.locator("article").nth(2).evaluate("one => one.card.item.impression_id")
        with page.expect_request(lambda request: come in (request.post_data or "")):
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


def test_keys_stay_in_the_player_whatever_they_do(browser: Browser, server: PageServer) -> None:
    with opened(browser, server) as page:
        place = first_playable(feed(page))
        stop_the_clock(page)
        page.locator("article .open").nth(place).press("Enter")
        heading = page.locator("dialog h2")
        page.locator("dialog .like").press("Enter")
        expect(page.locator("dialog .like")).to_have_text("Liked")
        page.get_by_role("button", name="Stop").wait_for()
        expect(page.locator("dialog .like")).to_be_focused()
        page.keyboard.press("Enter")  # what is done is done once
        page.get_by_role("button", name="Stop").press("Enter")
        expect(heading).to_be_focused()
        page.locator("dialog video").dispatch_event("ended")
        title = heading.text_content()
        page.get_by_role("button", name="Play next").press("Enter")
        expect(heading).not_to_have_text(title or "")
        expect(heading).to_be_focused()
        similar = page.locator("dialog aside button").first
        title = similar.locator("b").text_content()
        similar.press("Enter")
        expect(heading).to_have_text(title or "")
        expect(heading).to_be_focused()
    assert len(server.events("task")) == 1


@pytest.mark.parametrize(
    ("act", "told", "kind"),
    [
        ("like", "You liked", "task"),
        ("not_interested", "No more of", "not_interested"),
        ("hide_creator", "No more of", "hide_creator"),
    ],
)
def test_a_similar_video_takes_reactions_and_the_feed_goes_on_after_it(
    browser: Browser, server: PageServer, act: str, told: str, kind: str
) -> None:
    with opened(browser, server) as page:
        ids = feed(page)
        place = first_playable(ids)
        stop_the_clock(page)
        page.locator("article .open").nth(place).click()
        rows = page.locator("dialog aside button")
        expect(rows).to_have_count(8)
        named = rows.evaluate_all(IDS)
        video = next(one for one in named if one[1:].isdecimal() and one not in (*ids, *UNPLAYABLE))
        rows.nth(named.index(video)).click()
        page.locator(f"dialog .{act}").click()
        expect(page.locator(f"dialog .{act}")).to_be_disabled()
        said(page, told)
        assert feed(page)[: place + 1] == ids[: place + 1]
        page.locator("dialog .next").get_by_text("Up next").wait_for()
        page.locator("dialog video").dispatch_event("ended")  # the feed may have changed since
        following = page.locator("article .title").nth(place + 1).text_content()
        expect(page.locator("dialog .next b")).to_have_text(following or "")
        page.get_by_role("button", name="Close").click()
        # A like has said so already, and the feed has followed it.
        said(page, told if act == "like" else f"You watched “Video number {video[1:]}”.")
        assert feed(page)[: place + 1] == ids[: place + 1]
    (event,) = server.events(kind)
    assert event.impression_id is None and event.version is None
    if kind == "hide_creator":
        assert event.creator_id
    else:
        assert event.video_id == video


SHORT_LOOKS = """async ([before, wholly]) => {
  const { Telling } = await import(new URL("telling.js", document.querySelector("script").src));
  const model = { front: "feed", tasks: ["click", "like"], watched_per_s: null };
  const telling = new Telling({ user: "u9", model });
  const item = { impression_id: "i1", details: {}, version: null };
  const card = { id: "v3", item };
  if (wholly) telling.watched(card, 10, 1);
  if (before) telling.react(card, before);
  telling.watched(card, 1, 0.1);
  telling.watched({ id: "v4", item }, 1, 0.1);
  telling.watched({ id: "v3", item: { ...item, impression_id: "i2" } }, 1, 0.1);
}"""
"""What was done with a video, then a short look at it, at another and at it in another list."""


@pytest.mark.parametrize(
    ("before", "wholly", "counts"),
    [
        ("like", False, [True, False, True]),
        ("done", False, [True, False, True]),
        (None, True, [True, False, False]),
        (None, False, [False, False, False]),
    ],
)
def test_a_short_look_takes_back_nothing(
    browser: Browser, server: PageServer, before: str | None, wholly: bool, counts: list[bool]
) -> None:
    """Of a showing counts what was said last: that it was watched stays said."""
    with opened(browser, server) as page, page.expect_response("**/v1/events"):
        page.evaluate(SHORT_LOOKS, [before, wholly])
    views = [event for event in server.events("view") if event.impression_id in ("i1", "i2")]
    assert [(one.positive, one.labels["click"]) for one in views[wholly:]] == [
        (positive, positive) for positive in counts
    ]
