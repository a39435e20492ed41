"""What a recommender is made of: a bundle, and what is derived from it once."""

from __future__ import annotations

from dataclasses import dataclass

from recsys.bundle.contents import Bundle
from recsys.live.log.events import EventLog
from recsys.serve.lists.reasons import Resemblance
from recsys.serve.lists.task_scores import TaskScores
from recsys.serve.retrieve.catalogue import Catalogue, Changed
from recsys.serve.retrieve.conditions import Ages
from recsys.serve.retrieve.retrieval import Retriever
from recsys.serve.retrieve.trending import Trending
from recsys.serve.users.live_history import LiveReader
from recsys.serve.users.pasts import Pasts


@dataclass(frozen=True)
class Parts:
    """The parts of one recommender, for one thread."""

    bundle: Bundle
    catalogue: Catalogue
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
        catalogue, model = Catalogue(bundle), bundle.recommender

        def count(changed: Changed) -> None:
            known = catalogue.of_rows(changed.rows)
            bundle.counts.put_videos(changed.rows, known.creator_rows, known.categories)

        catalogue.on_change.append(count)
        reader = LiveReader(bundle, catalogue, log)
        return cls(
            bundle=bundle,
            catalogue=catalogue,
            reader=reader,
            pasts=Pasts(bundle, reader, catalogue, held_users=bundle.config.serve.held_users),
            trending=Trending(model, bundle.counts),
            ages=Ages(bundle, catalogue),
            retriever=Retriever(bundle.index, bundle.vectors, dim=model.dim, catalogue=catalogue),
            tasks=TaskScores(model, catalogue, bundle.counts),
            resemblance=Resemblance(model, bundle.vectors, catalogue),
        )
