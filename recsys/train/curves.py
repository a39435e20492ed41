"""The curves of a training, epoch by epoch: TensorBoard event files, and MLflow if asked."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from recsys.config.run import RunConfig
from recsys.data.storage import copy_folder, local_path
from recsys.errors import InputError

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

AddEpoch = Callable[[Mapping[str, float]], None]
"""Takes the figures of a finished epoch, its number as `epoch` among them."""
EXPERIMENT = "recsys"
_NAME = "mlflow.runName"


@contextmanager
def curves(config: RunConfig, folder: str, name: str) -> Iterator[AddEpoch]:
    """Writes the figures that it is given into `folder`, a path or URI, and to MLflow.

    Training that goes on where it stopped adds to the same curves.

    Args:
        config: The run; `train.mlflow` says where MLflow is.
        folder: Of this training's event files.
        name: Of this training.

    Raises:
        InputError: MLflow is asked for and is not installed, or not at its place.
    """
    with ExitStack() as stack:
        writers = [stack.enter_context(_tensorboard(folder))]
        if config.train.mlflow is not None:
            writers.append(stack.enter_context(_mlflow(config, name)))

        def add(figures: Mapping[str, float]) -> None:
            step = int(figures["epoch"])
            for write in writers:
                write({key: float(v) for key, v in figures.items() if key != "epoch"}, step)

        yield add


Write = Callable[[Mapping[str, float], int], None]


@contextmanager
def _tensorboard(folder: str) -> Iterator[Write]:
    """Event files, flushed after each epoch; for a URI they are uploaded at the end."""
    from torch.utils.tensorboard import SummaryWriter

    with ExitStack() as stack:
        local = local_path(folder)
        if local is None:
            local = stack.enter_context(tempfile.TemporaryDirectory())
            stack.callback(copy_folder, local, folder)
        writer = stack.enter_context(SummaryWriter(local))  # type: ignore[no-untyped-call]

        def write(figures: Mapping[str, float], step: int) -> None:
            for key, value in figures.items():
                writer.add_scalar(key, value, step)
            writer.flush()

        yield write


@contextmanager
def _mlflow(config: RunConfig, name: str) -> Iterator[Write]:
    """An MLflow run of this name, the one that is there or a new one, with the whole config."""
    client, run_id = _mlflow_run(config, name)
    ended = "FAILED"

    def write(figures: Mapping[str, float], step: int) -> None:
        for key, value in figures.items():
            client.log_metric(run_id, key.replace("@", "_at_"), value, step=step)

    try:
        yield write
        ended = "FINISHED"
    finally:
        client.set_terminated(run_id, ended)


def _mlflow_run(config: RunConfig, name: str) -> tuple[MlflowClient, str]:
    try:
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise InputError(
            "train.mlflow is set and MLflow is not installed; install the extra 'mlflow'"
        ) from None
    try:
        client = MlflowClient(tracking_uri=config.train.mlflow)
        known = client.get_experiment_by_name(EXPERIMENT)
        experiment = known.experiment_id if known else client.create_experiment(EXPERIMENT)
    except MlflowException as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"train.mlflow={config.train.mlflow}: {reason}") from error
    tags = {"recsys.run": config.run, "recsys.training": name}
    # By the training alone, whose name is ours: a filter cannot hold every name of a folder.
    same = client.search_runs([experiment], filter_string=f"tags.`recsys.training` = '{name}'")
    there = [run for run in same if run.data.tags.get("recsys.run") == config.run]
    if there:
        client.set_terminated(there[0].info.run_id, "RUNNING")
        return client, there[0].info.run_id
    run = client.create_run(experiment, tags={**tags, _NAME: f"{config.run} {name}"})
    for key, value in _flat(config.model_dump(mode="json")):
        client.log_param(run.info.run_id, key, str(value)[:500])
    return client, run.info.run_id


def _flat(tree: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    """The leaves of a tree by dotted name.

    >>> list(_flat({"a": {"b": 1}, "c": [2]}))
    [('a.b', 1), ('c', [2])]
    """
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
