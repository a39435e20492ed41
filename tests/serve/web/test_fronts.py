"""What the page opens with besides the feed, in a real browser: rows by reason, and courses."""

import itertools
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recsys.data.lessons import Lesson, Lessons
from recsys.serve.recommender import ServingRecommender
from tests.bundles import DATA_WITH_COURSES
from tests.serve.web._server import HELD, PageServer, make_world, serving, stop_the_clock
from tests.serve.web.test_page import BROWSER, DESK, PHONE, browser, opened, said

pytest.importorskip("playwright", reason="playwright, which drives the browser, is not installed")
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

pytestmark = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")
__all__ = ["browser"]
NOBODY = "u0"
"""A user without events."""
LESSONS = Lessons.of(
    {
        11: Lesson("Maths", 1, ()),
        12: Lesson("Maths", 2, (11,)),
        13: Lesson("Maths", 3, (12,)),
        14: Lesson("Art", 1, ()),
        15: Lesson("Zoology <b>bold</b> مرحبا", 1, (14,)),
    }
)
DATA = {
    **DATA_WITH_COURSES,
    "video_columns": {**DATA_WITH_COURSES["video_columns"], "uri": "uri"},
}
SERVE = {"max_k": 20, "max_videos": 40}
SKIPPED = """(video) => new Promise((done) => {
  video.addEventListener("ended", done);
  video.currentTime = 0.9;
  video.begin();
})"""
"""Plays no more of a held clip than its end."""
FOLLOWED = """(tiles) => {
  const creator = (tile) => tile?.card.item.details.creator_id;
  const place = tiles.findIndex((tile) => creator(tile.nextElementSibling) === creator(tile));
  let next = tiles[place];
  while (creator(next) === creator(tiles[place])) next = next.nextElementSibling;
  return [place, creator(tiles[place]), next.querySelector("b").textContent];
}"""
"""The place of a tile beside one of the same creator; that creator; the next title of another."""
screens = pytest.mark.parametrize("screen", [DESK, PHONE], ids=["desk", "phone"])


@pytest.fixture(scope="module")
def rows_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("rows"), serve={**SERVE, "front": "rows"})


@pytest.fixture(scope="module")
def course_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("courses")
    (folder / "14.vtt").write_text("WEBVTT\n\n00:00.000 --> 00:09.000\nA caption\n")
    front = {**SERVE, "front": "course"}
    return make_world(folder, serve=front, data=DATA, lessons=LESSONS)


@pytest.fixture
def rows(rows_world: Path, tmp_path: Path) -> Iterator[PageServer]:
    with serving(rows_world, tmp_path / "live.sqlite") as server:
        yield server


@pytest.fixture
def courses(course_world: Path, tmp_path: Path) -> Iterator[PageServer]:
    with serving(course_world, tmp_path / "live.sqlite") as server:
        yield server


def no_violations(page: Page) -> None:
    violations = Axe().run(page).response["violations"]
    assert not violations, [
        (one["id"], [node["target"] for node in one["nodes"]]) for one in violations
    ]


def get(server: PageServer, path: str) -> Any:
    with urllib.request.urlopen(server.address + path) as answer:
        return json.load(answer)


def shelves(page: Page) -> dict[str, list[str]]:
    """The videos of each row, by its title."""
    page.locator(".shelf").first.wait_for()
    titled: list[list[Any]] = page.locator(".shelf").evaluate_all(
        "all => all.map((one) => [one.querySelector('h2').textContent,"
        " [...one.querySelectorAll('li')].map((li) => li.card.id)])"
    )
    return dict(titled)  # type: ignore[arg-type]


@pytest.mark.parametrize("front", ["rows", "courses"])
def test_the_player_says_why_a_video_is_there(
    browser: Browser, front: str, request: pytest.FixtureRequest
) -> None:
    with opened(browser, request.getfixturevalue(front), "?user=u3") as page:
        page.evaluate(HELD)  # nothing comes next
        page.locator(".shelf .tile").first.click()
        page.get_by_role("button", name="Why this?").click()
        facts = page.locator("dialog .facts")
        for text in ("Where it comes from", "chosen together", "Chance of “click”", "Model"):
            expect(facts).to_contain_text(text)
        expect(facts).to_be_in_viewport(ratio=0.99)  # the video leaves no room for it below
        expect(page.get_by_role("button", name="Close")).to_be_in_viewport(ratio=0.99)
        no_violations(page)
        page.get_by_role("button", name="Why this?").click()
        expect(facts).to_have_count(0)


@screens
def test_rows_are_what_their_titles_say_and_hold_no_video_twice(
    browser: Browser, rows: PageServer, screen: dict[str, Any]
) -> None:
    with opened(browser, rows, "?user=u3", **screen) as page:
        shelf_of = shelves(page)
        titles = list(shelf_of)
        assert titles[0] == "Chosen for you"
        shown = [video for row in shelf_of.values() for video in row]
        assert len(set(shown)) == len(shown)
        because = {title: row for title, row in shelf_of.items() if title.startswith("Because")}
        events = get(rows, "v1/history?user_id=u3&limit=100")["events"]
        watched = {one["video_id"] for one in events if one["positive"]}
        named = {f"Because you watched “Video number {v[1:]}”": v for v in watched}
        for title, row in because.items():
            near = get(rows, f"v1/similar?video_id={named[title]}&k=24")["items"]
            assert set(row) <= {one["video_id"] for one in near} - watched
        assert page.evaluate("document.documentElement.scrollWidth") <= screen["viewport"]["width"]
        no_violations(page)


def test_what_was_watched_makes_the_next_row(browser: Browser, rows: PageServer) -> None:
    """A newcomer has watched nothing; a like in the player makes a row because of it."""
    with opened(browser, rows, "?user=newcomer") as page:
        before = shelves(page)
        said(page, "newcomer is new here: each row says why its videos are shown.")
        assert not any(title.startswith("Because") for title in before)
        tile = page.locator(".tile").first
        name, video = tile.locator("b").text_content(), next(iter(before.values()))[0]
        page.evaluate(HELD)
        tile.click()
        page.locator("dialog .like").click()
        no_violations(page)
        page.keyboard.press("Escape")
        said(page, f"You liked “{name}”")
        after = shelves(page)
        assert f"Because you watched “{name}”" in after
        assert video not in [one for row in after.values() for one in row]
    (like,) = rows.events("task")
    assert (like.user_id, like.video_id, like.positive) == ("newcomer", video, True)
    assert like.impression_id and like.version


def test_a_creator_that_is_hidden_in_the_player_is_in_no_row(
    browser: Browser, rows: PageServer
) -> None:
    creators = "all => all.map((li) => li.card.item.details.creator_id)"
    with opened(browser, rows, "?user=u3") as page:
        shelves(page)
        tiles = page.locator(".shelf li")
        place, hidden, following = tiles.evaluate_all(FOLLOWED)
        page.evaluate(HELD)
        tiles.nth(place).click()
        page.get_by_role("button", name="Hide creator").click()
        expect(page.locator("dialog .like")).to_be_disabled()
        page.locator("dialog video").evaluate("one => one.begin()")
        expect(page.locator("dialog .next b")).to_have_text(following)
        page.keyboard.press("Escape")
        said(page, f"No more of {hidden}.")
        shelves(page)
        assert hidden not in tiles.evaluate_all(creators)
    (event,) = rows.events("hide_creator")
    assert event.creator_id == hidden and event.user_id == "u3"


@pytest.mark.parametrize("front", ["rows", "courses"])
def test_where_the_model_fails_for_a_row_the_front_says_so(
    browser: Browser, front: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = request.getfixturevalue(front)
    answer, num_before = ServingRecommender.answer, itertools.count()

    def fault(*asked: Any) -> Any:
        if next(num_before):
            raise RuntimeError("the model is broken")
        return answer(*asked)

    monkeypatch.setattr(ServingRecommender, "answer", fault)
    with opened(browser, server, "?user=u3") as page:
        said(page, "the same for everybody")
        page.evaluate(HELD)
        page.locator(".shelf .tile").first.click()
        page.locator("dialog .like, dialog .done").click()
        page.keyboard.press("Escape")
        said(page, "You ")
        said(page, "the same for everybody")


def test_rows_by_keyboard_alone(browser: Browser, rows: PageServer) -> None:
    focused = "document.activeElement.className"
    with opened(browser, rows, "?user=newcomer&lang=zh") as page:
        shelves(page)
        no_violations(page)
        page.evaluate(HELD)
        for _ in range(12):
            page.keyboard.press("Tab")
            if page.evaluate(focused) == "tile":
                break
        name = page.evaluate("document.activeElement.querySelector('b').textContent")
        page.keyboard.press("Enter")
        expect(page.locator("dialog .close")).to_be_focused()
        for _ in range(12):
            page.keyboard.press("Tab")
            if page.evaluate(focused) == "act like":
                break
        page.keyboard.press("Enter")
        page.keyboard.press("Escape")
        said(page, f"你喜欢了“{name}”")
        expect(page.locator("dialog")).to_have_count(0)
        assert page.evaluate(focused) == "tile", "whoever closes the player is in the rows again"
    assert len(rows.events("task")) == 1


OPENS_AFTER = {"en": "opens after “{}”", "zh": "完成“{}”后解锁"}


@screens
@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_next_lesson_follows_the_one_that_was_finished(
    browser: Browser, courses: PageServer, screen: dict[str, Any], language: str
) -> None:
    with opened(browser, courses, f"?user={NOBODY}&lang={language}", **screen) as page:
        hero = page.locator(".hero")
        expect(hero).to_contain_text("Video number 14")  # Art comes before Maths
        no_violations(page)
        page.evaluate(HELD)  # what plays to its end is finished too
        hero.locator("button.start").click()
        page.locator("dialog .done").click()
        page.keyboard.press("Escape")
        expect(hero).to_contain_text("Video number 11")
        hero.locator("button.start").click()
        page.locator("dialog .done").click()
        page.keyboard.press("Escape")
        expect(hero).to_contain_text("Video number 12")
        with page.expect_request(lambda request: "v1/similar?" in request.url) as asked:
            hero.locator("button.start").click()
        assert f"user_id={NOBODY}" in asked.value.url, "what is locked is so for somebody"
        beside = page.locator("dialog aside li")
        expect(beside).to_have_count(8)
        expect(beside.nth(0)).to_contain_text("Video number 13")
        assert beside.nth(0).locator("button").count() == 0, "it opens when that one is finished"
        assert beside.locator("button").count() == 7
        others = beside.all_text_contents()
        assert not any(f"Video number {row}" in one for row in (11, 12, 14) for one in others)
        page.keyboard.press("Escape")
        maths = page.locator(".course", has_text="Maths")
        assert maths.get_attribute("open") is not None, "what was begun is open"
        signs = page.locator(".course summary").evaluate_all(
            "all => all.map((one) => getComputedStyle(one, '::before').content[1])"
        )
        assert sorted(signs) == ["▸", "▸", "▾"], "it is seen which can be opened"
        assert maths.locator("progress").evaluate("one => [one.value, one.max]") == [1, 3]
        assert maths.locator("li").evaluate_all("all => all.map((li) => li.className)") == [
            "finished",
            "open",
            "locked",
        ]
        drawn = "all => all.map((li) => getComputedStyle(li).display)"
        assert maths.locator("li").evaluate_all(drawn) == ["list-item"] * 3, "each has its number"
        assert maths.locator("button").count() == 2, "a locked lesson is no button"
        told = maths.locator("li small").last
        assert told.text_content() == OPENS_AFTER[language].format("Video number 12")
        assert "v13" not in [video for row in shelves(page).values() for video in row]
        assert page.evaluate("document.documentElement.scrollWidth") <= screen["viewport"]["width"]
    assert [event.video_id for event in courses.events("task")] == ["v14", "v11"]


def test_a_lesson_that_was_played_to_its_end_is_finished(
    browser: Browser, courses: PageServer
) -> None:
    with opened(browser, courses, f"?user={NOBODY}") as page:
        page.locator(".hero .start").wait_for()
        stop_the_clock(page)
        page.locator(".hero .start").click()
        expect(page.locator("dialog video")).to_have_js_property("ended", True)
        page.keyboard.press("Escape")
        said(page, "You finished “Video number 14”")
        page.evaluate(HELD)
        page.locator(".course", has_text="Art").locator("summary").click()
        page.get_by_role("button", name="Video number 14", exact=True).click()
        expect(page.locator("dialog .done")).to_have_text("✓ Finished")
        expect(page.locator("dialog .done")).to_be_disabled()
    (view,) = courses.events("view")
    assert (view.video_id, view.positive) == ("v14", True)


def test_a_lesson_that_is_finished_opens_the_next_one_in_the_player(
    browser: Browser, courses: PageServer
) -> None:
    with opened(browser, courses, f"?user={NOBODY}") as page:
        page.evaluate(HELD)
        page.locator(".course", has_text="Maths").locator("summary").click()
        page.get_by_role("button", name="Video number 11", exact=True).click()
        first = page.locator("dialog aside li").first
        expect(page.locator("dialog aside h3")).to_have_text("What to learn after it")
        expect(first).to_contain_text("opens when the lesson that is playing is finished")
        page.locator("dialog video").evaluate(SKIPPED)
        expect(page.locator("dialog .next")).to_be_empty()
        page.locator("dialog .done").click()
        opens = first.get_by_role("button", name="Video number 12")
        opens.wait_for()  # it is told and asked by the clock
        stop_the_clock(page)
        opens.click()
        expect(page.locator("dialog h2")).to_have_text("Video number 12")
        page.locator("dialog video").evaluate("one => one.begin()")
        expect(page.locator("dialog .next")).to_contain_text("Up next: Video number 13")
        page.get_by_role("button", name="Play next").click()
        expect(page.locator("dialog h2")).to_have_text("Video number 13")
        page.keyboard.press("Escape")
        expect(page.locator(".course", has_text="Maths")).to_contain_text("2 of 3 finished")
    assert [event.video_id for event in courses.events("view") if event.positive] == ["v12"]


def test_a_lesson_of_another_course_opens_too(browser: Browser, courses: PageServer) -> None:
    with opened(browser, courses, f"?user={NOBODY}") as page:
        zoology = page.locator(".course", has_text="Zoology").locator("li small")
        expect(zoology).to_have_text("opens after “Video number 14”")
        stop_the_clock(page)
        page.locator(".hero .start").click()
        expect(page.locator("dialog .next")).to_contain_text("Up next: Video number 15")
        page.get_by_role("button", name="Stop").click()


def test_captions_beside_a_file_are_shown(browser: Browser, courses: PageServer) -> None:
    with opened(browser, courses, f"?user={NOBODY}") as page:
        page.evaluate(HELD)
        page.locator(".hero .start").click()
        track = page.locator("dialog track")
        expect(track).to_have_js_property("readyState", 2)  # loaded
        shown = "one => [one.track.mode, one.track.cues[0].text]"
        assert track.evaluate(shown) == ["showing", "A caption"]
