"""The versions of the bundle: which serve, and changes of that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query
from pydantic import Field
from pydantic.dataclasses import dataclass

from recsys.errors import InputError
from recsys.live.versions.click_rates import Rate, Totals
from recsys.live.versions.watch import Challenge, WantedVersion
from recsys.serve.http.messages import Described, Message
from recsys.serve.retrieve.monitor import SearchShape
from recsys.serve.routes.links import Responses
from recsys.serve.service import Service
from recsys.serve.versions.replica import State, Versions, VersionState

NONE_HERE = "this server was given one bundle and serves no other; serve a run folder instead"
REFUSED: Responses = {
    404: {"description": "It is no version of this folder, or there is none to go back to."}
}


@dataclass(config=Described)
class VersionMessage:
    """A version, as the replica that answers sees it."""

    version: str
    state: State
    """`serving`; `challenger`: tried on some of the users; `warm`: it served before and is kept in
    memory; `loading`; `waiting`: the event log was away, so that it could not be made ready yet;
    `refused`; `available`: not looked at."""
    created: str | None
    """When it was made, of those in memory."""
    reason: str | None
    """Why it is refused, or waits."""
    videos_not_encoded: int
    """Live videos that it does not list, since they could not be encoded for it."""


class ChallengeRequest(Message):
    """On whom a version is tried."""

    share: float = Field(strict=True, gt=0, lt=1)
    """Of the users; who is among them stays the same as long as the two versions are compared."""


@dataclass(config=Described)
class WantedResponse:
    """What all replicas are to serve from now on."""

    wanted: str
    challenger: str | None
    share: float


@dataclass(config=Described)
class RateMessage:
    """A share with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(config=Described)
class ArmMessage:
    """What came of one version."""

    version: str
    users: int
    impressions: int
    clicks: int
    """Impressions that were liked, as `data.columns.positive` says."""
    rate: RateMessage | None
    """Clicks of an impression, with users as what was drawn; null without impressions."""
    index_recall: dict[SearchShape, float]
    """As in `GET /v1/model`, of this version."""


@dataclass(config=Described)
class ChallengerResponse:
    """The answer of /v1/challenger: two versions side by side since the challenge began."""

    share: float
    since_ms: int
    challenger: ArmMessage
    champion: ArmMessage
    difference: RateMessage | None
    """By how much the challenger's rate is above the other."""
    sample_ratio_p: float | None
    """How likely users come to the two so unevenly, given the share (chi-square)."""
    warning: str | None
    """Why the rates do not compare, where they do not."""
    counted_share: float
    """Of the users, drawn by lot, who are counted: below 1 where they are too many to count all."""
    left_out: dict[str, int]
    """`crossed`: impressions of a version that is not the user's. `unnamed`: exposures without an
    impression id. `unmatched`: clicks on an impression that the log does not have."""


@dataclass(config=Described)
class VersionsResponse:
    """The answer of /v1/versions, the newest first."""

    serving: str
    wanted: str
    """What all replicas are to serve; each follows within `serve.watch_s` and the time to load."""
    challenger: str | None
    """What all replicas are to try on some of the users, and `GET /v1/challenger` tells of."""
    versions: list[VersionMessage]
    comparison: ChallengerResponse | None
    """The answer of /v1/challenger, where `compare` asked for it and a version is tried: of the
    same moment as the rest, so that nobody asks for a trial that has just been ended."""


def routes(service: Service, router: APIRouter) -> None:
    """Adds the routes to a router."""

    @router.get("/v1/versions")
    async def versions(compare: bool = False) -> VersionsResponse:
        """What versions there are, and what this replica makes of each."""
        return await asyncio.to_thread(_listed, service, compare)

    @router.post("/v1/versions/{version}/activate", status_code=202, responses=REFUSED)
    async def activate(version: str) -> WantedResponse:
        """Has every replica serve a version, until another is published.

        Each loads and checks it beside the one that serves, and changes when it is ready.
        """
        return await asyncio.to_thread(lambda: _changed(service, lambda v: v.choose(version)))

    @router.post("/v1/versions/rollback", status_code=202, responses=REFUSED)
    async def rollback(
        from_version: Annotated[str | None, Query(alias="from")] = None,
    ) -> WantedResponse:
        """Has every replica serve the version of before: at once where it is still in memory.

        With `from`, the version to go back from, the same once more changes nothing. Without it
        each call goes back further, also one that a proxy repeats because its replica died.
        """
        return await asyncio.to_thread(
            lambda: _changed(service, lambda v: v.roll_back(from_version))
        )

    @router.post("/v1/versions/{version}/challenge", status_code=202, responses=REFUSED)
    async def challenge(version: str, request: ChallengeRequest) -> WantedResponse:
        """Has a version answer a share of the users beside the one that serves.

        The same once more goes on from where it began.
        """
        return await asyncio.to_thread(
            lambda: _changed(service, lambda _: service.challenge(version, request.share))
        )

    @router.get("/v1/challenger", responses=REFUSED)
    async def challenger() -> ChallengerResponse:
        """How the version that is tried does beside the one that serves, by the event log."""
        return await asyncio.to_thread(_compared, service)

    @router.delete("/v1/challenger", status_code=202, responses=REFUSED)
    async def end_challenge() -> WantedResponse:
        """Has the version that serves answer everybody."""
        return await asyncio.to_thread(lambda: _changed(service, Versions.end_challenge))


def _listed(service: Service, compare: bool) -> VersionsResponse:
    bundle = service.bundle
    if service.versions is None:
        wanted = WantedVersion(bundle.version)
        states = [VersionState(bundle.version, "serving", str(bundle.manifest["created"]))]
    else:
        wanted = service.versions.watch.wanted()
        states = service.versions.states()
    not_encoded = service.desk.queue.counts().not_encoded
    challenge = wanted.challenge
    return VersionsResponse(
        bundle.version,
        wanted.version,
        None if challenge is None else challenge.version,
        [_message(state, not_encoded.get(state.version, 0)) for state in states],
        _comparison(service, challenge) if compare and challenge is not None else None,
    )


def _compared(service: Service) -> ChallengerResponse:
    challenge = None if service.versions is None else service.versions.watch.wanted().challenge
    if challenge is None:
        raise HTTPException(404, "no version is tried; POST /v1/versions/{version}/challenge")
    return _comparison(service, challenge)


def _comparison(service: Service, challenge: Challenge) -> ChallengerResponse:
    comparison = service.compare(challenge)
    warning = "users did not come to the versions in their shares: the rates do not compare"
    return ChallengerResponse(
        share=challenge.share,
        since_ms=challenge.since_ms,
        challenger=_arm(service, challenge.version, comparison.challenger),
        champion=_arm(service, challenge.against, comparison.champion),
        difference=_rate(comparison.difference),
        sample_ratio_p=comparison.sample_ratio_p,
        warning=warning if comparison.is_mismatched else None,
        counted_share=comparison.counted_share,
        left_out={
            "crossed": comparison.crossed,
            "unnamed": comparison.unnamed,
            "unmatched": comparison.unmatched,
        },
    )


def _arm(service: Service, version: str, totals: Totals) -> ArmMessage:
    return ArmMessage(
        version,
        totals.users,
        totals.impressions,
        totals.clicks,
        _rate(totals.rate()),
        dict(service.index_recalls(version)),
    )


def _rate(rate: Rate | None) -> RateMessage | None:
    return None if rate is None else RateMessage(rate.value, *rate.interval)


def _message(state: VersionState, not_encoded: int) -> VersionMessage:
    return VersionMessage(state.version, state.state, state.created, state.reason, not_encoded)


def _changed(service: Service, change: Callable[[Versions], None]) -> WantedResponse:
    """What is to be served after a change.

    Raises:
        HTTPException: The change is of something that is not there.
    """
    if service.versions is None:
        raise HTTPException(404, NONE_HERE)
    try:
        change(service.versions)
    except InputError as error:
        raise HTTPException(404, str(error)) from None
    wanted = service.versions.watch.wanted()
    beside = wanted.challenge
    share = 0.0 if beside is None else beside.share
    return WantedResponse(wanted.version, None if beside is None else beside.version, share)
