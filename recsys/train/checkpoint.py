"""Checkpoints: model, optimizer and place in the data, and how to read one without a cluster."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from recsys.config.run import ModelConfig
from recsys.errors import InputError
from recsys.features.inputs import Sizes
from recsys.model.embeddings import PlainTables
from recsys.model.recommender import Recommender, table_specs
from recsys.train.figures import SumsState
from recsys.train.trainable import StateDict, Trainable

PROGRESS_FILE = "progress.json"
ANEW = "remove the folder train and run recsys train again"
SHARDED_TABLES, PLAIN_TABLES = "tables.collection.embeddings.", "tables.embeddings."


@dataclass
class Progress:
    """Where training stands; `partitions` of `epoch`'s order are done."""

    epoch: int = 0
    partitions: int = 0
    steps: int = 0
    seen_timelines: list[int] = field(default_factory=list)
    """Timelines of each partition that the epoch has learnt from so far."""
    sums: SumsState = field(default_factory=SumsState)
    """The state of the epoch's `StepSums`; empty at its beginning."""
    best_score: float = float("-inf")
    best_epoch: int = 0
    """Epochs done when the validation figure was best."""
    history: list[dict[str, float]] = field(default_factory=list)
    """Figures of each finished epoch."""


def save(folder: str, trainable: Trainable, progress: Progress) -> None:
    """Writes this worker's part of a checkpoint; every worker calls it."""
    dcp.save(trainable.state_dict(), checkpoint_id=folder)
    Path(folder, PROGRESS_FILE).write_text(json.dumps(asdict(progress)))


def restore(folder: str, trainable: Trainable) -> Progress:
    """Takes over a checkpoint, whatever the number of workers that wrote it.

    Raises:
        InputError: It is the checkpoint of another model, or of an earlier version.
    """
    load(folder, trainable)
    with _told_plainly(folder, ANEW):
        return Progress(**json.loads(Path(folder, PROGRESS_FILE).read_text()))


def load(folder: str, trainable: Trainable) -> None:
    """Takes over a checkpoint's model and optimizers; training then begins at the first epoch.

    Raises:
        InputError: It is the checkpoint of a model of other sizes.
    """
    state = trainable.state_dict()
    with _told_plainly(folder, "set the model section and train.tables to what they were there"):
        dcp.load(state, checkpoint_id=folder)
    trainable.load_state_dict(state)


def load_plain(folder: str, config: ModelConfig, sizes: Sizes) -> Recommender:
    """The model of a checkpoint in plain torch: no torchrec, no fbgemm, no process group.

    Raises:
        FileNotFoundError: There is no checkpoint in the folder.
        InputError: It is the checkpoint of another model, or of an earlier version's.
    """
    if not os.path.exists(os.path.join(folder, ".metadata")):
        raise FileNotFoundError(f"{folder}: there is no checkpoint")
    model = Recommender(config, sizes, tables=PlainTables(table_specs(config, sizes)))
    wanted = model.state_dict()
    stored = _stored_names(folder)
    state: StateDict = {
        "model": {stored_name(name, stored): tensor for name, tensor in wanted.items()}
    }
    with _told_plainly(folder, ANEW):
        dcp.load(state, checkpoint_id=folder, no_dist=True)
    model.load_state_dict({name: state["model"][stored_name(name, stored)] for name in wanted})
    return model.eval()


def read_trending(folder: str) -> float:
    """Reads the weight of what is trending off a checkpoint in a local folder."""
    weight = torch.zeros(())
    dcp.load({"model": {"trending": weight}}, checkpoint_id=folder, no_dist=True)
    return float(weight)


@contextmanager
def _told_plainly(folder: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except (CheckpointException, TypeError, ValueError) as error:
        lines = str(error).strip().splitlines() or [repr(error)]
        raise InputError(
            f"{folder}: not the checkpoint of such a model ({lines[-1][:300]}); {remedy}"
        ) from error


def _stored_names(folder: str) -> set[str]:
    metadata = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
    return {name for name, kind in metadata.items() if isinstance(kind, TensorStorageMetadata)}


def stored_name(name: str, stored: set[str]) -> str:
    """A plain model's parameter as the checkpoint names it: sharded tables lie one deeper.

    >>> stored_name("tables.embeddings.video.weight", set())
    'tables.collection.embeddings.video.weight'
    """
    if f"model.{name}" in stored:
        return name
    return name.replace(PLAIN_TABLES, SHARDED_TABLES, 1)


def is_finite(value: torch.Tensor) -> bool:
    """Whether all values of a tensor are numbers, and none NaN or infinite."""
    return bool(torch.isfinite(value).all())
