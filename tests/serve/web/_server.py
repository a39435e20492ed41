"""A server with videos that play, for tests that look at its page."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pyarrow as pa
import uvicorn

from recsys.bundle.contents import Bundle
from recsys.data.details import Details
from recsys.decode.poster import encode_webp
from recsys.demo.clips import ClipFormat, SyntheticClip, render_frames, write_clip
from recsys.features.inputs import ClipShape
from recsys.live.log.event import Event
from recsys.live.log.events import EventLog
from recsys.live.versions.watch import Watch
from recsys.schema import details_schema, files_schema
from recsys.serve.api import make_api
from recsys.serve.http.tokens import Tokens
from recsys.serve.service import Service
from tests.bundles import DECODES, FRAMES, NUM_VIDEOS, SIZE, make_run

if TYPE_CHECKING:
    from playwright.sync_api import Page

HOSTILE = {
    3: "<img src=x onerror=alert(1)><b>bold</b>",
    4: "\u202egnp.evil\u202d " + "e" + "\u0301" * 200,
    5: "long " * 2000,
    6: "مرحبا بالعالم 👩‍👩‍👧‍👦",
    10: "\u0301\u200d",
}
"""Titles by video row: markup, marks that turn the text around, 10,000 characters, Arabic, a
combining mark that stands alone."""
BROKEN, WITHOUT_FILE = 7, 8
"""Rows of a video that no browser plays, and of one that has no file."""
PATIENCE_S = 30.0
"""For an answer, on a machine that has other work."""
HELD = """() => {
  const { prototype } = HTMLMediaElement;
  prototype.begin = prototype.play;
  prototype.play = async () => {};
}"""
"""No clip plays before its `begin()`."""


@dataclass(frozen=True)
class PageServer:
    """Where it listens, and what it was told."""

    address: str
    log: EventLog

    def events(self, kind: str) -> list[Event]:
        """What has been logged of a type, in order."""
        logged = (entry.event for entry in self.log.follow(0, 10_000) if hasattr(entry, "event"))
        return [event for event in logged if event.type == kind]

    def get(self, path: str) -> Any:
        """What the server answers."""
        return httpx.get(self.address + path, timeout=PATIENCE_S).json()

    def post(self, path: str, body: object) -> Any:
        """What it answers to a body."""
        answer = httpx.post(self.address + path, json=body, timeout=PATIENCE_S)
        return answer.raise_for_status().json()


def make_world(folder: Path, **sections: Any) -> Path:
    """A run of 30 videos, of which all but two are clips of a second; sections as `make_run`'s."""
    uris: list[str | None] = []
    for row in range(1, NUM_VIDEOS + 1):
        path = folder / f"{row}.mp4"
        clip = SyntheticClip(path=path, appearance=row % 6, motion=row % 4, frames=12, seed=row)
        if row == BROKEN:
            path.write_bytes(b"no video at all")
        elif row != WITHOUT_FILE:
            write_clip(clip, form=ClipFormat(size=64))
        uris.append(None if row == WITHOUT_FILE else str(path))
    recipe = {**DECODES, **sections}
    make_run(folder / "run", uris=uris, clip=ClipShape(FRAMES, SIZE), **recipe)
    return folder / "run"


def with_details(bundle: Bundle) -> Bundle:
    """The bundle with titles, hostile ones among them, lengths and posters."""
    rows = range(1, NUM_VIDEOS + 1)
    titles = [None, *(HOSTILE.get(row, f"Video number {row}") for row in rows)]
    texts = pa.table([titles, [None] * len(titles)], schema=details_schema())
    posters = []
    for row in rows:
        clip = SyntheticClip(path=Path(), appearance=row % 6, motion=row % 4, frames=2, seed=row)
        posters.append(encode_webp(render_frames(clip, size=64)[0]))
    nothing = [None] * (1 + NUM_VIDEOS)
    lengths = [None, *([1.0] * NUM_VIDEOS)]
    files = pa.table([lengths, [None, *posters], nothing], schema=files_schema())
    return replace(bundle, details=Details(texts, files))


@contextmanager
def serving(
    run: Path, log: Path, tokens: Tokens | None = None, *, versions: Path | None = None
) -> Iterator[PageServer]:
    """Serves a world's page on a free port, or, without titles, the versions of a folder."""
    source = versions or with_details(Bundle.load(str(run)))
    with listening(source, log, tokens) as server:
        yield server


@contextmanager
def listening(
    source: Bundle | Path, log: Path, tokens: Tokens | None = None
) -> Iterator[PageServer]:
    """Serves a bundle as it is, or the versions of a folder, on a free port."""
    with EventLog(str(log)) as kept, socket.create_server(("127.0.0.1", 0)) as listener:
        watched = Watch(kept.database, str(source)) if isinstance(source, Path) else source
        service = Service(watched, kept, seed=0)
        if service.versions is not None:
            service.versions.start(0.1)
        config = uvicorn.Config(make_api(service, tokens=tokens), log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield PageServer(f"http://127.0.0.1:{listener.getsockname()[1]}/", kept)
        finally:
            server.should_exit = True
            thread.join()
            service.close()


def stop_the_clock(page: Page) -> None:
    """Nothing counts down and nothing under the pointer starts any more; videos play on."""
    page.clock.install()
    page.clock.pause_at(datetime.now() + timedelta(minutes=1))
