"""Whether the next call knows what was acknowledged, on whichever of two servers."""

from __future__ import annotations

import random
from collections.abc import Sequence

from recsys.serve.client import Client
from tests.bundles import NUM_VIDEOS

EVENTS_A_USER = 20
"""Fewer than a history holds, and enough videos are left to recommend."""
K = 10


def unseen_tries(addresses: Sequence[str], tries: int, *, seed: int = 0) -> int:
    """Likes a video at one server, asks for recommendations at one, again and again.

    The server of each is drawn: the same or another. A try is seen if the user's history is longer
    by that one event and no video that they liked is in the list.

    Args:
        addresses: Of servers on one log, with the bundle of `tests.bundles`.
        tries: How often.
        seed: Of what is drawn.

    Returns:
        Number of tries that were not seen.
    """
    rng, unseen = random.Random(seed), 0
    clients = [Client(address) for address in addresses]
    liked: list[str] = []
    for number in range(tries):
        user_id, place = f"next-{number // EVENTS_A_USER}", number % EVENTS_A_USER
        if place == 0:
            liked = [f"v{row}" for row in rng.sample(range(1, NUM_VIDEOS + 1), EVENTS_A_USER)]
        rng.choice(clients).send_events({"user_id": user_id, "video_id": liked[place]})
        answer = rng.choice(clients).recommend(user_id, k=K)
        shown = {item["video_id"] for item in answer["items"]}
        seen = answer["num_history"] == place + 1 and not shown & set(liked[: place + 1])
        unseen += not (seen and len(shown) == K)
    for client in clients:
        client.close()
    return unseen
