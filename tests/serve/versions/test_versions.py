"""Versions come and go under a service: swapped, refused, gone back to, tried on some users."""

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from recsys.bundle.contents import Bundle
from recsys.bundle.versions import CURRENT
from recsys.errors import InputError
from recsys.live.log.event import EXPOSURE, VIEW, Event
from recsys.live.log.events import EventLog
from recsys.live.store.database import LogError
from recsys.live.versions.watch import Challenge, VersionDecision, WantedVersion, Watch, resolve
from recsys.serve.api import make_api
from recsys.serve.asks import Answer, Ask
from recsys.serve.recommender import ServingRecommender
from recsys.serve.service import Service, Serving
from tests.bundles import NEW, OLD, rename_version

NOW_MS = 1_760_000_000_000


def look(service: Service) -> None:
    assert service.versions is not None
    service.versions.look()


def publish(bundles: Path, version: str) -> None:
    (bundles / CURRENT).write_text(version + "\n")


def states(service: Service) -> dict[str, str]:
    assert service.versions is not None
    return {one.version: one.state for one in service.versions.states()}


def ask(service: Service, user_id: str = "u3") -> Answer:
    return asyncio.run(service.answer(Ask(user_id, 5, now_ms=NOW_MS)))


def own_answer(bundles: Path, version: str, user_id: str = "u3") -> list[tuple[str, float]]:
    """What a version answers alone."""
    recommender = ServingRecommender(Bundle.load(str(bundles / version)), seed=0)
    return listed(recommender.recommend(user_id, 5, now_ms=NOW_MS))


def listed(answer: Answer) -> list[tuple[str, float]]:
    return [(video.video_id, video.score) for video in answer.videos]


def test_what_is_published_serves_after_the_next_look(service: Service, bundles: Path) -> None:
    assert ask(service).version == OLD
    publish(bundles, NEW)
    assert ask(service).version == OLD
    look(service)
    answer = ask(service)
    assert answer.version == NEW
    assert listed(answer) == own_answer(bundles, NEW) != own_answer(bundles, OLD)
    assert states(service) == {NEW: "serving", OLD: "warm"}
    assert b"recsys_version_swaps_total" in service.metrics.text()


def test_events_of_before_the_swap_count_after_it(service: Service, bundles: Path) -> None:
    seen = ask(service).videos[0].video_id
    service.log.append([Event("u3", VIEW, seen, time_ms=NOW_MS - 1000, positive=True)])
    publish(bundles, NEW)
    look(service)
    assert seen not in [video.video_id for video in ask(service).videos]
    asked = asyncio.run(service.read(lambda recommender: recommender.history("u3")))
    assert len(asked.video_rows) == 10  # nine of the bundle, one of the log


def test_the_way_back_is_warm_and_knows_what_happened(
    service: Service, bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(bundles, NEW)
    look(service)
    video = listed(ask(service))[0][0]
    service.log.append([Event("u3", VIEW, video, time_ms=NOW_MS - 1000, positive=True)])
    assert service.versions is not None
    service.versions.choose(service.versions.previous())
    monkeypatch.setattr(Bundle, "load", lambda *_: pytest.fail("it is in memory"))
    look(service)
    answer = ask(service)
    assert answer.version == OLD
    assert video not in [one.video_id for one in answer.videos]


def test_a_choice_holds_until_something_is_published(service: Service, bundles: Path) -> None:
    assert service.versions is not None
    service.versions.choose(NEW)
    for _ in range(2):
        look(service)
        assert ask(service).version == NEW
    newest = "20260103T000000000000Z-00000003"
    rename_version(bundles / OLD, bundles / newest)
    publish(bundles, newest)
    look(service)
    assert ask(service).version == newest
    assert states(service)[OLD] == "available"  # only the one before is kept


def change_byte(folder: Path, name: str) -> None:
    path = folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def other_format(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": 1}))


def of_log(folder: Path, **facts: object) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **facts}))


def other_answers(folder: Path) -> None:
    """Known answers of another model, with the sha256 that they have."""
    import hashlib

    known = json.loads((folder / "known.json").read_text())
    known[1]["scores"][0] += 0.5
    data = json.dumps(known).encode()
    (folder / "known.json").write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    facts = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest["files"]["known.json"] = facts
    (folder / "manifest.json").write_text(json.dumps(manifest))


BROKEN: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: change_byte(folder, "model.safetensors"), "sha256 is not the manifest's"),
    (lambda folder: change_byte(folder, "vectors.npy"), "sha256 is not the manifest's"),
    (lambda folder: change_byte(folder, "known.json"), "sha256 is not the manifest's"),
    (lambda folder: (folder / "manifest.json").unlink(), "manifest.json"),
    (lambda folder: (folder / "videos.arrow").unlink(), "the file is missing"),
    (lambda folder: (folder / "manifest.json").write_text("{"), "not a bundle's manifest"),
    (other_format, "format 1, this recsys reads"),
    (lambda folder: of_log(folder, live_seq=7), "was made of another one, up to seq 7"),
    (lambda folder: of_log(folder, live_log="its own"), "set serve.events to the one of data.live"),
    (other_answers, "of user 'u3' the list's scores are not those of its publishing"),
]


@pytest.mark.parametrize(("harm", "reason"), BROKEN, ids=[reason for _, reason in BROKEN])
def test_what_is_broken_is_refused_and_the_old_one_serves(
    service: Service,
    bundles: Path,
    harm: Callable[[Path], object],
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    harm(bundles / NEW)
    publish(bundles, NEW)
    look(service)
    assert listed(ask(service)) == own_answer(bundles, OLD)
    assert service.versions is not None
    (refused,) = service.versions.refused
    assert refused.version == NEW and reason in refused.reason
    assert reason in caplog.text
    assert b'recsys_versions_refused_total{replica="0"} 1.0' in service.metrics.text()
    with TestClient(make_api(service)) as client:
        (told,) = client.get("/v1/model").json()["refused"]
    assert told["version"] == NEW and reason in told["reason"]


def test_a_fault_in_practice_refuses_a_version(
    service: Service, bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(service)

    def fault(*_: object) -> None:
        raise RuntimeError("no such kernel")

    publish(bundles, NEW)
    with monkeypatch.context() as patched:
        patched.setattr(ServingRecommender, "answer", fault)
        look(service)
    assert ask(service).version == OLD
    assert states(service)[NEW] == "refused"


def test_a_version_waits_while_the_log_is_away_and_is_not_refused(
    service: Service, bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(bundles, NEW)

    def away(*_: object, **has: bool) -> None:
        raise LogError("the log is away")

    with monkeypatch.context() as patched:
        patched.setattr(service, "practise", away)
        look(service)
    assert service.versions is not None
    assert ask(service).version == OLD
    assert service.versions.refused == []
    (new,) = (one for one in service.versions.states() if one.version == NEW)
    assert (new.state, new.reason) == ("waiting", "the log is away")
    assert b'recsys_versions_refused_total{replica="0"} 0.0' in service.metrics.text()
    look(service)
    assert ask(service).version == NEW
    assert states(service) == {NEW: "serving", OLD: "warm"}


def test_the_index_of_a_challenger_is_looked_at_too(service: Service) -> None:
    """Each version's monitor finds a share of its own."""
    service._batches.close()  # its own thread would look first
    service.challenge(NEW, 0.5)
    serving, (_, tried) = service.recommender, service_beside(service)
    serving.monitor = Monitor(0.75)  # type: ignore[assignment]
    tried.monitor = Monitor(0.25)  # type: ignore[assignment]
    service._look_at_index()
    assert (serving.monitor.checked, tried.monitor.checked) == (1, 1)  # type: ignore[attr-defined]
    figures = service.metrics.text()
    assert b'recsys_index_online_recall{replica="0",shape="none"} 0.75' in figures
    assert b'recsys_challenger_index_recall{replica="0",shape="none"} 0.25' in figures
    told = TestClient(make_api(service)).get("/v1/challenger").json()
    assert told["champion"]["index_recall"] == {"none": 0.75}
    assert told["challenger"]["index_recall"] == {"none": 0.25}
    service._serving = Serving(serving)
    service._look_at_index()
    assert b"recsys_challenger_index_recall{" not in service.metrics.text()


class Monitor:
    """Has found a share."""

    left_out = 0

    def __init__(self, share: float) -> None:
        self.share, self.checked = share, 0

    def check_one(self) -> None:
        self.checked += 1

    def recalls(self) -> dict[str, float]:
        return {"none": self.share}


def service_beside(service: Service) -> tuple[Challenge, ServingRecommender]:
    """Begins the challenge without the thread of batches, which is closed."""
    assert service.versions is not None
    recommender = service.load(Bundle.load(f"{service.versions.watch.bundles_dir}/{NEW}"))
    challenge = service.versions.watch.wanted().challenge
    assert challenge is not None
    service._serving = Serving(service.recommender, (challenge, recommender))
    return challenge, recommender


def test_a_service_begins_with_the_newest_that_can_serve(bundles: Path, tmp_path: Path) -> None:
    publish(bundles, NEW)
    other_format(bundles / NEW)
    log = EventLog(str(tmp_path / "live.sqlite"))
    service = Service(Watch(log.database, str(bundles)), log)
    assert ask(service).version == OLD
    service.close()


def test_a_service_that_can_serve_nothing_says_why(bundles: Path, tmp_path: Path) -> None:
    other_format(bundles / NEW)
    other_format(bundles / OLD)
    with (
        EventLog(str(tmp_path / "live.sqlite")) as log,
        pytest.raises(InputError, match="format 1"),
    ):
        Service(Watch(log.database, str(bundles)), log)


def test_a_pinned_version_stays(bundles: Path, tmp_path: Path) -> None:
    log = EventLog(str(tmp_path / "live.sqlite"))
    Watch(log.database, str(bundles)).choose(NEW)  # of another server
    service = Service(Watch(log.database, str(bundles), pinned=OLD), log)
    publish(bundles, NEW)
    look(service)
    assert ask(service).version == OLD
    with TestClient(make_api(service)) as client:
        refused = client.post(f"/v1/versions/{NEW}/activate")
    assert refused.status_code == 404 and "was given one version" in refused.json()["detail"]
    service.close()


def test_no_answer_mixes_two_versions(service: Service, bundles: Path) -> None:
    """Users ask all the while; each answer is that of the version that it names."""
    users = [f"u{n}" for n in range(1, 9)]
    own = {
        version: {user: own_answer(bundles, version, user) for user in users}
        for version in (OLD, NEW)
    }
    ended, given = threading.Event(), []

    async def storm() -> None:
        while not ended.is_set():
            given.extend(
                await asyncio.gather(
                    *(service.answer(Ask(user, 5, now_ms=NOW_MS)) for user in users)
                )
            )

    asking = threading.Thread(target=lambda: asyncio.run(storm()))
    asking.start()
    for version in (NEW, OLD, NEW, OLD):
        publish(bundles, version)
        look(service)
    ended.set()
    asking.join()
    assert {answer.version for answer in given} == {OLD, NEW}
    for answer in given:
        assert answer.degraded is None
        ids, scores = zip(*own[answer.version][answer.user_id], strict=True)
        assert tuple(video.video_id for video in answer.videos) == ids
        # A batch of other users moves the last digits.
        assert [video.score for video in answer.videos] == pytest.approx(scores, rel=1e-4)


def test_a_challenger_answers_its_share_of_the_users(service: Service, bundles: Path) -> None:
    service.challenge(NEW, 0.3)
    look(service)
    assert states(service) == {OLD: "serving", NEW: "challenger"}
    versions = {f"n{n}": ask(service, f"n{n}").version for n in range(200)}
    tried = [user for user, version in versions.items() if version == NEW]
    assert 40 <= len(tried) <= 80
    assert {user: ask(service, user).version for user in versions} == versions
    assert service.versions is not None
    service.versions.end_challenge()
    look(service)
    assert {ask(service, user).version for user in tried} == {OLD}


def test_what_comes_of_a_challenge_is_told(service: Service, bundles: Path) -> None:
    """Every user sees one video; those of the challenger like it, every fourth of the others."""
    with TestClient(make_api(service)) as client:
        assert client.get("/v1/challenger").status_code == 404
        service.log.append([Event("early", EXPOSURE, "v1", impression_id=f"{OLD}.1")])
        client.post(f"/v1/versions/{NEW}/challenge", json={"share": 0.5})
        look(service)
        arms: dict[str, list[bool]] = {OLD: [], NEW: []}
        for n in range(40):
            shown = client.post("/v1/recommend", json={"user_id": f"n{n}", "k": 1}).json()
            arm = arms[shown["version"]]
            arm.append(shown["version"] == NEW or len(arm) % 4 == 0)
            seen = {
                "user_id": f"n{n}",
                "video_id": shown["items"][0]["video_id"],
                "impression_id": shown["impression_id"],
            }
            events = [{**seen, "type": "exposure", "place": 0}]
            events += [{**seen, "positive": True}] if arm[-1] else []
            assert client.post("/v1/events", json={"events": events}).status_code == 200
        told = client.get("/v1/challenger").json()
    for name, version in (("challenger", NEW), ("champion", OLD)):
        liked = arms[version]
        arm = told[name]
        assert (arm["version"], arm["users"], arm["impressions"], arm["clicks"]) == (
            *(version, len(liked), len(liked)),
            sum(liked),
        )
        assert arm["rate"]["low"] <= arm["rate"]["value"] <= arm["rate"]["high"]
    assert told["difference"]["low"] > 0
    assert told["warning"] is None and told["sample_ratio_p"] > 0.001
    assert told["counted_share"] == 1
    assert told["left_out"] == {"crossed": 0, "unnamed": 0, "unmatched": 0}


def test_a_challenge_ends_where_another_version_serves(service: Service, bundles: Path) -> None:
    service.challenge(NEW, 0.5)
    look(service)
    publish(bundles, NEW)
    look(service)
    assert {ask(service, f"n{n}").version for n in range(20)} == {NEW}
    assert states(service) == {NEW: "serving", OLD: "warm"}


def test_users_are_split_anew_for_other_versions() -> None:
    one, two = Challenge(NEW, OLD, 0.5, 0), Challenge(OLD, NEW, 0.5, 0)
    users = [f"u{n}" for n in range(1000)]
    assert 450 < sum(map(one.takes, users)) < 550
    assert 400 < sum(one.takes(user) == two.takes(user) for user in users) < 600
    assert {user for user in users if Challenge(NEW, OLD, 0.1, 0).takes(user)} < {
        user for user in users if one.takes(user)
    }


@pytest.mark.parametrize(
    ("decision", "published", "wanted"),
    [
        (VersionDecision(), OLD, WantedVersion(OLD)),
        (VersionDecision(NEW, OLD), OLD, WantedVersion(NEW)),
        (VersionDecision(OLD, OLD), NEW, WantedVersion(NEW)),
        (VersionDecision(challenge=(c := Challenge(NEW, OLD, 0.5, 0))), OLD, WantedVersion(OLD, c)),
        (VersionDecision(challenge=c), NEW, WantedVersion(NEW)),
        (VersionDecision(NEW, OLD, c), OLD, WantedVersion(NEW)),
    ],
)
def test_what_is_wanted(decision: VersionDecision, published: str, wanted: WantedVersion) -> None:
    assert resolve(decision, published) == wanted


def test_decisions_reach_every_replica(bundles: Path, tmp_path: Path) -> None:
    address = str(tmp_path / "live.sqlite")
    with EventLog(address) as one, EventLog(address) as other:
        here, there = (Watch(log.database, str(bundles)) for log in (one, other))
        here.choose(NEW)
        assert there.wanted() == WantedVersion(NEW)
        here.challenge(Challenge(OLD, NEW, 0.25, 3))
        assert there.wanted() == WantedVersion(NEW, Challenge(OLD, NEW, 0.25, 3))


def test_the_routes(service: Service, bundles: Path) -> None:
    with TestClient(make_api(service)) as client:
        told = client.get("/v1/versions").json()
        assert (told["serving"], told["wanted"]) == (OLD, OLD)
        assert [(v["version"], v["state"]) for v in told["versions"]] == [
            (NEW, "available"),
            (OLD, "serving"),
        ]
        assert client.post(f"/v1/versions/{NEW}/activate").status_code == 202
        look(service)
        assert client.get("/healthz").json()["version"] == NEW
        assert client.post("/v1/versions/rollback").json()["wanted"] == OLD
        look(service)
        body = {"share": 0.5}
        beside = client.post(f"/v1/versions/{NEW}/challenge", json=body).json()
        assert beside == {"wanted": OLD, "challenger": NEW, "share": 0.5}
        # Decided, though this replica has not taken it up: the trial may be asked for.
        listed = client.get("/v1/versions").json()
        assert listed["challenger"] == NEW and listed["versions"][0]["state"] == "warm"
        compared = client.get("/v1/challenger").json()
        assert compared["challenger"]["version"] == NEW
        assert client.get("/v1/versions?compare=true").json()["comparison"] == compared
        assert listed["comparison"] is None
        look(service)
        assert client.delete("/v1/challenger").json()["challenger"] is None
        # Ended, though this replica still tries it.
        listed = client.get("/v1/versions").json()
        assert listed["challenger"] is None and listed["versions"][0]["state"] == "challenger"
        assert client.get("/v1/versions?compare=true").json()["comparison"] is None
        assert client.get("/v1/challenger").status_code == 404


def test_a_rollback_that_a_proxy_repeats_is_done_once(service: Service, bundles: Path) -> None:
    """As HAProxy does at the other replica, where the first one died before it answered."""
    with TestClient(make_api(service)) as client:
        client.post(f"/v1/versions/{NEW}/activate")
        look(service)
        for _ in range(2):
            told = client.post("/v1/versions/rollback", params={"from": NEW})
            assert (told.status_code, told.json()["wanted"]) == (202, OLD)
        unknown = client.post("/v1/versions/rollback", params={"from": "v1"})
        assert unknown.status_code == 404
        # Without a version to go back from, the repeated one would undo the first.
        assert client.post("/v1/versions/rollback").json()["wanted"] == NEW


def test_another_rollback_meanwhile_is_left_as_it_is(bundles: Path, tmp_path: Path) -> None:
    """What to go back to was looked up before another replica made its change."""
    with EventLog(str(tmp_path / "live.sqlite")) as log:
        watch = Watch(log.database, str(bundles))
        watch.choose(NEW)
        watch.choose(OLD, instead_of=OLD)
        assert watch.wanted().version == NEW
        watch.choose(OLD, instead_of=NEW)
        assert watch.wanted().version == OLD


def test_a_challenge_that_is_repeated_goes_on(bundles: Path, tmp_path: Path) -> None:
    with EventLog(str(tmp_path / "live.sqlite")) as log:
        watch = Watch(log.database, str(bundles))
        begun = Challenge(NEW, OLD, 0.25, since_ms=3, since_seq=7)
        watch.challenge(begun)
        watch.challenge(Challenge(NEW, OLD, 0.25, since_ms=4, since_seq=9))
        assert watch.wanted().challenge == begun
        other = Challenge(NEW, OLD, 0.5, since_ms=5, since_seq=9)
        watch.challenge(other)
        assert watch.wanted().challenge == other


@pytest.mark.parametrize("version", ["..", "v1", "20260103T000000000000Z-00000003", f"..%2F{OLD}"])
def test_versions_that_are_not_there(service: Service, version: str) -> None:
    with TestClient(make_api(service)) as client:
        assert client.post(f"/v1/versions/{version}/activate").status_code == 404
        assert client.get("/v1/versions").json()["wanted"] == OLD
