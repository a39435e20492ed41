"""Which versions' vectors an encoder of its own makes."""

import shutil
from pathlib import Path

import pytest

from recsys.live.log.events import EventLog
from recsys.live.videos.encoding_queue import EncodingQueue
from recsys.serve import encoder as module
from recsys.serve.encoder import ServedEncodings
from tests.bundles import NEW, OLD


def test_a_version_that_cannot_be_loaded_is_counted_and_tried_again(
    two_versions: Path, log: EventLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundles = Path(shutil.copytree(two_versions, tmp_path / "bundles"))
    manifest, aside = bundles / NEW / "manifest.json", tmp_path / "manifest.json"
    manifest.rename(aside)
    queue, failures = EncodingQueue(log.database), []
    for version in (OLD, NEW):
        queue.serves(version)
    monkeypatch.setattr(module, "LOOKS_S", 0.0)
    encodings = ServedEncodings(
        str(bundles), queue, failed=lambda: failures.append("once"), device="cpu"
    )
    assert encodings().keys() == encodings().keys() == {OLD}
    assert failures == ["once"], "it rests for a while"
    encodings._tried_again_s[NEW] = 0.0
    assert encodings().keys() == {OLD}
    assert failures == ["once", "once"]
    aside.rename(manifest)
    encodings._tried_again_s[NEW] = 0.0
    assert list(encodings()) == [NEW, OLD], "the newest first"
    assert len(failures) == 2
