"""A recommender beside an event log, told of events as a caller tells of them."""

from recsys.bundle.contents import Bundle
from recsys.live.clock import now
from recsys.live.log.event import VIEW, Event
from recsys.live.log.events import EventLog
from recsys.serve.recommender import ServingRecommender


class Served(ServingRecommender):
    """A recommender with a log of its own."""

    def __init__(self, bundle: Bundle, log: EventLog, **settings: object) -> None:
        super().__init__(bundle, log, **settings)  # type: ignore[arg-type]
        self.log = log

    def tell(self, user_id: str, video_id: str | None = None, **fields: object) -> None:
        """Appends one event, a view without a type."""
        fields = {"type": VIEW, **fields}
        self.log.append([Event(user_id, video_id=video_id, **fields)])  # type: ignore[arg-type]


__all__ = ["Served", "now"]
