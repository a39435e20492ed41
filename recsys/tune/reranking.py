"""Sweeps over the re-ranking weights: nothing is trained, the trained model's lists are re-ranked.

The lists are those of the validation users, by the model that had not learnt from their validation
events yet; predicted once, for all trials.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from recsys.config.run import RunConfig, parse_config
from recsys.data.run_folder import RunFolder
from recsys.data.storage import exists, join, read_json
from recsys.errors import InputError
from recsys.evaluation.from_prepared import ranking_set
from recsys.evaluation.metrics.fairness import creator_exposure
from recsys.evaluation.metrics.table import METRICS
from recsys.evaluation.report.tradeoff import (
    CandidateSample,
    draw_sample,
    metrics_of_curve,
    rerank_sample,
)
from recsys.schema import TEST, VALID
from recsys.train.collectives import Collectives
from recsys.train.trained import load_trained
from recsys.train.trainer import checkpoint_folder, read_result
from recsys.train.validation import predict_validation
from recsys.tune.space import Space
from recsys.tune.trial import asked_config, failure_told
from recsys.tune.trials import EPOCH, FIGURES, OBJECTIVE, objective

if TYPE_CHECKING:
    from ray import ObjectRef

K = 10
RELEVANCE = {"score", f"valid_ndcg@{K}", f"valid_hr@{K}"}
CANDIDATES = "rerank.candidates"
LIST_METRICS = ("ndcg", "hr")
CREATOR_FIGURES = ("creator_gini", "creators_shown")
"""How unequally creators are shown and how many of them, where creators are known."""


def reranked_figure_names(config: RunConfig, prefix: str = "valid") -> list[str]:
    """Names of the figures that a re-ranking trial may have.

    Args:
        config: The run; whether its catalogue allows diversity and the like shows in the data.
        prefix: As of `reranked_figures`.
    """
    on_curve = [metric.name for metric in METRICS if metric.on_curve]
    named = config.data.video_columns.creator is not None
    names = [*LIST_METRICS, *on_curve, *(CREATOR_FIGURES if named else [])]
    return [*(f"{prefix}_{name}@{K}" for name in dict.fromkeys(names)), "score"]


def require_trade(config: RunConfig) -> None:
    """Refuses an objective for which the best weights are none.

    Raises:
        InputError: Such an objective.
    """
    if config.tune.objective.keys() <= RELEVANCE:
        raise InputError(
            "tune.objective: re-ranking trades relevance for something else, and this names "
            "relevance alone; for example 'tune.objective={valid_ndcg@10: 1, "
            "valid_creator_gini@10: -0.1}'"
        )


def fitted_model(config: RunConfig) -> str:
    """The folder of the trained model before it learnt from the validation events.

    Raises:
        InputError: There is none.
    """
    folder = RunFolder(config.run)
    report = read_json(folder.report_of("train"))
    if not report:
        raise InputError(
            f"{folder.train}: there is no trained model whose lists could be re-ranked; run "
            "`recsys train` first"
        )
    if not report["refit"]:
        return folder.model
    fit = join(folder.train, f"fit-{report['fingerprint'][:12]}")
    if not exists(fit):
        raise InputError(
            f"{fit}: the model before it learnt from the validation events is missing; remove the "
            "folder train and run `recsys train` again"
        )
    return checkpoint_folder(fit, read_result(fit).get_best_checkpoint("score", "max"))


def make_sample(config: RunConfig, split: int, depth: int) -> CandidateSample:
    """The users' best videos, as the model has them before re-ranking.

    Args:
        config: The run.
        split: VALID, or TEST by the model that was trained at last.
        depth: Videos of each user.
    """
    trained = load_trained(config, fitted_model(config) if split == VALID else None)
    answers = predict_validation(
        trained.model,
        trained.prepared,
        trained.videos,
        torch.device("cpu"),
        collectives=Collectives(),
        split=split,
    )
    data = ranking_set(trained.prepared, answers.predictions, trained.cold_N, split=split)
    ranker = answers.ranker(float(trained.model.trending))
    return draw_sample(data, ranker, config.evaluate, depth, config.evaluate.tradeoff_users)


def reranked_figures(
    sample: CandidateSample, config: RunConfig, prefix: str = "valid"
) -> dict[str, float]:
    """What the lists are worth after re-ranking: relevance, and what it is traded for."""
    result = rerank_sample(sample, config.evaluate, config.rerank, K)
    values = result.slices["all"].values
    figures = {f"{name}@{K}": float(values[f"{name}@{K}"].mean()) for name in LIST_METRICS}
    figures |= {f"{name}@{K}": value for name, value in metrics_of_curve(result, K).items()}
    if sample.data.videos.creator_row_N is not None:
        spread = creator_exposure(sample.data, result.exposure[K])
        measured = (spread["gini"], spread["shown"])
        figures |= {
            f"{name}@{K}": value for name, value in zip(CREATOR_FIGURES, measured, strict=True)
        }
    return {f"{prefix}_{name}": float(value) for name, value in figures.items()}


def reranked_test_figures(config: RunConfig) -> dict[str, float]:
    """What a trial's weights are worth on the test events."""
    sample = make_sample(config, TEST, max(config.rerank.candidates, K))
    return reranked_figures(sample, config, "test")


def rerank_trainable(config: RunConfig, space: Space) -> object:
    """The trials' function, with the lists that all of them put in order."""
    import ray
    from ray import tune

    entry = space.get(CANDIDATES)
    most = config.rerank.candidates if entry is None else int(entry.largest)
    sample = ray.remote(make_sample).remote(config, VALID, max(most, K))
    ray.get(sample)  # what goes wrong in it is said here, and once
    return tune.with_parameters(
        run_reranking, config_tree=config.model_dump(mode="json"), held=(sample,)
    )


def run_reranking(
    asked: Mapping[str, object],
    *,
    config_tree: Mapping[str, object],
    held: tuple[ObjectRef[CandidateSample]],
) -> None:
    """One trial, as Ray Tune calls it.

    Args:
        asked: The trial's number and settings.
        config_tree: The run's config.
        held: The lists.
    """
    import ray
    from ray import tune

    with failure_told():
        config = asked_config(parse_config(config_tree, "sweep"), asked)
        figures = reranked_figures(ray.get(held[0]), config)
        score = math.log(max(figures[f"valid_ndcg@{K}"], 1e-9))
        figures = {EPOCH: 1, "score": score, **figures}
        tune.report({EPOCH: 1, OBJECTIVE: objective(figures, config.tune), FIGURES: figures})
