"""Names that would be markup, or turn a line around, in a real browser: they are text."""

import json
import re
from urllib.parse import urlencode

import pytest

from tests.serve.web._server import HOSTILE, PageServer
from tests.serve.web.test_page import (
    BROWSER,
    DESK,
    MARKUP,
    PHONE,
    browser,
    feed,
    opened,
    said,
    server,
    whole_feed,
    world,
)

pytest.importorskip("playwright", reason="playwright, which drives the browser, is not installed")
from playwright.sync_api import Browser, Request, Route, expect

pytestmark = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")
__all__ = ["browser", "server", "world"]


def test_hostile_titles_are_text_and_break_nothing(browser: Browser, server: PageServer) -> None:
    for screen in (DESK, PHONE):
        with opened(browser, server, "?user=u0", **screen) as page:
            whole_feed(page)
            titles = page.locator("article .title")
            there = set(titles.all_text_contents())
            assert there >= set(HOSTILE.values())
            assert page.locator("article .title *").count() == 0
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= screen["viewport"]["width"]
            assert set(titles.evaluate_all("all => all.map((one) => one.dir)")) == {"auto"}


def hides_a_creator(request: Request) -> bool:
    """Impressions are told of at any time, too."""
    return request.url.endswith("/v1/events") and "hide_creator" in (request.post_data or "")


def test_hostile_creators_and_ids_of_a_catalogue_are_text(
    browser: Browser, server: PageServer
) -> None:
    """Each video's creator and id as a catalogue might have them; what is sent back is the same."""
    names = {f"v{row}": f"v{row} {text}"[:200] for row, text in HOSTILE.items()}
    back = {name: video_id for video_id, name in names.items()}

    def changed(route: Route, request: Request) -> None:
        asked = request.post_data_json
        asked["video_ids"] = [back.get(one, one) for one in asked.get("video_ids", [])]
        asked = asked if request.url.endswith("/v1/details") else request.post_data_json
        answer = route.fetch(post_data=json.dumps(asked)).json()
        for item in answer["items"]:
            item["video_id"] = names.get(item["video_id"], item["video_id"])
            if "creator_id" in item:
                item["creator_id"] = f"{item['video_id']} {MARKUP}"
        route.fulfill(json=answer)

    with opened(browser, server, "?user=u0#add") as page:
        page.route(re.compile(r"/v1/(recommend|details)$"), changed)
        page.goto(f"{server.address}?user=u0")
        assert set(whole_feed(page)) >= set(names.values())
        creators = page.locator("article .creator")
        assert all(MARKUP in text for text in creators.all_text_contents())
        assert creators.count() == page.locator("article").count()
        assert page.locator("article .creator *").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280
        card = page.locator("article", has_text=names["v3"]).first
        with page.expect_request(hides_a_creator) as sent:
            card.get_by_role("button", name="Hide creator").click()
        said(page, MARKUP)
        (event,) = [one for one in sent.value.post_data_json["events"] if "creator_id" in one]
        assert event["creator_id"] == f"{names['v3']} {MARKUP}"


def test_a_title_from_right_to_left_draws_no_number_in(
    browser: Browser, server: PageServer
) -> None:
    """What is said after it stands after it: both isolated, as Unicode has it (UAX #9)."""
    with opened(browser, server, "?user=u0") as page:
        whole_feed(page)
        arabic = page.locator("article", has_text=HOSTILE[6])
        arabic.locator(".like").click()
        said(page, f"You liked “\u2068{HOSTILE[6]}\u2069”.")
        turned = page.locator("article", has_text=HOSTILE[4])
        turned.locator(".like").click()
        said(page, f"You liked “\u2068{HOSTILE[4]}\u2069”.")


def test_a_hostile_name_of_a_viewer_is_text(browser: Browser, server: PageServer) -> None:
    name = "<img src=x onerror=alert(1)>\u202e\u0301&amp;" + "y" * 200
    with opened(browser, server, f"?{urlencode({'user': name})}") as page:
        feed(page)
        said(page, name)
        assert page.locator("#said *").count() == 0
        page.locator("article .like").first.click()
        said(page, "You liked")
        page.get_by_role("link", name="History").click()
        expect(page.locator(".history h2")).to_have_text(
            f"What \u2068{name}\u2069 was shown, newest first"
        )
        assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    assert [event.user_id for event in server.events("task")] == [name]
