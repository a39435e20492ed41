"""A pass for pictures and clips, since `<img>` and `<video>` send a cookie and no token.

Whoever has a token that opens reading gets a cookie for it that opens posters, captions and files,
and nothing else, for some hours. It holds no token: the time until when it is good, and an HMAC of
that with the token's hash as the key, which every replica knows. With the token the pass ends too.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable

COOKIE = "recsys_media"
LASTS_S = 6 * 3600
FOLDER = "/v1/videos"
"""A browser sends the cookie below it alone."""
_MEDIA = re.compile(r"/v1/videos/.+/(file|poster|captions)", re.DOTALL)
_VALUE = re.compile(r"(\d{1,12})\.([0-9a-f]{64})", re.ASCII)


def make_pass(digest: bytes, expires_s: int) -> str:
    """The cookie's value.

    Args:
        digest: Of the token that it stands for.
        expires_s: Until when it is good, in Unix seconds.
    """
    return f"{expires_s}.{_signature(digest, expires_s)}"


def opens(value: str, digests: Iterable[bytes], now_s: float) -> bool:
    """Whether a cookie's value is a pass, of one of the tokens of now, that is still good."""
    parts = _VALUE.fullmatch(value)
    if parts is None or not now_s < int(parts[1]) <= now_s + LASTS_S:
        return False
    expires_s = int(parts[1])
    # All are compared, so that the time that it takes tells nothing.
    return any([hmac.compare_digest(_signature(d, expires_s), parts[2]) for d in digests])


def is_media(method: str, path: str) -> bool:
    """Whether a request is for a picture or a file of a video.

    >>> is_media("GET", "/v1/videos/a/b/file"), is_media("GET", "/v1/videos/a")
    (True, False)
    """
    return method in ("GET", "HEAD") and _MEDIA.fullmatch(path) is not None


def pass_in(cookies: bytes) -> str:
    """The pass in a Cookie header; empty without one."""
    for part in cookies.decode("latin-1").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return ""


def _signature(digest: bytes, expires_s: int) -> str:
    told = f"recsys media pass {expires_s}".encode()
    return hmac.new(digest, told, hashlib.sha256).hexdigest()
