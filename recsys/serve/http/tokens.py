"""Who may do what: the bearer tokens of a server and the scope that each request needs.

Only hashes of the tokens are kept, so they can be handed to replicas and lie in no log.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import time
from dataclasses import dataclass, field

from recsys.config.access import read_reference
from recsys.config.run import ServeConfig
from recsys.errors import InputError
from recsys.serve.http.media_pass import is_media, make_pass, opens, pass_in

READ, EVENTS, VIDEOS = "read", "events", "videos"
SCOPES = (READ, EVENTS, VIDEOS)

OPEN_PATHS = frozenset({"/", "/docs", "/openapi.json", "/healthz", "/readyz"})
"""What anybody may read: the page's own files, the documentation, and what probes ask."""
OPEN_FOLDER = "/web/"
READING_POSTS = frozenset(
    {"/v1/recommend", "/v1/recommend/batch", "/v1/score", "/v1/details", "/v1/media_pass"}
)
"""Reads whose question does not fit into an address, or whose answer sets a cookie."""
OPERATOR_FOLDER = "/v1/operator/"
"""What only whoever runs the server looks at: it needs the scope that may do most."""
OF_EVENTS = frozenset({"/v1/events", "/v1/users"})

SHORTEST = 16
"""Fewest characters of a token: a shorter one can be guessed."""


@dataclass(frozen=True)
class Tokens:
    """Hashes of the tokens of each scope, and what is open without one."""

    digests: dict[str, tuple[bytes, ...]] = field(default_factory=dict)
    """SHA-256 of each token by scope; a scope without tokens is not in it."""
    local: bool = True
    """Whether only this machine reaches the server: changes without a token are open then."""

    @classmethod
    def of(cls, config: ServeConfig) -> Tokens:
        """Reads the tokens that a config refers to.

        Raises:
            InputError: A token cannot be read or is too short; or the server is reached from other
                machines and everybody could send events.
        """
        local = is_loopback(config.host)
        if not local and config.events_token is None:
            raise InputError(
                f"serve.host={config.host} is reached from other machines, and without a token "
                "anybody there could send events and delete users' data; set "
                "serve.events_token=env:NAME or file:/PATH, or serve.host=127.0.0.1"
            )
        references = zip(
            SCOPES, (config.read_token, config.events_token, config.videos_token), strict=True
        )
        digests = {
            scope: _digests(reference, f"serve.{scope}_token")
            for scope, reference in references
            if reference is not None
        }
        return cls(digests, local)

    def refusal(self, scope: str | None, authorization: bytes) -> tuple[int, str] | None:
        """Why a request is refused: status and one line; None where it may pass.

        Args:
            scope: What it needs, as `needed_scope` gives it.
            authorization: Its Authorization header; empty without one.
        """
        if scope is None or (scope not in self.digests and (scope == READ or self.local)):
            return None
        if scope not in self.digests:
            return 403, f"changes of {scope} are switched off: serve.{scope}_token is not set"
        kind, _, token = authorization.partition(b" ")
        if kind.lower() != b"bearer" or not token:
            return 401, f"send a token for {scope}, as Authorization: Bearer TOKEN"
        held = self._scopes_of(token.strip())
        if not held:
            return 401, "this token is not known here"
        # Who may send events may also see what comes of them.
        if scope in held or scope == READ:
            return None
        return 403, f"this token is for {' and '.join(held)}; this takes one for {scope}"

    def media_pass(self, authorization: bytes, expires_s: int) -> str | None:
        """A pass for the token that is sent; None where reading needs none."""
        if READ not in self.digests:
            return None
        token = authorization.partition(b" ")[2].strip()
        return make_pass(hashlib.sha256(token).digest(), expires_s)

    def passes(self, method: str, path: str, cookies: bytes) -> bool:
        """Whether a request is for a picture or a file, and its cookie opens these."""
        if not is_media(method, path):
            return False
        known = (digest for digests in self.digests.values() for digest in digests)
        return opens(pass_in(cookies), known, time.time())

    def _scopes_of(self, token: bytes) -> list[str]:
        """The scopes that a token is good for; takes the same time for every token."""
        given = hashlib.sha256(token).digest()
        return [
            scope
            for scope, digests in self.digests.items()
            if sum(hmac.compare_digest(given, digest) for digest in digests)
        ]


def needed_scope(method: str, path: str) -> str | None:
    """The scope that a request needs; None where it is open to everybody.

    A change that is not known here needs the scope that may do most.

    >>> needed_scope("GET", "/v1/history"), needed_scope("POST", "/v1/events")
    ('read', 'events')
    >>> needed_scope("GET", "/healthz"), needed_scope("PUT", "/v1/videos/v1")
    (None, 'videos')
    """
    if path.startswith(OPERATOR_FOLDER):
        return VIDEOS
    if method in ("GET", "HEAD"):
        return None if path in OPEN_PATHS or path.startswith(OPEN_FOLDER) else READ
    if method == "POST" and path in READING_POSTS:
        return READ
    return EVENTS if path in OF_EVENTS else VIDEOS


def is_loopback(host: str) -> bool:
    """Whether an address that a server listens on is reached from this machine alone.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "box")]
    [True, True, True, False, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _digests(reference: str, setting: str) -> tuple[bytes, ...]:
    tokens = read_reference(reference, setting).split()
    if not tokens or any(len(token) < SHORTEST or not token.isascii() for token in tokens):
        raise InputError(
            f"{setting}={reference}: a token has at least {SHORTEST} characters, all ASCII; make "
            "one with `openssl rand -hex 32`"
        )
    return tuple(hashlib.sha256(token.encode()).digest() for token in tokens)
