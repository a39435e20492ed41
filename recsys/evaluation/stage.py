"""The evaluate stage: predictions by Ray Data over partitions of users, metrics by the library."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from recsys import cluster
from recsys.bundle.contents import Bundle
from recsys.config.run import RunConfig
from recsys.data.run_folder import RunFolder
from recsys.data.storage import read_json
from recsys.evaluation.baselines.table import make_baselines
from recsys.evaluation.from_prepared import known_likes, ranking_set, task_figures
from recsys.evaluation.previous import load_previous, previous_predictor
from recsys.evaluation.report.assemble import assemble
from recsys.evaluation.report.files import LISTS, TASKS, write_page, write_users
from recsys.evaluation.report.schema import Circumstances, Report
from recsys.evaluation.report.tradeoff import model_traits
from recsys.evaluation.report.verdict import MAIN, PREVIOUS
from recsys.inference.encode import all_contents
from recsys.inference.predict import Predictions, Predictor, asked_users, concat, drawn_users
from recsys.inference.rerank import Reranker, VideoTraits, is_active
from recsys.prepare.prepared import Prepared
from recsys.progress import progress
from recsys.schema import TEST
from recsys.train.trained import Trained, load_trained

if TYPE_CHECKING:
    from ray import ObjectRef

logger = logging.getLogger(__name__)


class Workers(NamedTuple):
    """The Ray Data actors that predict."""

    num: int
    cpus: float
    """Of each."""
    gpus: float = 0.0
    """Of each, perhaps a part of one."""


def plan_workers(free: Mapping[str, float], partitions: int, *, use_gpu: bool) -> Workers:
    """One actor a GPU, or one a core where no GPU is free or none shall be used.

    None asks for what is not free, or the stage would wait for it for ever; one with a GPU asks for
    no core, which a node of GPUs may not offer.

    Args:
        free: What the cluster has to give, as Ray counts it (`CPU`, `GPU`).
        partitions: More actors than these would have nothing to do.
        use_gpu: Whether GPUs are wanted.

    >>> plan_workers({"CPU": 16.0, "GPU": 2.0}, 64, use_gpu=True)
    Workers(num=2, cpus=0.0, gpus=1.0)
    >>> plan_workers({"CPU": 16.0, "GPU": 2.0}, 8, use_gpu=False)
    Workers(num=8, cpus=1.0, gpus=0.0)
    """
    cpus, gpus = free.get("CPU", 0.0), free.get("GPU", 0.0) if use_gpu else 0.0
    share = int(1e4 * min(1.0, gpus)) / 1e4  # Ray counts in ten thousandths
    num = max(1, min(int(gpus if share else cpus), partitions))
    return Workers(num, 0.0 if share else min(1.0, cpus), share)


class PredictPartitions:
    """Predicts one partition of users a call; a Ray Data actor holds the model."""

    def __init__(self, held: tuple[ObjectRef[tuple[Prepared, Predictor]]]) -> None:
        import ray

        self.prepared: Prepared
        self.prepared, predictor = ray.get(held[0])
        self.predictor = predictor.on(device_of(has_gpu=cluster.has_gpu()))
        torch.set_num_threads(1)

    def __call__(self, batch: dict[str, NDArray[np.int64]]) -> dict[str, list[object]]:
        """Takes partition numbers, gives one row of predictions."""
        (number,) = batch["id"].tolist()
        timelines = self.prepared.timelines(number)
        asked, total = asked_users(timelines, TEST), len(self.prepared.partitions)
        users = drawn_users(asked, self.prepared.config.evaluate, number, total)
        predictions = self.predictor.predict(timelines, split=TEST, users=users)
        return {name: [value] for name, value in predictions.to_row().items()}


def predict_all(prepared: Prepared, predictor: Predictor) -> Predictions:
    """The test predictions of all users, or of those who are drawn."""
    import ray

    total = len(prepared.partitions)
    held = ray.put((Prepared(prepared.config), predictor))
    use_gpu = may_use_gpu(prepared.config.train.device)
    workers = plan_workers(ray.available_resources(), total, use_gpu=use_gpu)
    cluster.tell_of_gpus("evaluate", workers.num, workers.gpus)
    numbers = [{"id": number} for number in range(total)]
    dataset = ray.data.from_items(numbers, override_num_blocks=total).map_batches(
        PredictPartitions,
        fn_constructor_args=([held],),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=workers.num),
        num_cpus=workers.cpus,
        num_gpus=workers.gpus or None,
    )
    parts = []
    dim = predictor.model.dim
    num_tasks = len(prepared.config.data.columns.tasks)
    with progress("evaluate: predicting", total=total) as advance:
        for row in dataset.iter_rows():
            parts.append(Predictions.from_row(row, dim=dim, num_tasks=num_tasks))
            advance(1)
    # Tasks end in any order; the report must not depend on it.
    parts.sort(key=lambda part: part.asked_ids[:1])
    return concat(parts, dim, num_tasks)


def may_use_gpu(device: str) -> bool:
    """Whether actors are to take GPUs; logs that they do not where PyTorch sees none of them."""
    if device == "cpu":
        return False
    if not cluster.gpus_compute():
        logger.warning(
            "evaluate: on the nodes with a GPU PyTorch sees none, as its CPU build; cores predict "
            "(pip install 'recsys[gpu]' there)"
        )
        return False
    return True


def device_of(*, has_gpu: bool) -> torch.device:
    """Where a process computes that may use a GPU, or that has none."""
    return torch.device("cuda" if has_gpu and torch.cuda.is_available() else "cpu")


def evaluate(config: RunConfig, out: str, previous: str | None = None) -> Report:
    """Runs the stage and returns its report; all that it writes lies in `out`.

    Args:
        config: Of the run.
        out: Folder of report.html and of the users' metrics: RUN/evaluate in a run.
        previous: Folder of the bundle that the model is compared with.

    Raises:
        InputError: There is no trained model.
    """
    cluster.connect()
    device = device_of(has_gpu=config.train.device != "cpu")
    trained = load_trained(config)
    predictions = predict_all(trained.prepared, trained.predictor)
    data = ranking_set(trained.prepared, predictions, trained.cold_N)
    contents = all_contents(trained.model, trained.videos, torch.device("cpu"))
    baselines = make_baselines(known_likes(trained.prepared), data, config.evaluate, contents)
    rankers = {MAIN: trained.predictor.ranker(predictions, device=device), **baselines.rankers}
    answers = {MAIN: predictions}
    bundle = load_previous(config, previous) if previous else None
    if bundle is not None:
        theirs = previous_predictor(bundle, trained.prepared)
        answers[PREVIOUS] = predict_all(trained.prepared, theirs)
        rankers[PREVIOUS] = theirs.ranker(answers[PREVIOUS], device=device)
    heads = {
        name: task_figures(answer, trained.cold_N, config.data.columns.tasks, config.evaluate)
        for name, answer in answers.items()
    }
    report, columns = assemble(
        data,
        rankers,
        config.evaluate,
        config.rerank,
        heads=heads,
        about={**protocol(config, bundle, predictions.num_asked), "baselines": baselines.about},
    )
    write_users(out, LISTS, data.user_ids, columns[MAIN])
    if PREVIOUS in columns:
        write_users(out, PREVIOUS, data.user_ids, columns[PREVIOUS])
    write_users(out, TASKS, predictions.asked_ids, heads[MAIN][1])
    training = read_json(RunFolder(config.run).report_of("train")) or {}
    report["training"] = training.get("history", [])
    write_page(config, out, report)
    return report


def rerank_traits(config: RunConfig, trained: Trained) -> VideoTraits | None:
    """What a server's re-ranking looks at, as evaluation has it; None where no weight is set."""
    if not is_active(config.rerank):
        return None
    cluster.connect()
    predictions = predict_all(trained.prepared, trained.predictor)
    data = ranking_set(trained.prepared, predictions, trained.cold_N)
    ranker = trained.predictor.ranker(predictions)
    traits = model_traits(data, ranker, config.evaluate, config.rerank)
    Reranker(config.rerank, traits)  # says what is missing now, and not when it is served
    return traits


def protocol(config: RunConfig, bundle: Bundle | None, num_asked: int) -> Circumstances:
    """How it was measured, on how many of the users, and against which bundle."""
    cut = {
        "time": "the test is everything from one moment on, for all users",
        "leave_one_out": "the test is the last positive event of each user",
    }
    about: Circumstances = {"split": cut[config.split.kind]}
    if config.evaluate.users is not None and config.evaluate.users < num_asked:
        about["drawn"] = {"users": config.evaluate.users, "of": num_asked}
    if bundle is not None:
        about["previous"] = {
            "version": bundle.version,
            "created": bundle.manifest["created"],
            "same_split": bundle.config.split == config.split,
        }
    return about
