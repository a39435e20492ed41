"""Addresses of other servers, as settings take them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

FILE_SERVER = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+(/[A-Za-z0-9._~%/-]*)?")
"""Nothing that could end a header or add to a content policy, and no password."""


def check_file_server(address: str) -> str:
    """The address itself, if files can be at it.

    >>> check_file_server("https://cdn.example/videos")
    'https://cdn.example/videos'

    Raises:
        ValueError: It is none.
    """
    if not FILE_SERVER.fullmatch(address):
        raise ValueError(
            f"{address!r} is no address of a file server; write http(s)://HOST[:PORT]/FOLDER, "
            "without a user, a query or a fragment"
        )
    return address


FileServer = Annotated[str, AfterValidator(check_file_server)]
"""`http(s)://HOST[:PORT]/FOLDER`."""
