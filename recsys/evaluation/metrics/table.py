"""All metrics of lists: a new one is one entry of `METRICS`, and everything else reads the table.

The meters compute what stands here. The report, the terminal's table, the page with its glossary,
the comparison of two runs and the trade-off curve take titles, meanings and forms from here.

Shapes: B lists (users of a chunk, or users in a slice), N video rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from recsys.evaluation.metrics.beyond import Exposure, OfLists, diversity, self_information
from recsys.evaluation.metrics.expected import ExpectedHits, HitSums, ideal_gain
from recsys.evaluation.metrics.interactions import VideoTable


@dataclass(frozen=True)
class OfHits:
    """Accuracy: of where the relevant videos stand. It is measured in every slice."""

    of: Callable[[HitSums, Tensor, int], Tensor]
    """Takes sums over the positions, the number of relevant videos (B) and k; gives a value a list
    (B, float64), which must be 0 where nothing relevant is in the list."""


@dataclass(frozen=True)
class MeanOfVideos:
    """The mean over a list of a value that each video has."""

    of: Callable[[VideoTable, float], NDArray[np.number] | NDArray[np.bool_] | None]
    """Takes the catalogue and the age in days up to which a video is new; gives a value a video
    (N), or None where the catalogue does not know it."""


@dataclass(frozen=True)
class OfWholeLists:
    """What only all videos of a list together have."""

    of: Callable[[VideoTable], OfLists | None]
    """Takes the catalogue; gives what makes a value a list (B), or None where the catalogue does
    not know enough."""


@dataclass(frozen=True)
class OfExposure:
    """What only the lists of all users together have."""

    of: Callable[[Exposure, int | None], float]
    """Takes how often each video is shown, and a block of users to leave out or None."""


@dataclass(frozen=True)
class Metric:
    """One metric of lists, at every cutoff."""

    name: str
    """What stands before `@k` in report.json."""
    title: str
    """What people read."""
    help: str
    """What it means, in one sentence, for the glossary."""
    compute: OfHits | MeanOfVideos | OfWholeLists | OfExposure
    is_main: bool = False
    """Whether the terminal shows it, and comparisons test it."""
    is_share: bool = False
    """Whether people read it in per cent."""
    on_curve: bool = False
    """Whether each point of the re-ranking's trade-off curve has it."""
    column: str = ""
    """What stands before `@k` among the columns of single users, where it is another name."""

    @property
    def user_column(self) -> str:
        """What stands before `@k` among the columns of single users."""
        return self.column or self.name


METRICS: tuple[Metric, ...] = (
    Metric(
        "ndcg",
        "NDCG",
        "Relevant videos in the first k, each counting less the lower it stands, over the best "
        "that could be reached with min(k, number of relevant videos) of them.",
        OfHits(lambda sums, relevant_B, k: sums.gain(k) / ideal_gain(k)[relevant_B.clamp(max=k)]),
        is_main=True,
    ),
    Metric(
        "hr",
        "HR",
        "Hit rate: the share of users with at least one relevant video in their first k.",
        OfHits(lambda sums, relevant_B, k: sums.any_hit(k)),
        is_main=True,
    ),
    Metric(
        "recall",
        "recall",
        "Share of a user's relevant videos that are in the first k.",
        OfHits(lambda sums, relevant_B, k: sums.hits(k) / relevant_B),
        is_main=True,
    ),
    Metric(
        "precision",
        "precision",
        "Share of the first k that are relevant.",
        OfHits(lambda sums, relevant_B, k: sums.hits(k) / k),
    ),
    Metric(
        "mrr",
        "MRR",
        "One over the place of the first relevant video, where that is among the first k, else 0.",
        OfHits(lambda sums, relevant_B, k: sums.reciprocal_rank(k)),
        is_main=True,
    ),
    Metric(
        "map",
        "MAP",
        "Mean of the precision at the place of each relevant video; it counts the first k only.",
        OfHits(lambda sums, relevant_B, k: sums.precisions(k) / relevant_B),
    ),
    Metric(
        "coverage",
        "coverage",
        "Share of the catalogue that is in any user's first k.",
        OfExposure(Exposure.coverage),
        is_share=True,
        on_curve=True,
    ),
    Metric(
        "novelty",
        "novelty",
        "Mean surprise of the shown videos in bits: -log2 of a video's share of the known "
        "positives.",
        MeanOfVideos(lambda videos, new_days: self_information(videos)),
        on_curve=True,
    ),
    Metric(
        "diversity",
        "diversity",
        "One minus the mean likeness (cosine of categories) of two videos of a list.",
        OfWholeLists(diversity),
        on_curve=True,
    ),
    Metric(
        "average_popularity",
        "mean popularity",
        "Mean number of known positives of the shown videos.",
        MeanOfVideos(lambda videos, new_days: videos.popularity_N),
        column="popularity",
    ),
    Metric(
        "new",
        "new videos",
        "Share of the first k that are new: first seen few days before the test, or never.",
        MeanOfVideos(
            lambda videos, new_days: None if videos.age_days_N is None else videos.is_new(new_days)
        ),
        is_share=True,
        on_curve=True,
    ),
)


def metric_of(figure: str) -> Metric | None:
    """The metric that a figure or a column of single users is of.

    >>> metric_of("ndcg@10").title, metric_of("popularity@5").title, metric_of("gini")
    ('NDCG', 'mean popularity', None)
    """
    name = figure.partition("@")[0]
    return next((m for m in METRICS if name in (m.name, m.user_column)), None)


def figure_name(column: str) -> str:
    """What a column of single users is called in report.json.

    >>> figure_name("popularity@10"), figure_name("ndcg@10")
    ('average_popularity@10', 'ndcg@10')
    """
    metric = metric_of(column)
    return column if metric is None else f"{metric.name}@{column.partition('@')[2]}"


def metrics_at(
    hits: ExpectedHits, num_relevant_B: Tensor, cutoffs: Sequence[int]
) -> dict[str, Tensor]:
    """Every metric of accuracy at each cutoff, one value a list (float64).

    With r_j ∈ {0, 1} the relevance of position j = 1…K and R the number of relevant videos:
    hr = 1 if any r_j up to k; recall = Σ r_j / R; precision = Σ r_j / k;
    ndcg = Σ r_j / log2(j + 1) over the same sum of a list that begins with min(k, R) relevant ones;
    mrr = 1 / the first j with r_j = 1, or 0; map = Σ r_j precision@j / R.

    >>> import torch
    >>> from recsys.evaluation.metrics.expected import hits_without_ties
    >>> hits = hits_without_ties(torch.tensor([[0, 1, 1]]))
    >>> values = metrics_at(hits, torch.tensor([2]), [3])
    >>> {name: round(value.item(), 4) for name, value in values.items()}
    {'ndcg@3': 0.6934, 'hr@3': 1.0, 'recall@3': 1.0, 'precision@3': 0.6667, 'mrr@3': 0.5, 'map@3': 0.5833}
    """  # noqa: E501
    sums = HitSums(hits)
    return {
        f"{metric.name}@{k}": metric.compute.of(sums, num_relevant_B, k)
        for k in cutoffs
        for metric in METRICS
        if isinstance(metric.compute, OfHits)
    }
