"""What a recommender is made of: a bundle, and what is derived from it once."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from recsys.bundle.contents import Bundle
from recsys.live.events import EventLog
from recsys.serve.conditions import Ages
from recsys.serve.live_history import LiveReader
from recsys.serve.pasts import Pasts
from recsys.serve.reasons import Resemblance
from recsys.serve.retrieval import Retriever
from recsys.serve.task_scores import TaskScores
from recsys.serve.trending import Trending


@dataclass(frozen=True)
class Parts:
    """The parts of one recommender, for one thread."""

    bundle: Bundle
    reader: LiveReader
    """Reads users' events out of the log."""
    pasts: Pasts
    trending: Trending
    ages: Ages
    retriever: Retriever
    tasks: TaskScores
    resemblance: Resemblance

    @classmethod
    def of(cls, bundle: Bundle, log: EventLog | None) -> Parts:
        """Makes them of a bundle and the log of what has happened since."""
        reader, model = LiveReader(bundle, log), bundle.recommender
        return cls(
            bundle=bundle,
            reader=reader,
            pasts=Pasts(bundle, reader, held_users=bundle.config.serve.held_users),
            trending=Trending(model, bundle.counts),
            ages=Ages(bundle),
            retriever=Retriever(bundle.index, bundle.vectors),
            tasks=TaskScores(model, torch.from_numpy(bundle.vectors), bundle.counts),
            resemblance=Resemblance(model, bundle.vectors),
        )
