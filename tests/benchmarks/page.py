"""The page in a browser: how soon a feed is there, a clip plays, and a like changes what follows.

The server is that of a run with a bundle, without Ray, on this machine; `--screenshots FOLDER`
takes pictures of the views besides, as WebP, or of those named by `--views`.
"""

from __future__ import annotations

import argparse
import io
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

import av
import httpx
import uvicorn
from _bars import bar, write
from playwright.sync_api import Browser, Page, sync_playwright

from recsys.bundle.contents import Bundle
from recsys.decode.poster import encode_webp
from recsys.live.log.events import EventLog
from recsys.serve.api import make_api
from recsys.serve.routes.page import WEB
from recsys.serve.service import Service

TIMES = {"first feed, s": 1.0, "first clip plays, s": 1.5, "a like changes the feed, s": 0.3}
SIZE = "the page's own files, kB"
BARS = {**TIMES, SIZE: 250.0}
PLAYS = "v => v.currentTime > 0 || new Promise((done) => v.addEventListener('timeupdate', done))"
DESK: dict[str, Any] = {"viewport": {"width": 1280, "height": 860}}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "is_mobile": True,
    "has_touch": True,
}
TALL: dict[str, Any] = {"viewport": {"width": 1280, "height": 1300}}
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
    return dict(zip(TIMES, (first, first + played, liked), strict=True))


def take_pictures(browser: Browser, address: str, folder: Path, views: list[str]) -> None:
    """The page as people see it, each view once."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in views:
        path, screen = PICTURES[name]
        context = browser.new_context(locale="en-US", **screen)
        page = context.new_page()
        page.goto(address + path)
        _settle(page)
        picture(page, folder / f"page-{name}.webp")
        if name == "desk":
            page.locator("article .like").nth(1).click()
            page.locator("#said", has_text="You liked").wait_for()
            page.wait_for_timeout(700)
            picture(page, folder / "page-like.webp")
            page.locator("article .open").nth(2).click()
            page.locator("dialog .next b").wait_for()
            picture(page, folder / "page-player.webp")
        if name.startswith("add"):
            page.locator("#add-files").set_input_files([clip_of(address)])
            page.locator(".job .near li").first.wait_for(timeout=30_000)
            page.wait_for_timeout(500)
            picture(page, folder / f"page-{name}-done.webp")
        if name == "run":
            page.get_by_role("button", name="Show the steps").click()
            page.get_by_role("button", name="Look").click()
            page.locator(".sliders input").nth(1).fill("0.5")
            page.wait_for_timeout(2500)
            page.get_by_role("button", name="Show the steps").evaluate(
                "one => one.scrollIntoView()"
            )
            picture(page, folder / "page-run-steps.webp")
        context.close()


def picture(page: Page, path: Path) -> None:
    """What is seen of a page, as a file that a repository can hold."""
    with av.open(io.BytesIO(page.screenshot())) as taken:
        frame = next(taken.decode(video=0))
    path.write_bytes(encode_webp(frame.to_ndarray(format="rgb24")))


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
    parser.add_argument("--views", nargs="+", choices=PICTURES, default=list(PICTURES))
    parser.add_argument("--out", type=Path, default=Path("runs/bench/page.json"))
    args = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("chromium is not installed; apt-get install chromium")
    with serving(args.run) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        visits = [visit(browser, f"{address}?user=guest-{i}") for i in range(args.visits)]
        if args.screenshots is not None:
            take_pictures(browser, address, args.screenshots, args.views)
        browser.close()
    figures = {name: median(one[name] for one in visits) for name in TIMES}
    figures[SIZE] = sum(path.stat().st_size for path in WEB.rglob("*") if path.is_file()) / 1000
    results: dict[str, Any] = {"visits": visits}
    for name, limit in BARS.items():
        bar(results, name, figures[name], limit, least=False)
    write(results, args.out)


if __name__ == "__main__":
    main()
