"""What an answer leads to, as links of the OpenAPI document, which programs can follow.

A list that was shown leads to the event that says so; every answer that names a user leads to what
else can be asked of them.
"""

from __future__ import annotations

from typing import Any

Responses = dict[int | str, dict[str, Any]]


def _of_user(user_id: str) -> dict[str, object]:
    """Where to go on with a user, whose id is found by a runtime expression."""
    return {
        "history": {"operationId": "history", "parameters": {"user_id": user_id}},
        "recommend": {"operationId": "recommend", "requestBody": {"user_id": user_id}},
        "forget": {"operationId": "forget", "parameters": {"user_id": user_id}},
    }


def _links(links: dict[str, object]) -> Responses:
    return {200: {"links": links}}


SHOWN = {
    "user_id": "$response.body#/user_id",
    "type": "exposure",
    "video_id": "$response.body#/items/0/video_id",
    "impression_id": "$response.body#/impression_id",
    "place": 0,
}
NEXT_PAGE = {"user_id": "$response.body#/user_id", "cursor": "$response.body#/cursor"}

AFTER_RECOMMEND = _links(
    {
        **_of_user("$response.body#/user_id"),
        "shown": {"operationId": "events", "requestBody": SHOWN},
        "next_page": {"operationId": "recommend", "requestBody": NEXT_PAGE},
    }
)
AFTER_EVENT = _links(_of_user("$request.body#/user_id"))
AFTER_FORGET = AFTER_HISTORY = _links(_of_user("$response.body#/user_id"))
AFTER_USERS = _links(_of_user("$response.body#/user_ids/0"))
AFTER_LIST = _links(
    {
        "similar": {
            "operationId": "similar",
            "parameters": {"video_id": "$response.body#/items/0/video_id"},
        }
    }
)
