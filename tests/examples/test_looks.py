"""The three looks: each example's world, trained, served and looked at, reduced in size."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from recsys.bundle.contents import Bundle
from recsys.config.run import load_config
from recsys.demo.example import ExampleVideo, viewings_by_taste
from tests.readmes import ROOT
from tests.serve.web._server import listening

FRONTS = {"social_feed": "feed", "video_site": "rows", "course_platform": "course"}
REDUCED = {
    "social_feed": ("--per-kind", "1", "--users", "60"),
    "video_site": ("--per-kind", "1", "--users", "60"),
    "course_platform": ("--shapes", "2", "--users", "60"),
}
"""What makes each world small."""
QUICK = ("train.epochs=1", "model.dim=16", "model.state_dim=32", "evaluate.bootstrap=0")
each = pytest.mark.parametrize("name", FRONTS)


def script(name: str) -> ModuleType:
    """An example's script as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / name / "world.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make(name: str, out: Path) -> Path:
    command = [sys.executable, f"examples/{name}/world.py", str(out), *REDUCED[name]]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return out


@each
def test_its_config_opens_with_the_front_that_it_is_of(name: str) -> None:
    config = load_config(str(ROOT / "examples" / name / "run.yaml"))
    assert config.serve.front == FRONTS[name]


@pytest.mark.parametrize(("name", "size"), [("social_feed", 7), ("video_site", 6)])
def test_no_two_videos_have_one_title_and_titles_say_what_clips_show(name: str, size: int) -> None:
    videos: list[ExampleVideo] = script(name).make_videos(size)
    assert len(videos) == 6 * 4 * size
    assert len({video.title for video in videos}) == len(videos)
    captions = {video.captions for video in videos}
    assert len(captions) == (len(videos) if name == "video_site" else 1), (
        "each has its own, or none"
    )
    if name == "social_feed":
        kite = next(v for v in videos if v.title.startswith("Green kite taking off"))
        assert (kite.appearance, kite.motion, kite.topic) == (3, 3, "kites")
    else:
        sunset = next(v for v in videos if v.title.startswith("Sunset over"))
        assert (sunset.appearance, sunset.motion) == (0, 2)
        assert sunset.captions[1] == "The red disc comes down."
    for video in videos:
        assert video.text in video.title or not video.title.isascii()


def test_learners_take_lessons_in_their_order() -> None:
    platform = script("course_platform")
    videos: list[ExampleVideo] = platform.make_videos(6)
    assert len({video.title for video in videos}) == len(videos) == 6 * 3 * 4
    assert len({video.captions for video in videos}) == len(videos)
    # What stands in a clip says which lesson of the shape it is.
    assert len({(video.appearance, video.text) for video in videos}) == len(videos)
    viewings = platform.learn(videos, num_users=50)
    finished: dict[int, set[int]] = {user: set() for user in range(50)}
    order = np.argsort(viewings.day, kind="stable")
    for event in order.tolist():
        user, video = int(viewings.user[event]), int(viewings.video[event])
        assert set(videos[video].requires) <= finished[user]
        if viewings.watched[event]:
            finished[user].add(video)


def test_people_watch_what_they_like_and_nothing_before_it_came() -> None:
    def video(topic: str, day: float) -> ExampleVideo:
        shown: dict[str, Any] = {"appearance": 0, "motion": 0, "text": ""}
        return ExampleVideo(title="", creator="", topic=topic, uploaded_day=day, **shown)

    videos = [video("abcdef"[i % 6], 10.0 * (i % 2)) for i in range(60)]
    viewings = viewings_by_taste(videos, num_users=40, per_user=12)
    late = np.array([one.uploaded_day for one in videos])
    assert (late[viewings.video] <= viewings.day).all()
    pairs = list(zip(viewings.user.tolist(), viewings.video.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs), "nothing is shown twice"
    assert not (viewings.liked & ~viewings.watched).any()


def test_clips_captions_and_tables_fit(tmp_path: Path) -> None:
    out = make("course_platform", tmp_path / "world")
    table = pq.read_table(out / "videos.parquet").to_pylist()
    assert len(table) == 2 * 3 * 4
    assert table[4]["course"] == "Circles: in motion" and table[4]["requires"] == ["v003"]
    assert table[12]["requires"] == [], "another shape begins anew"
    with av.open(str(out / table[0]["path"])) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.frames) == (160, 160, 36)
    captions = (out / "videos" / "v000.vtt").read_text()
    assert captions.startswith(
        "WEBVTT\n\n00:00.000 --> 00:01.500\nCircles: first steps, lesson 1.\n"
    )


@pytest.mark.ray
@each
def test_it_is_made_trained_and_looked_at(ray_local: None, name: str, tmp_path: Path) -> None:
    """On a desk and on a phone: every clip has its picture, nothing is wrong with the page."""
    sync_api = pytest.importorskip("playwright.sync_api")
    from axe_playwright_python.sync_playwright import Axe

    from recsys.cli import main
    from tests.serve.web.test_page import BROWSER, DESK, PHONE, opened

    if BROWSER is None:
        pytest.skip("chromium is not installed")
    world = make(name, tmp_path / "world")
    settings = (f"run={tmp_path / 'run'}", f"data.root={world}", *QUICK)
    assert main(["run", "--config", str(ROOT / f"examples/{name}/run.yaml"), *settings]) == 0
    bundle = Bundle.load(str(tmp_path / "run"))
    with (
        listening(bundle, tmp_path / "live.sqlite") as server,
        sync_api.sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        for screen in (DESK, PHONE):
            with opened(browser, server, "?user=u001", **screen) as page:
                page.locator("main .frame img").first.wait_for()
                assert page.locator("body").get_attribute("data-front") == FRONTS[name]
                assert not Axe().run(page).response["violations"]
        browser.close()
