"""The page in a browser: how soon a feed is there, a clip plays, and a like changes what follows.

The server is that of a run with a bundle, without Ray, on this machine; `--screenshots FOLDER`
takes the pictures of the documentation besides.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import uvicorn
from _bars import bar, write
from playwright.sync_api import Browser, Page, sync_playwright

from recsys.bundle.contents import Bundle
from recsys.live.events import EventLog
from recsys.serve.api import make_api
from recsys.serve.service import Service

BARS = {"first feed, s": 1.0, "first clip plays, s": 1.5, "a like changes the feed, s": 0.3}
PLAYS = "v => v.currentTime > 0 || new Promise((done) => v.addEventListener('timeupdate', done))"
DESK: dict[str, Any] = {"viewport": {"width": 1280, "height": 860}}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "is_mobile": True,
    "has_touch": True,
}
TALL: dict[str, Any] = {"viewport": {"width": 1280, "height": 3000}}
PICTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "desk": ("", DESK),
    "phone": ("", PHONE),
    "dark": ("", {**DESK, "color_scheme": "dark"}),
    "chinese": ("?lang=zh", DESK),
    "history": ("#history", DESK),
    "run": ("#run", TALL),
    "run-phone": ("#run", {**PHONE, "viewport": {"width": 390, "height": 2400}}),
    "add": ("#add", DESK),
    "add-phone": ("#add", PHONE),
}


@contextmanager
def serving(run: str) -> Iterator[str]:
    """The address of a server of a run's bundle."""
    with (
        tempfile.TemporaryDirectory() as folder,
        EventLog(f"{folder}/live.sqlite") as log,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        service = Service(Bundle.load(run), log, seed=0)
        config = uvicorn.Config(make_api(service), log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join()
            service.close()


def timed(do: Callable[[], object]) -> float:
    begun = time.perf_counter()
    do()
    return time.perf_counter() - begun


def visit(browser: Browser, address: str) -> dict[str, float]:
    """The three times of a first visit, in seconds."""
    context = browser.new_context(**DESK)
    page = context.new_page()

    def play() -> None:
        page.locator("article .open").first.click()
        page.locator("dialog video").first.wait_for()
        page.locator("dialog video").evaluate(PLAYS)

    first = timed(lambda: (page.goto(address), page.locator("article").first.wait_for()))
    played = timed(play)
    page.get_by_role("button", name="Close").click()
    page.wait_for_timeout(1500)  # what was watched may change the feed first

    def like() -> None:
        page.locator("article .like").nth(2).click()
        page.locator("#said", has_text="You liked").wait_for()

    liked = timed(like)
    context.close()
    return dict(zip(BARS, (first, first + played, liked), strict=True))


def take_pictures(browser: Browser, address: str, folder: Path) -> None:
    """The page as people see it, each view once."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (path, screen) in PICTURES.items():
        context = browser.new_context(locale="en-US", **screen)
        page = context.new_page()
        page.goto(address + path)
        _settle(page)
        page.screenshot(path=folder / f"page-{name}.png")
        if name == "desk":
            page.locator("article .like").nth(1).click()
            page.locator("#said", has_text="You liked").wait_for()
            page.wait_for_timeout(700)
            page.screenshot(path=folder / "page-like.png")
            page.locator("article .open").nth(2).click()
            page.locator("dialog .next b").wait_for()
            page.screenshot(path=folder / "page-player.png")
        if name.startswith("add"):
            page.locator("#add-files").set_input_files([clip_of(address)])
            page.locator(".job .near li").first.wait_for(timeout=30_000)
            page.wait_for_timeout(500)
            page.screenshot(path=folder / f"page-{name}-done.png")
        if name == "run":
            page.get_by_role("button", name="Show the steps").click()
            page.get_by_role("button", name="Look").click()
            page.locator(".sliders input").nth(1).fill("0.5")
            page.wait_for_timeout(2500)
            page.screenshot(path=folder / "page-run-steps.png", full_page=True)
        context.close()


def clip_of(address: str) -> dict[str, Any]:
    """A clip of the catalogue, as a file that is handed in once more."""
    users = httpx.get(f"{address}v1/users?limit=1").json()["user_ids"]
    body = {"user_id": users[0], "k": 20}
    items = httpx.post(f"{address}v1/recommend", json=body).json()["items"]
    ids = [item["video_id"] for item in items]
    details = httpx.post(f"{address}v1/details", json={"video_ids": ids}).json()["items"]
    file = next(one["file"] for one in details if one["file"] is not None)
    return {
        "name": "holiday.mp4",
        "mimeType": "video/mp4",
        "buffer": httpx.get(f"{address}{file}").content,
    }


def _settle(page: Page) -> None:
    page.locator("article, .history li, .tiles, .give").first.wait_for()
    page.wait_for_timeout(2500)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="runs/demo", help="folder with a bundle (of `make demo`)")
    parser.add_argument("--visits", type=int, default=5)
    parser.add_argument("--screenshots", type=Path, help="folder that pictures are written into")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/page.json"))
    args = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("chromium is not installed; apt-get install chromium")
    with serving(args.run) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        visits = [visit(browser, f"{address}?user=guest-{i}") for i in range(args.visits)]
        if args.screenshots is not None:
            take_pictures(browser, address, args.screenshots)
        browser.close()
    found: dict[str, Any] = {"visits": visits}
    for name, limit in BARS.items():
        bar(found, name, median(one[name] for one in visits), limit, least=False)
    write(found, args.out)


if __name__ == "__main__":
    main()
