"""The times that callers send, checked as those of events are: seconds are no milliseconds."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, StrictInt, WithJsonSchema

from recsys.errors import InputError
from recsys.live.clock import now
from recsys.live.log.event import FIRST_MS, LAST_MS, check_time


def _checked(last_ms: int | None) -> AfterValidator:
    """The check of a time that is at most a day ahead, or at most another one."""

    def check(time_ms: int) -> int:
        try:
            return check_time(time_ms, now(), "", last_ms=last_ms)
        except InputError as error:
            raise ValueError(str(error).partition(": ")[2]) from None  # the value is named anyway

    return AfterValidator(check)


SINCE_2000 = {"type": "integer", "minimum": FIRST_MS}
AHEAD = {**SINCE_2000, "maximum": LAST_MS}

Time = Annotated[StrictInt, _checked(None), WithJsonSchema(SINCE_2000)]
"""When something happens, in Unix milliseconds."""
Expiry = Annotated[StrictInt, _checked(LAST_MS), WithJsonSchema(AHEAD)]
"""When something ends, which may lie far ahead."""
QueryExpiry = Annotated[int, _checked(LAST_MS), WithJsonSchema(AHEAD)]
"""The same in an address, where everything is text."""
