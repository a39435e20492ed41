"""The versions of the bundle: which serve, and changes of that."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fastapi import APIRouter, HTTPException
from pydantic import Field
from pydantic.dataclasses import dataclass

from recsys.errors import InputError
from recsys.serve.messages import Described, Message
from recsys.serve.routes.links import Responses
from recsys.serve.service import Service
from recsys.serve.versions import State, Versions, VersionState

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
    memory; `loading`; `refused`; `available`: not looked at."""
    created: str | None
    """When it was made, of those in memory."""
    reason: str | None
    """Why it is refused."""


@dataclass(config=Described)
class VersionsResponse:
    """The answer of /v1/versions, the newest first."""

    serving: str
    wanted: str
    """What all replicas are to serve; each follows within `serve.watch_s` and the time to load."""
    versions: list[VersionMessage]


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


def routes(service: Service, router: APIRouter) -> None:
    """Adds the routes to a router."""

    @router.get("/v1/versions")
    async def versions() -> VersionsResponse:
        """What versions there are, and what this replica makes of each."""
        return await asyncio.to_thread(_listed, service)

    @router.post("/v1/versions/{version}/activate", status_code=202, responses=REFUSED)
    async def activate(version: str) -> WantedResponse:
        """Has every replica serve a version, until another is published.

        Each loads and checks it beside the one that serves, and changes when it is ready.
        """
        return await asyncio.to_thread(lambda: _changed(service, lambda v: v.choose(version)))

    @router.post("/v1/versions/rollback", status_code=202, responses=REFUSED)
    async def rollback() -> WantedResponse:
        """Has every replica serve the version of before: at once where it is still in memory."""
        return await asyncio.to_thread(lambda: _changed(service, lambda v: v.choose(v.previous())))

    @router.post("/v1/versions/{version}/challenge", status_code=202, responses=REFUSED)
    async def challenge(version: str, request: ChallengeRequest) -> WantedResponse:
        """Has a version answer a share of the users beside the one that serves."""
        return await asyncio.to_thread(
            lambda: _changed(service, lambda v: v.challenge(version, request.share))
        )

    @router.delete("/v1/challenger", status_code=202, responses=REFUSED)
    async def end_challenge() -> WantedResponse:
        """Has the version that serves answer everybody."""
        return await asyncio.to_thread(lambda: _changed(service, Versions.end_challenge))


def _listed(service: Service) -> VersionsResponse:
    if service.versions is None:
        bundle = service.bundle
        states = [VersionState(bundle.version, "serving", str(bundle.manifest["created"]))]
        return VersionsResponse(bundle.version, bundle.version, list(map(_message, states)))
    wanted = service.versions.watch.wanted().version
    states = service.versions.states()
    return VersionsResponse(service.bundle.version, wanted, list(map(_message, states)))


def _message(state: VersionState) -> VersionMessage:
    return VersionMessage(state.version, state.state, state.created, state.reason)


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
