"""Going on from another run's model: its rows move to where this run's vocabularies have them.

Ids are matched, not rows: what was learnt of a video, creator, category or context stays with it,
and what is new starts as untrained. The optimizers' states come along.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from recsys.config.run import RunConfig
from recsys.data.ragged import IntArray
from recsys.data.run_folder import RunFolder
from recsys.data.storage import copy_folder, exists, local_folder, remove
from recsys.data.vocab import Vocab
from recsys.errors import InputError
from recsys.model.embeddings import init_table
from recsys.model.user import init_user_values
from recsys.prepare.prepared import Prepared

TABLE = re.compile(r"\btables\.(?:collection\.)?embeddings\.(\w+)\.")
CONTEXT = re.compile(r"\bcontext\.columns\.(\d+)\.")
USER = re.compile(r"\bhistory\.(user)\.")


def warm_start(config: RunConfig, out: str) -> None:
    """Writes the model of `train.start_from` with this run's rows, as a checkpoint into `out`.

    Args:
        config: Of this run, whose prepared data are there.
        out: A folder; a path or URI.

    Raises:
        InputError: The other run has no trained model, or no vocabularies.
    """
    start = config.train.start_from
    assert start is not None
    other = RunFolder(start)
    for path in (other.model, other.vocabs):
        if not exists(path):
            raise InputError(f"train.start_from={start}: {path} is missing; give a trained run")
    with local_folder(other.model) as folder:
        state = move_rows(read_all(folder), places(Prepared(config), other))
    with tempfile.TemporaryDirectory() as folder:
        dcp.save(state, checkpoint_id=folder, no_dist=True)
        remove(out)
        copy_folder(folder, out)


def places(prepared: Prepared, other: RunFolder) -> dict[str, IntArray]:
    """For each of our rows its row in the other run, -1 for what is new there; by vocabulary."""
    contexts = [f"context_{name}" for name in prepared.config.data.columns.context]
    rows_there = {}
    users = ("user",) if prepared.config.data.user_columns.features else ()
    for name in ("video", "creator", "category", *users, *contexts):
        ours, path = prepared.vocab(name), other.vocab(name)
        rows = Vocab.read(path).rows(ours.ids) if exists(path) else np.zeros(len(ours.ids), int)
        rows_there[name] = np.concatenate([[0], np.where(rows > 0, rows, -1)]).astype(np.int64)
    numbered = {str(number): rows_there[name] for number, name in enumerate(contexts)}
    return {**rows_there, **numbered}


def move_rows(state: Mapping[str, object], rows: Mapping[str, IntArray]) -> dict[str, object]:
    """A checkpoint's entries with their rows moved.

    Args:
        state: Entries by name, as the checkpoint names them.
        rows: Of `places`; a context's under its number.

    Returns:
        The entries of a model of this run's size.
    """
    return {name: _entry(name, value, rows) for name, value in state.items()}


def _entry(name: str, value: object, rows: Mapping[str, IntArray]) -> object:
    match = TABLE.search(name) or CONTEXT.search(name) or USER.search(name)
    if match is None or not isinstance(value, Tensor) or not value.dim():
        return value
    old = torch.from_numpy(rows[match.group(1)])
    new = torch.zeros(len(old), *value.shape[1:], dtype=value.dtype)
    if name.startswith("model."):
        _init(name)(new)
    new[old >= 0] = value[old[old >= 0]]
    return new


def _init(name: str) -> Callable[[Tensor], object]:
    """What fills a table's rows before training."""
    if USER.search(name):
        return init_user_values
    return init_table if TABLE.search(name) else nn.init.normal_


def read_all(folder: str) -> dict[str, object]:
    """All entries of a checkpoint, whole."""
    metadata = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
    state: dict[str, object] = {
        name: torch.empty(kind.size, dtype=kind.properties.dtype)
        if isinstance(kind, TensorStorageMetadata)
        else None
        for name, kind in metadata.items()
    }
    dcp.load(state, checkpoint_id=folder, no_dist=True)
    return state
