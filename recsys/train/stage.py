"""The train stage: a fit that chooses the number of epochs, and a refit on all that is known."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from recsys import cluster
from recsys.config.run import RunConfig
from recsys.data.run_folder import RunFolder
from recsys.data.storage import copy_folder, remove
from recsys.errors import InputError, find_input_error
from recsys.model.frames import make_frame_encoder
from recsys.prepare.prepared import Prepared
from recsys.progress import progress
from recsys.schema import TEST, VALID
from recsys.stopping import own_signals
from recsys.train.checkpoint import read_trending
from recsys.train.curves import AddEpoch, curves
from recsys.train.figures import ProgressActor, Told
from recsys.train.trainer import make_trainer, use_gpu
from recsys.train.warm_start import warm_start

if TYPE_CHECKING:
    from ray.actor import ActorHandle
    from ray.train import Checkpoint, Result

logger = logging.getLogger(__name__)

POLL_S = 0.5


def train(config: RunConfig, out: str, fingerprint: str) -> dict[str, object]:
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
    cluster.tell_of_gpus("train", config.train.workers, float(gpu))
    if config.train.device == "auto" and num_gpus >= config.train.workers and not gpu:
        logger.warning(
            "train.device=auto: on the nodes with a GPU PyTorch sees none, as its CPU build, so "
            "that all train on CPUs; pip install 'recsys[gpu]' there to use them"
        )
    elif config.train.device == "auto" and num_gpus and not gpu:
        logger.warning(
            "train.device=auto: %d GPUs for %d workers, so that all train on CPUs; "
            "set train.workers to at most %d to use the GPUs",
            num_gpus,
            config.train.workers,
            num_gpus,
        )
    require_inputs(config)
    if config.train.start_from is not None:
        warm_start(config, RunFolder(config.run).start)
    fit = _run(config, f"fit-{fingerprint}", "train", learn_before=VALID)
    chosen, best = int(fit.metrics["best_epoch"]), fit.get_best_checkpoint("score", "max")
    if best is not None and config.train.refit:
        with best.as_directory() as folder:
            trending = read_trending(folder)
        name = f"refit-{fingerprint}"
        best = _run(
            config, name, "refit", learn_before=TEST, epochs=chosen, trending=trending
        ).checkpoint
    if best is None:
        raise RuntimeError(f"{out}: training ended without a checkpoint")
    keep(best, RunFolder(config.run).model)
    return {"epochs": chosen, "refit": config.train.refit, "history": _history(fit)}


def _run(
    config: RunConfig,
    name: str,
    title: str,
    *,
    learn_before: int,
    epochs: int | None = None,
    trending: float | None = None,
) -> Result:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # Beside the driver that asks it: it must not go with a node that only trains.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    actor = ray.remote(num_cpus=0, scheduling_strategy=here)(ProgressActor).remote()
    epochs = config.train.epochs if epochs is None else epochs
    trainer = make_trainer(
        config,
        name=name,
        learn_before=learn_before,
        epochs=epochs,
        trending=trending,
        progress_actor=actor,
    )
    with curves(config, RunFolder(config.run).tensorboard(name), name) as add_epoch:
        lines = EpochLines(title, epochs, add_epoch)
        with _shown(actor, title, epochs, lines):
            try:
                with own_signals():
                    result = trainer.fit()
            except SystemExit:  # so Ray Train ends on Ctrl-C
                raise KeyboardInterrupt from None
            except Exception as error:
                raise training_error(error) from error
        if result.error:
            raise training_error(result.error) from result.error
        lines.tell(_history(result))
    return result


class EpochLines:
    """Tells of each epoch once, in the log and in the curves.

    A worker tells the actor, and what is lost on the way, as its process ends or its node dies,
    stands in the last checkpoint: both go through here.

    Args:
        title: Of the training.
        most: Epochs that it can have.
        add_epoch: Draws an epoch's figures.
    """

    def __init__(self, title: str, most: int, add_epoch: AddEpoch) -> None:
        self._title, self._most, self._add = title, most, add_epoch
        self._told: set[int] = set()

    def begin_after(self, epochs: int) -> None:
        """Of so many first epochs a training has told that was stopped."""
        self._told.update(range(1, epochs + 1))

    def tell(self, history: Sequence[Mapping[str, float]]) -> None:
        """Tells of those that were not told before; each holds its number as `epoch`."""
        for figures in history:
            number = int(figures["epoch"])
            if number in self._told:
                continue
            self._told.add(number)
            logger.info(
                "%s: epoch %d of at most %d: %s", self._title, number, self._most, describe(figures)
            )
            self._add(figures)


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


def _history(result: Result) -> list[dict[str, float]]:
    import json

    with result.checkpoint.as_directory() as folder, open(f"{folder}/progress.json") as file:
        history: list[dict[str, float]] = json.load(file)["history"]
    return history


def keep(checkpoint: Checkpoint, target: str) -> None:
    """Copies a checkpoint to where the later stages look for it."""
    remove(target)
    with checkpoint.as_directory() as folder:
        copy_folder(folder, target)


@contextmanager
def _shown(actor: ActorHandle, title: str, epochs: int, lines: EpochLines) -> Iterator[None]:
    """A progress bar, lines and curves that follow the actor while the block runs."""
    import ray

    done = threading.Event()

    def follow() -> None:
        shown, placed, over = 0.0, False, False
        with progress(title, total=epochs) as advance:
            while not over:
                over = done.wait(POLL_S)
                try:
                    told: Told = ray.get(actor.read.remote())
                except ray.exceptions.RayError:  # not now; the last checkpoint has what is missed
                    continue
                if told.plan and not placed:
                    logger.info("%s: tables: %s", title, told.plan)
                    lines.begin_after(told.begun_after)
                    placed = True
                advance(told.epochs_done - shown, note=describe(told.figures))
                shown = told.epochs_done
                lines.tell(told.history)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def describe(figures: Mapping[str, float]) -> str:
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
