"""Ray Train's trainer around the loop."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from recsys import cluster
from recsys.config.run import RunConfig, TrainConfig
from recsys.data.run_folder import RunFolder
from recsys.data.storage import as_url, join, local_path
from recsys.errors import InputError, unwrapped
from recsys.schema import VALID
from recsys.train.loop import Job, train_worker
from recsys.train.schedule import Stretch

if TYPE_CHECKING:
    from ray.actor import ActorHandle
    from ray.train import Checkpoint, CheckpointConfig, Result, UserCallback
    from ray.train.torch import TorchTrainer


def make_trainer(
    config: RunConfig,
    *,
    name: str = "fit",
    out: str | None = None,
    learn_before: int = VALID,
    epochs: int | None = None,
    trending: float | None = None,
    progress_actor: ActorHandle | None = None,
    callbacks: list[UserCallback] | None = None,
    stretch: Stretch | None = None,
) -> TorchTrainer:
    """A `ray.train.torch.TorchTrainer` of a run whose data stages are done.

    `fit()` goes on from the last checkpoint of the same run folder and name, if there is one.

    Args:
        config: The run.
        name: Folder of the checkpoints inside `out`.
        out: A path or URI; RUN/train without it.
        learn_before: VALID, or TEST to learn from the validation events too.
        epochs: Instead of `train.epochs`.
        trending: Weight of what is trending, which a refit has no days to find by.
        progress_actor: A `ProgressActor` that takes the progress.
        callbacks: Ray Train callbacks, as Ray Tune needs one.
        stretch: The part of the training that is asked for; all of it without.

    Raises:
        InputError: The cluster has too few CPUs or GPUs for `train.workers`.
    """
    from ray import train
    from ray.train.torch import TorchConfig, TorchTrainer

    gpu = use_gpu(config)
    cluster.require(config.train.workers, gpu=gpu)
    epochs = config.train.epochs if epochs is None else epochs
    job = Job(config, learn_before, epochs, gpu, trending, progress_actor, stretch or Stretch())
    return TorchTrainer(
        train_worker,
        train_loop_config=job.to_dict(),
        torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
        scaling_config=train.ScalingConfig(num_workers=config.train.workers, use_gpu=gpu),
        run_config=train.RunConfig(
            name=name,
            storage_path=storage_path(out or RunFolder(config.run).train),
            failure_config=train.FailureConfig(max_failures=config.train.max_failures),
            checkpoint_config=_newest_and_best(),
            callbacks=[*(callbacks or []), make_stop_at_final()],
        ),
    )


def _newest_and_best() -> CheckpointConfig:
    """Which checkpoints are kept."""
    from ray.train import CheckpointConfig

    return CheckpointConfig(
        num_to_keep=2, checkpoint_score_attribute="score", checkpoint_score_order="max"
    )


def use_gpu(config: RunConfig) -> bool:
    """Whether each worker is given a GPU; backend and device of all workers follow from it.

    Raises:
        InputError: GPUs are asked for, and PyTorch does not see them.
    """
    train = config.train
    if not wants_gpu(train, cluster.num_gpus()):
        return False
    if not cluster.gpus_compute() and train.device == "cuda":
        raise InputError(
            "train.device=cuda: on the nodes with a GPU PyTorch sees none, as its CPU build; "
            "pip install 'recsys[gpu]' there, or set train.device=cpu"
        )
    return cluster.gpus_compute()


def wants_gpu(config: TrainConfig, num_gpus: int) -> bool:
    """Whether the workers of a cluster with so many GPUs are to train on them.

    >>> wants_gpu(TrainConfig(workers=2), 2), wants_gpu(TrainConfig(workers=2), 1)
    (True, False)
    """
    enough = num_gpus >= config.workers
    return config.device == "cuda" or (config.device == "auto" and enough)


FINAL = (InputError, FloatingPointError)
"""Errors of a worker that every other try would end with too."""


def make_stop_at_final() -> UserCallback:
    """A Ray Train callback that ends training at an error that no further try can mend.

    Ray Train starts the workers again after any error, `train.max_failures` times. An error that a
    callback raises in its controller ends training at once.
    """
    from ray.train import UserCallback

    class StopAtFinal(UserCallback):  # type: ignore[misc]
        def after_exception(
            self, run_context: object, worker_exceptions: dict[int, Exception]
        ) -> None:
            for error in worker_exceptions.values():
                for cause in unwrapped(error):
                    if isinstance(cause, FINAL):
                        raise cause

    return StopAtFinal()


def storage_path(path: str) -> str:
    """A path as Ray wants it: absolute, or a URI."""
    return local_path(path) or as_url(path)


def read_result(fit: str) -> Result:
    """What Ray Train knows of a training that ended, by the folder of its checkpoints."""
    from ray.train import Result

    return Result.from_path(storage_path(fit))


def checkpoint_folder(fit: str, checkpoint: Checkpoint) -> str:
    """The folder of a checkpoint, as a path or URI.

    `Checkpoint.path` alone is none: Ray keeps the filesystem, and so the URI's scheme, apart.

    Args:
        fit: Folder of the training's checkpoints, a path or URI.
        checkpoint: One of them.
    """
    return join(fit, posixpath.basename(checkpoint.path))
