"""The train stage: a Ray `TorchTrainer` around the loop, once to fit and once to refit."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from recsys import cluster
from recsys.config.run import RunConfig, TrainConfig
from recsys.data.storage import as_url, copy_folder, join, local_path, remove
from recsys.errors import InputError, find_input_error, unwrapped
from recsys.model.frames import make_frame_encoder
from recsys.prepare.prepared import Prepared
from recsys.progress import progress
from recsys.schema import TEST, VALID
from recsys.train.checkpoint import START, read_trending
from recsys.train.curves import AddEpoch, curves
from recsys.train.figures import Board
from recsys.train.grow import grow
from recsys.train.loop import Job, train_worker

logger = logging.getLogger(__name__)

POLL_S = 0.5


def make_trainer(
    config: RunConfig,
    *,
    name: str = "fit",
    learn_before: int = VALID,
    epochs: int | None = None,
    trending: float | None = None,
    board: Any = None,
    callbacks: list[Any] | None = None,
) -> Any:
    """A `ray.train.torch.TorchTrainer` of a run whose data stages are done.

    `fit()` goes on from the last checkpoint of the same run folder and name, if there is one.

    Args:
        config: The run.
        name: Folder of the checkpoints inside RUN/train.
        learn_before: VALID, or TEST to learn from the validation events too.
        epochs: Instead of `train.epochs`.
        trending: Weight of what is trending, which a refit has no days to find by.
        board: Actor that takes the progress.
        callbacks: Ray Train callbacks, as Ray Tune needs one.

    Raises:
        InputError: The cluster has too few CPUs or GPUs for `train.workers`.
    """
    from ray.train import CheckpointConfig, FailureConfig, ScalingConfig
    from ray.train import RunConfig as RayRunConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    gpu = use_gpu(config)
    cluster.require(config.train.workers, gpu=gpu)
    epochs = config.train.epochs if epochs is None else epochs
    job = Job(config, learn_before, epochs, gpu=gpu, trending=trending, board=board)
    return TorchTrainer(
        train_worker,
        train_loop_config=job.to_dict(),
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=ScalingConfig(num_workers=config.train.workers, use_gpu=gpu),
        run_config=RayRunConfig(
            name=name,
            storage_path=storage_path(join(config.run, "train")),
            failure_config=FailureConfig(max_failures=config.train.max_failures),
            checkpoint_config=CheckpointConfig(
                num_to_keep=2, checkpoint_score_attribute="score", checkpoint_score_order="max"
            ),
            callbacks=[*(callbacks or []), make_stop_at_final()],
        ),
    )


def use_gpu(config: RunConfig) -> bool:
    """Whether each worker is given a GPU; backend and device of all workers follow from it."""
    return wants_gpu(config.train, cluster.num_gpus())


def wants_gpu(config: TrainConfig, num_gpus: int) -> bool:
    """Whether the workers of a cluster with so many GPUs are to train on them.

    >>> wants_gpu(TrainConfig(workers=2), 2), wants_gpu(TrainConfig(workers=2), 1)
    (True, False)
    """
    enough = num_gpus >= config.workers
    return config.device == "cuda" or (config.device == "auto" and enough)


FINAL = (InputError, FloatingPointError)
"""Errors of a worker that every other try would end with too."""


def make_stop_at_final() -> Any:
    """A Ray Train callback that ends training at an error that no further try can mend.

    Ray Train starts the workers again after any error, `train.max_failures` times. An error that a
    callback raises in its controller ends training at once.
    """
    from ray.train import UserCallback

    class StopAtFinal(UserCallback):  # type: ignore[misc]
        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Any]) -> None:
            for error in worker_exceptions.values():
                for cause in unwrapped(error):
                    if isinstance(cause, FINAL):
                        raise cause

    return StopAtFinal()


def storage_path(path: str) -> str:
    """A path as Ray wants it: absolute, or a URI."""
    return local_path(path) or as_url(path)


def train(config: RunConfig, out: str, fingerprint: str) -> dict[str, Any]:
    """Runs the stage and returns its report; the model lies in `out`/model afterwards.

    Args:
        config: The run.
        out: RUN/train.
        fingerprint: Names the checkpoints, so that training with other settings starts anew.

    Raises:
        InputError: The cluster is too small, or a setting cannot work.
    """
    if not config.train.epochs:
        raise InputError("train.epochs=0: there is nothing to train; set it to at least 1")
    cluster.connect()
    gpu, num_gpus = use_gpu(config), cluster.num_gpus()
    cluster.require(config.train.workers, gpu=gpu)
    if config.train.device == "auto" and num_gpus and not gpu:
        logger.warning(
            "train.device=auto: %d GPUs for %d workers, so that all train on CPUs; "
            "set train.workers to at most %d to use the GPUs",
            num_gpus,
            config.train.workers,
            num_gpus,
        )
    require_inputs(config)
    if config.train.start_from is not None:
        grow(config, join(out, START))
    fit = _run(config, f"fit-{fingerprint}", "train", learn_before=VALID)
    chosen, best = int(fit.metrics["best_epoch"]), fit.get_best_checkpoint("score", "max")
    if best is not None and config.train.refit:
        with best.as_directory() as folder:
            found = {"epochs": chosen, "trending": read_trending(folder)}
        name = f"refit-{fingerprint}"
        best = _run(config, name, "refit", learn_before=TEST, **found).checkpoint
    if best is None:
        raise RuntimeError(f"{out}: training ended without a checkpoint")
    keep(best, join(out, "model"))
    return {"epochs": chosen, "refit": config.train.refit, "history": _history(fit)}


def _run(config: RunConfig, name: str, title: str, **settings: Any) -> Any:
    import ray

    board = ray.remote(num_cpus=0)(Board).remote()
    trainer = make_trainer(config, name=name, board=board, **settings)
    epochs = settings.get("epochs", config.train.epochs)
    with curves(config, join(config.run, "train", "tensorboard", name), name) as add_epoch:
        with _shown(board, title, epochs, add_epoch):
            try:
                result = trainer.fit()
            except Exception as error:
                raise training_error(error) from error
    if result.error:
        raise training_error(result.error) from result.error
    return result


def require_inputs(config: RunConfig) -> None:
    """Finds here what every worker would stumble over, again after each restart.

    Raises:
        InputError: The timelines or clips are not there, or the frame encoder cannot be made.
    """
    clip = Prepared(config).sizes.clip
    if clip is not None and clip.feature_dim is None:
        make_frame_encoder(config.model.content.encoder)


def training_error(error: Exception) -> Exception:
    """What to tell the user of an error of Ray Train: an `InputError` where a worker met one."""
    return find_input_error(error) or RuntimeError(f"training stopped: {root_cause(error)}")


def root_cause(error: BaseException) -> str:
    """The line of a worker's error that says what happened."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        error = next(iter(failures.values()))
    cause = getattr(error, "cause", None) or error
    lines = [line for line in str(cause).splitlines() if line.strip()]
    return lines[-1] if lines else repr(cause)


def _history(result: Any) -> list[dict[str, float]]:
    import json

    with result.checkpoint.as_directory() as folder, open(f"{folder}/progress.json") as file:
        history: list[dict[str, float]] = json.load(file)["history"]
    return history


def keep(checkpoint: Any, target: str) -> None:
    """Copies a checkpoint to where the later stages look for it."""
    remove(target)
    with checkpoint.as_directory() as folder:
        copy_folder(folder, target)


@contextmanager
def _shown(board: Any, title: str, epochs: int, add_epoch: AddEpoch) -> Iterator[None]:
    """A progress bar and curves that follow the board while the block runs."""
    import ray

    done = threading.Event()

    def follow() -> None:
        shown, told, placed = 0.0, 0, False
        with progress(title, total=epochs) as advance:
            while True:
                over = done.wait(POLL_S)
                epochs_done, figures, history, plan = ray.get(board.read.remote())
                if plan and not placed:
                    logger.info("%s: tables: %s", title, plan)
                    placed = True
                advance(epochs_done - shown, note=describe(figures))
                shown = epochs_done
                for epoch in history[told:]:
                    logger.info(
                        "%s: epoch %d of at most %d: %s",
                        title,
                        epoch["epoch"],
                        epochs,
                        describe(epoch),
                    )
                    add_epoch(epoch)
                told = len(history)
                if over:
                    return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def describe(figures: dict[str, float]) -> str:
    """The figures that people follow, in one short line.

    >>> describe({"retrieval_loss": 7.25, "valid_ndcg@10": 0.03, "events_per_s": 1200.4})
    'retrieval loss 7.250, valid ndcg@10 0.0300, 1,200 events/s'
    """
    parts = []
    for name, value in figures.items():
        if name == "events_per_s":
            parts.append(f"{value:,.0f} events/s")
        elif name.endswith("_loss"):
            parts.append(f"{name.replace('_', ' ')} {value:.3f}")
        elif name.startswith("valid_"):
            parts.append(f"{name.replace('_', ' ')} {value:.4f}")
    return ", ".join(parts)
