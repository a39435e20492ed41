"""What operators do in the page, in a real browser: versions are changed and tried."""

import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from recsys.live.log.event import EXPOSURE, TASK, Event
from recsys.serve.http.tokens import Tokens
from tests.bundles import NEW, OLD
from tests.serve.web._server import PageServer, make_world, serving
from tests.serve.web.test_page import (
    BROWSER,
    DESK,
    LATE,
    PHONE,
    browser,
    opened,
    said,
    violations,
)

pytest.importorskip("playwright", reason="playwright, which drives the browser, is not installed")
from playwright.sync_api import Browser, Page, Route, expect

pytestmark = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")
__all__ = ["browser"]

SERVE = {"max_k": 20, "max_videos": 40}
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


@pytest.fixture
def server(world: Path, tmp_path: Path) -> Iterator[PageServer]:
    with serving(world, tmp_path / "live.sqlite") as server:
        yield server


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
        expect(old).to_be_visible()
        expect(page.locator(".run > .note").last).to_contain_text(NEW)
        assert server.get("v1/versions")["serving"] == NEW
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        server.post(f"v1/versions/{OLD}/challenge", {"share": 0.5})
        expect(page.get_by_role("row").filter(has_text=tried)).to_be_visible()
        page.locator(".challenger summary").click()
        expect(page.locator(".challenger tbody tr")).to_have_count(2)
        expect(page.locator(".challenger tbody")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= screen["viewport"]["width"]
        assert not violations(page)
        assert page.evaluate("Math.max(...heights) - Math.min(...heights)") < 5
        # Whoever else ends the trial, nothing is asked for that is no longer there.
        httpx.delete(server.address + "v1/challenger").raise_for_status()
        expect(page.get_by_role("row").filter(has_text=tried)).to_have_count(0)
        assert not [url for url in asked if "/v1/challenger" in url]


@everywhere
def test_a_version_is_as_high_in_each_state(
    browser: Browser,
    world: Path,
    two_versions: Path,
    tmp_path: Path,
    screen: dict[str, Any],
    language: str,
) -> None:
    states, heights, now = ["available", "loading", "warm", "challenger", "serving"], [], {}

    def changed(route: Route) -> None:
        answer = {**route.fetch().json(), "wanted": NEW}
        for one in answer["versions"]:
            one["state"] = now["state"] if one["version"] == NEW else "warm"
        route.fulfill(json=answer)

    with (
        serving(world, tmp_path / "live.sqlite", versions=two_versions) as server,
        opened(browser, server, f"?user=u9&lang={language}", **screen) as page,
    ):
        page.route(re.compile(r"/v1/versions(\?|$)"), changed)
        for state in states:
            now["state"] = state
            page.goto(f"{server.address}?user=u9&lang={language}&of={state}#run")
            row = page.get_by_role("row").filter(has_text=NEW).first
            row.wait_for()
            heights.append(row.evaluate("(one) => one.offsetHeight"))
        page.unroute_all(behavior="wait")
    assert len(set(heights)) == 1, dict(zip(states, heights, strict=True))


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
        expect(row.filter(has_text=tried)).to_be_visible()
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
        expect(row.filter(has_text=tried)).to_have_count(0)
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
