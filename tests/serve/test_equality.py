"""Scores over HTTP are those of training, where the events came over HTTP too."""

import math
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient

from recsys.bundle.contents import Bundle
from recsys.serve import follower
from tests.bundles import TASKS, TinyRun
from tests.serve.test_cases import serving
from tests.serve.test_recommender import TABS, made, training_outputs, without_events

AT_ONCE = 50
POSITIONS = (0, 1, 2, 13, 25, 26)
"""Of u9's timeline, in which two events share a time."""


def tell_all(client: TestClient, tiny: TinyRun) -> int:
    """Sends all that the run was trained on, every user's in the order of time."""
    events = made(tiny, tiny.timelines)
    users = np.repeat(np.arange(len(events)), np.diff(events.offsets))
    told = []
    for i in np.argsort(events.time_ms, kind="stable"):
        tab = TABS[events.context_rows[i, 0]]
        told.append(
            {
                "user_id": events.user_ids[users[i]],
                "video_id": f"v{events.video_rows[i]}",
                "event_id": f"e{i}",
                "time_ms": int(events.time_ms[i]),
                "positive": bool(events.positive[i]),
                "labels": {task: bool(events.labels[i, j]) for j, task in enumerate(TASKS)},
                "watched": float(events.watched[i, 0]),
                "context": {"tab": tab} if tab else {},
            }
        )
    for start in range(0, len(told), AT_ONCE):
        sent = told[start : start + AT_ONCE]
        answer = client.post("/v1/events", json={"events": sent}).json()
        assert answer["statuses"] == ["accepted"] * len(sent)
    return len(told)


def require_training_scores(client: TestClient, tiny: TinyRun) -> None:
    """Asked as of an event's time, the server answers as the training step computed it."""
    timeline, dots, probabilities = training_outputs(tiny)
    for position in POSITIONS:
        tab = TABS[timeline.context_rows[position, 0]]
        body = {
            "user_id": "u9",
            "video_ids": [f"v{timeline.video_rows[position]}"],
            "now_ms": int(timeline.time_ms[position]),
            "context": {"tab": tab} if tab else {},
        }
        answer = client.post("/v1/score", json=body).json()
        assert answer["num_history"] == position - position % 2
        (video,) = answer["items"]
        assert video["score"] == pytest.approx(float(dots[position]), abs=1e-4)
        expected = dict(zip(TASKS, probabilities[position].tolist(), strict=True))
        assert video["probabilities"] == pytest.approx(expected, abs=1e-4)


def test_events_through_the_log_give_the_scores_of_training_also_after_a_restart(
    tiny: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle is of the day before anything happened: all that is known came through the log.

    What follows once in a while is not waited for.
    """
    monkeypatch.setattr(follower, "FOLLOWED_EVERY_S", math.inf)
    log = tmp_path / "live.sqlite"
    with serving(without_events(Bundle.load(str(tiny.run))), log) as client:
        assert client.get("/v1/history?user_id=u9").json()["events"] == []
        assert tell_all(client, tiny) == len(
            tiny.timelines.column("video_row").combine_chunks().flatten()
        )
        require_training_scores(client, tiny)
    with serving(without_events(Bundle.load(str(tiny.run))), log) as restarted:
        require_training_scores(restarted, tiny)
