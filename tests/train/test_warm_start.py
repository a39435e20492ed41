"""Going on with more rows: what was learnt stays with its id, and training goes on from it."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recsys.data.run_folder import RunFolder
from recsys.data.vocab import Vocab
from recsys.errors import InputError
from recsys.prepare.prepared import Prepared
from recsys.train.checkpoint import Progress, load, save
from recsys.train.trainable import Trainable, build_plain
from recsys.train.warm_start import move_rows, places, read_all, warm_start
from tests.steps import NUM_VIDEOS, SIZES, loss_of, make_batch, make_config, make_videos

MORE = dataclasses.replace(
    SIZES, num_videos=SIZES.num_videos + 9, context_sizes=(5,), num_user_values=6
)
ROWS = {
    "video": np.concatenate([[0], np.full(9, -1), np.arange(1, NUM_VIDEOS + 1)]),
    "creator": np.arange(SIZES.num_creators),
    "category": np.arange(SIZES.num_categories),
    "user": np.array([0, 1, 2, -1, 3, 4]),
    "0": np.array([0, 2, -1, 1, -1]),
}
"""Nine new videos stand before the old ones; two new contexts, the old ones the other way round."""


def trained() -> Trainable:
    torch.manual_seed(1)
    trainable = build_plain(make_config(), SIZES, torch.device("cpu"))
    for seed in (0, 1):
        trainable.optimizer.zero_grad()
        loss_of(trainable.module(make_batch(seed))).backward()
        trainable.optimizer.step()
    return trainable


@torch.no_grad()
def outputs(trainable: Trainable, *, moved: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Video vectors, and the losses of a step, of the same things under their own rows."""
    model = trainable.model.eval()
    videos = make_videos().batch(np.arange(NUM_VIDEOS + 1))
    batch = make_batch(5)
    if moved:
        new_row, new_tab = torch.arange(NUM_VIDEOS + 1) + 9, torch.tensor([0, 3, 1])
        new_row[0] = 0
        videos.id_rows = new_row[videos.id_rows]
        batch.videos.id_rows = new_row[batch.videos.id_rows]
        context = batch.events.context
        context.context_rows = new_tab[context.context_rows]
        batch.events.user_rows = torch.tensor([0, 1, 2, 4, 5])[batch.events.user_rows]
    return model.encode_videos(videos), torch.stack([v.sum() for v in model(batch)])


def test_what_was_learnt_stays_with_its_id(tmp_path: Path) -> None:
    """The old predictions, and the optimizers' states; the new rows are as untrained."""
    old = trained()
    save(str(tmp_path / "old"), old, Progress(epoch=4))
    state = move_rows(read_all(str(tmp_path / "old")), ROWS)
    torch.distributed.checkpoint.save(state, checkpoint_id=str(tmp_path / "new"), no_dist=True)
    torch.manual_seed(2)
    new = build_plain(make_config(), MORE, torch.device("cpu"))
    load(str(tmp_path / "new"), new)
    for before, after in zip(outputs(old, moved=False), outputs(new, moved=True), strict=True):
        assert torch.allclose(before, after, atol=1e-6)
    sums = [
        t.optimizer.state_dict()["state.tables.embeddings.video.weight.row_sum"] for t in (old, new)
    ]
    assert torch.equal(sums[1][10:], sums[0][1:]) and not sums[1][1:10].any()
    fresh = new.model.state_dict()["tables.embeddings.video.weight"][1:10]
    assert 0.03 < fresh.std() < 0.07
    values = new.model.state_dict()["history.user.weight"]
    assert not values[0].any()
    assert 0 < values[3].abs().max() < 0.25, "as small as an untrained one"


def test_rows_are_found_by_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = Prepared(make_config())
    ours = {name: Vocab(["b", "new", "a"]) for name in ("video", "creator", "category")}
    monkeypatch.setattr(Prepared, "vocab", lambda _, name: ours.get(name, Vocab(["x"])))
    other = RunFolder(str(tmp_path))
    Vocab(["a", "b", "gone"]).write(other.vocab("video"))
    rows = places(prepared, other)
    assert rows["video"].tolist() == [0, 2, -1, 1]
    assert rows["creator"].tolist() == [0, -1, -1, -1]  # it had none
    assert rows["0"].tolist() == [0, -1]


def test_a_run_without_a_model_is_said(tmp_path: Path) -> None:
    config: Any = make_config(train={"start_from": str(tmp_path)})
    with pytest.raises(InputError, match="train.start_from=.*model is missing; give a trained run"):
        warm_start(config, str(tmp_path / "out"))


def test_another_models_checkpoint_is_said(tmp_path: Path) -> None:
    save(str(tmp_path), trained(), Progress())
    with pytest.raises(InputError, match="not the checkpoint of such a model"):
        load(str(tmp_path), build_plain(make_config(), MORE, torch.device("cpu")))
