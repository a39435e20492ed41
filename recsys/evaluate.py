"""The evaluate stage: predictions by Ray Data over partitions of users, metrics by the library."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from recsys import cluster
from recsys.config import RunConfig
from recsys.data.batches import VideoInputs
from recsys.data.catalog import Catalog
from recsys.data.prepared import Prepared
from recsys.data.storage import (
    exists,
    filesystem,
    is_uri,
    join,
    open_input,
    read_json,
    write_json,
    write_table,
    write_text,
)
from recsys.data.timelines import IntArray, Timelines
from recsys.errors import InputError
from recsys.evaluation.baselines import (
    DAY_MS,
    content_knn,
    item_knn,
    popularity,
    random_order,
    recent_counts,
    recent_popularity,
)
from recsys.evaluation.classification import TaskMeter
from recsys.evaluation.compare import Columns, align, compare
from recsys.evaluation.interactions import Csr, RankingSet, Videos
from recsys.evaluation.page import render
from recsys.evaluation.predict import (
    VIDEOS_A_BATCH,
    Predictions,
    all_vectors,
    concat,
    join_lists,
    predict,
)
from recsys.evaluation.ranking import Ranker, dot_product
from recsys.evaluation.report import assemble
from recsys.model.recommender import Recommender
from recsys.progress import progress
from recsys.schema import TEST
from recsys.train.checkpoint import load_plain


@dataclass(frozen=True)
class Trained:
    """A trained run, ready to predict."""

    prepared: Prepared
    model: Recommender
    videos: VideoInputs
    vectors: Tensor
    """(N, D) of the whole catalogue."""
    cold_N: NDArray[np.bool_]
    """True where a video has no event that the model learnt from."""


def load_trained(config: RunConfig) -> Trained:
    """Reads the model that `train` left, in plain torch, and encodes the catalogue.

    Raises:
        InputError: There is none.
    """
    path = join(config.run, "train", "model")
    if not exists(path):
        raise InputError(f"{path}: there is no trained model; run recsys train")
    prepared = Prepared(config)
    with _local(path) as folder:
        model = load_plain(folder, config.model, prepared.sizes)
    videos = prepared.video_inputs(with_valid=config.train.refit)
    vectors = all_vectors(model, videos, torch.device("cpu"))
    known = prepared.catalog.known_events(with_valid=config.train.refit)
    return Trained(prepared, model, videos, vectors, known == 0)


@contextmanager
def _local(path: str) -> Iterator[str]:
    """A local folder with the same files."""
    fs, inner = filesystem(path)
    if not is_uri(path):
        yield inner
        return
    with tempfile.TemporaryDirectory() as folder:
        fs.get(f"{inner}/", f"{folder}/", recursive=True)
        yield folder


class PredictPartitions:
    """Predicts one partition of users a call; a Ray Data actor holds the model."""

    def __init__(self, held: Any) -> None:
        import ray

        self.config: RunConfig
        self.config, self.model, self.vectors = ray.get(held[0])
        self.prepared = Prepared(self.config)
        torch.set_num_threads(1)

    def __call__(self, batch: dict[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
        """Takes partition numbers, gives one row of predictions."""
        (number,) = batch["id"].tolist()
        found = predict(
            self.model,
            self.vectors,
            self.prepared.timelines(number),
            split=TEST,
            max_history=self.config.model.max_history,
        )
        return {name: [value] for name, value in found.to_row().items()}


def predict_all(trained: Trained) -> Predictions:
    """The test predictions of all users."""
    import ray

    total = len(trained.prepared.partitions)
    held = ray.put((trained.prepared.config, trained.model, trained.vectors))
    # No task and no actor may ask for a CPU that is not free: the rest would wait for it for ever.
    free = ray.available_resources().get("CPU", 0.0)
    workers = max(1, min(int(free), total))
    numbers = [{"id": number} for number in range(total)]
    dataset = ray.data.from_items(numbers, override_num_blocks=total).map_batches(
        PredictPartitions,
        fn_constructor_args=([held],),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=min(1.0, free),
    )
    parts = []
    dim = trained.vectors.shape[1]
    num_tasks = len(trained.prepared.config.data.columns.tasks)
    with progress("evaluate: predicting", total=total) as advance:
        for row in dataset.iter_rows():
            parts.append(Predictions.from_row(row, dim=dim, num_tasks=num_tasks))
            advance(1)
    # Tasks end in any order; the report must not depend on it.
    parts.sort(key=lambda part: part.user_ids[:1])
    return concat(parts, dim, num_tasks)


def evaluate(config: RunConfig, out: str) -> dict[str, Any]:
    """Runs the stage and returns its report; report.html and the users' metrics lie in `out`.

    Raises:
        InputError: There is no trained model.
    """
    cluster.connect()
    trained = load_trained(config)
    found = predict_all(trained)
    data = ranking_set(trained, found)
    report, columns = assemble(
        data,
        rankers(config, trained, found, data),
        config.evaluate,
        config.rerank,
        tasks=task_report(config, trained, found),
    )
    for name, metrics in columns.items():
        table = pa.table({"user_id": list(data.user_ids), **metrics})
        write_table(table, users_path(config.run, name))
    training = read_json(join(config.run, "train", "report.json")) or {}
    report["training"] = training.get("history", [])
    write_page(config, report)
    return report


def write_page(config: RunConfig, report: dict[str, Any]) -> None:
    """Writes RUN/evaluate/report.html."""
    title = f"Evaluation of {config.run.rstrip('/').rsplit('/', 1)[-1]}"
    write_text(render(report, title=title), join(config.run, "evaluate", "report.html"))


def users_path(run: str, ranker: str) -> str:
    """Where a run keeps a ranker's metrics of each user."""
    return join(run, "evaluate", "users", f"{ranker}.parquet")


def rankers(
    config: RunConfig, trained: Trained, found: Predictions, data: RankingSet
) -> dict[str, Ranker]:
    """The model and what it must beat."""
    positives, recent = known_positives(trained.prepared, config.evaluate.half_life_days)
    all_of_them = {
        "model": dot_product(torch.from_numpy(found.queries), trained.vectors),
        "popularity": popularity(data.videos.popularity_N),
        "recent popularity": recent_popularity(recent),
        "item-kNN": item_knn(positives, data, neighbours=config.evaluate.neighbours),
    }
    contents = content_vectors(trained)
    if contents is not None:
        all_of_them["content-kNN"] = content_knn(contents, data)
    return {**all_of_them, "random": random_order(data.num_videos)}


def known_positives(prepared: Prepared, half_life_days: float) -> tuple[Csr, NDArray[np.float64]]:
    """All users' positives before the test, and each video's recent count of them (N)."""
    parts = [known_part(prepared.timelines(n)) for n in range(len(prepared.partitions))]
    newest = max((int(time.max()) for _, time in parts if len(time)), default=0)
    recent = np.zeros(len(prepared.catalog))
    for lists, time_ms in parts:
        recent += recent_counts(
            lists.values,
            time_ms,
            cut_ms=newest + 1,
            half_life_days=half_life_days,
            num_videos=len(recent),
        )
    return join_lists([lists for lists, _ in parts]), recent


def known_part(timelines: Timelines) -> tuple[Csr, IntArray]:
    """Videos of each user's positives before the test, and their times, one after the other."""
    kept = (timelines.split < TEST) & (timelines.positive > 0)
    counts = np.concatenate([[0], np.cumsum(kept)])[timelines.offsets]
    rows = timelines.video_rows[kept].astype(np.int32)
    return Csr(counts.astype(np.int64), rows), timelines.time_ms[kept]


@torch.no_grad()
def content_vectors(trained: Trained) -> Tensor | None:
    """The content part of each video's vector (N, content dim); None where there is none."""
    content, videos = trained.model.video.content, trained.videos
    if content is None or videos.clip_rows is None or videos.load_clips is None:
        return None
    there = np.flatnonzero(videos.clip_rows >= 0)
    vectors = None
    for start in range(0, len(there), VIDEOS_A_BATCH):
        rows = there[start : start + VIDEOS_A_BATCH]
        part = content(torch.from_numpy(videos.load_clips(videos.clip_rows[rows])))
        if vectors is None:
            vectors = torch.zeros(len(videos.catalog), part.shape[1])
        vectors[torch.from_numpy(rows)] = part
    return vectors


def compare_runs(config: RunConfig, against: str) -> list[dict[str, Any]]:
    """Paired tests of this run's model and another's on the users that both have.

    They are added to the run's own report, and its page is written anew.

    Raises:
        InputError: One of the runs has no evaluation, or they share no user.
    """
    our_users, ours = read_columns(config.run)
    their_users, theirs = read_columns(against)
    mine, other = align(our_users, their_users)
    rows = compare(
        {name: values[mine] for name, values in ours.items()},
        {name: values[other] for name, values in theirs.items()},
        config.evaluate,
    )
    path = join(config.run, "evaluate", "report.json")
    report = {**read_json(path), "against": {"run": against, "rows": rows}}
    write_json(report, path)
    write_page(config, report)
    return rows


def read_columns(run: str) -> tuple[list[str], Columns]:
    """The test users of an evaluated run, and its model's metrics of each."""
    path = users_path(run, "model")
    if not exists(path):
        raise InputError(f"{path}: this run was not evaluated; run recsys evaluate on it first")
    with open_input(path) as file:
        table = pq.read_table(file)
    names = [name for name in table.column_names if name != "user_id"]
    return table["user_id"].to_pylist(), {name: np.asarray(table[name]) for name in names}


def ranking_set(trained: Trained, found: Predictions) -> RankingSet:
    """What the rankers are measured against."""
    prepared = trained.prepared
    catalog = prepared.catalog
    return RankingSet(
        user_ids=found.user_ids,
        relevant=found.relevant,
        known=found.known,
        videos=Videos(
            cold_N=trained.cold_N,
            popularity_N=catalog.known_positives(with_valid=True),
            creator_row_N=optional(prepared.config.data.video_columns.creator, catalog),
            categories=Csr(catalog.category_offsets, catalog.category_rows.astype(np.int32)),
            age_days_N=ages_days(prepared),
        ),
        groups=user_groups(prepared, found.user_ids),
    )


def optional(creator: str | None, catalog: Catalog) -> NDArray[np.int32] | None:
    """The creators, where the data have any."""
    return catalog.creator_rows.astype(np.int32) if creator else None


def ages_days(prepared: Prepared) -> NDArray[np.float64]:
    """Days from each video's first event to the newest event before the test (N); NaN unknown."""
    first = prepared.catalog.table.column("first_time_ms").combine_chunks()
    known = np.asarray(first.is_valid())
    times = np.asarray(first.fill_null(0), dtype=np.float64)
    newest = max(
        int(t.time_ms[t.split < TEST].max(initial=0))
        for t in map(prepared.timelines, range(len(prepared.partitions)))
    )
    return np.where(known, (newest - times) / DAY_MS, np.nan)


def user_groups(prepared: Prepared, user_ids: list[str]) -> dict[str, list[str | None]]:
    """Group column → each user's group."""
    with open_input(join(prepared.prepare_dir, "users.parquet")) as file:
        table = pq.read_table(file)
    row_of = {user: row for row, user in enumerate(table.column("user_id").to_pylist())}
    rows = pa.array([row_of.get(user) for user in user_ids], pa.int64())
    names = [name for name in table.column_names if name != "user_id"]
    return {name: table.column(name).take(rows).to_pylist() for name in names}


def task_report(config: RunConfig, trained: Trained, found: Predictions) -> dict[str, Any]:
    """The ranking head's figures by task."""
    report = {}
    cold = trained.cold_N[found.event_videos]
    for number, task in enumerate(config.data.columns.tasks):
        meter = TaskMeter()
        meter.add(found.labels[:, number], found.logits[:, number], cold)
        report[task] = meter.result()
    return report
