"""One RecBole model on MovieLens-100K, for movielens.py; runs in RecBole's own environment.

The data is RecBole's own copy and is read as RecBole reads it; the settings are its defaults for
the model, with the loss, the split and the metric that its documentation gives for next-item
recommendation with leave one out. After every epoch the answer so far is written to a JSON file;
RecBole's own logs and checkpoints go into the working folder. Nothing of the project is imported.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_logger, init_seed

SETTINGS = {
    "load_col": {"inter": ["user_id", "item_id", "rating", "timestamp"]},
    "user_inter_num_interval": "[5,inf)",
    "item_inter_num_interval": "[5,inf)",
    "train_neg_sample_args": None,
    "loss_type": "CE",
    "eval_args": {
        "split": {"LS": "valid_and_test"},
        "order": "TO",
        "group_by": "user",
        "mode": "full",
    },
    "metrics": ["NDCG", "Hit"],
    "topk": [10],
    "valid_metric": "NDCG@10",
    "metric_decimal_place": 6,
    "stopping_step": 10,
    "use_gpu": False,
    "show_progress": False,
    "state": "ERROR",
}


class TimeIsUp(Exception):
    """Ends RecBole's training loop, which has no time limit of its own."""


class Watch:
    """Times a trainer's training and validation, writes every epoch down, and ends it."""

    def __init__(
        self, trainer: Any, measure: Any, answer: dict[str, Any], *, out: Path, limit_s: float
    ) -> None:
        self.measure, self.answer, self.out, self.limit_s = measure, answer, out, limit_s
        self.best = -1.0
        self.seconds = {"train_s": 0.0, "validate_s": 0.0}
        for method, name in (("_train_epoch", "train_s"), ("_valid_epoch", "validate_s")):
            setattr(trainer, method, partial(self.timed, getattr(trainer, method), name))
        self.start = time.perf_counter()

    def timed(self, method: Any, name: str, *args: Any, **kwargs: Any) -> Any:
        begin = time.perf_counter()
        result = method(*args, **kwargs)
        self.seconds[name] += time.perf_counter() - begin
        return result

    def epoch(self, number: int, score: float) -> None:
        """RecBole's callback at the end of an epoch: after validation and the checkpoint."""
        wall_s = time.perf_counter() - self.start
        if score > self.best:  # so that the answer is complete whenever it ends
            self.best = score
            self.answer["test"] = self.measure()
            self.start = time.perf_counter() - wall_s  # the test takes none of its time
        epoch = {"epoch": number + 1, **self.seconds, "wall_s": wall_s, "valid_ndcg@10": score}
        self.answer["history"].append(epoch)
        write(self.answer, self.out)
        print(f"epoch {number + 1}: {wall_s:.0f} s, validation NDCG@10 {score:.4f}", flush=True)
        if wall_s >= self.limit_s:
            raise TimeIsUp


def write(answer: dict[str, Any], out: Path) -> None:
    part = out.with_suffix(".part")
    part.write_text(json.dumps(answer, indent=2))
    part.replace(out)


def digest(data: Any) -> str:
    """Of who is asked for which item, so that the data itself stays where it is."""
    dataset = data._dataset
    columns = (dataset.uid_field, dataset.iid_field)
    users, items = (
        dataset.id2token(name, np.asarray(dataset.inter_feat[name])) for name in columns
    )
    pairs = sorted(f"{user} {item}" for user, item in zip(users, items, strict=True))
    return hashlib.sha256("\n".join(pairs).encode()).hexdigest()


def seen_by(dataset: Any) -> torch.Tensor:
    """(users, items) bool: who has had which item at any time; the padding counts as had."""
    seen = torch.zeros(dataset.user_num, dataset.item_num, dtype=torch.bool)
    columns = (dataset.uid_field, dataset.iid_field)
    seen[tuple(torch.tensor(dataset.inter_feat[name].to_numpy()) for name in columns)] = True
    seen[:, 0] = True
    return seen


def measure(trainer: Any, data: Any, seen: torch.Tensor) -> dict[str, float]:
    """RecBole's own figures, and NDCG@10 with the user's other items left out of the ranking."""
    figures = trainer.evaluate(data, load_best_model=False)
    rows = data._dataset.inter_feat
    with torch.no_grad():
        scores = trainer.model.full_sort_predict(rows)
    wanted = scores.gather(1, rows[data._dataset.iid_field][:, None])
    place = ((scores > wanted) & ~seen[rows[data._dataset.uid_field]]).sum(dim=1)
    gains = torch.where(place < 10, 1 / torch.log2(place + 2.0), 0.0)
    return {
        "ndcg@10": float(figures["ndcg@10"]),
        "hr@10": float(figures["hit@10"]),
        "masked_ndcg@10": float(gains.mean()),
    }


def run(name: str, out: Path, limit_s: float) -> None:
    begin = time.perf_counter()
    config = Config(model=name, dataset="ml-100k", config_dict=SETTINGS)
    init_seed(config["seed"], config["reproducibility"])
    init_logger(config)
    dataset = create_dataset(config)
    seen = seen_by(dataset)
    train_data, valid_data, test_data = data_preparation(config, dataset)
    init_seed(config["seed"], config["reproducibility"])
    model = get_model(name)(config, train_data._dataset).to(config["device"])
    trainer = get_trainer(config["MODEL_TYPE"], name)(config, model)
    answer: dict[str, Any] = {
        "model": name,
        "limit_s": limit_s,
        "users": dataset.user_num - 1,
        "items": dataset.item_num - 1,
        "valid_digest": digest(valid_data),
        "test_digest": digest(test_data),
        "threads": torch.get_num_threads(),
        "prepare_s": time.perf_counter() - begin,
        "ended": None,
        "history": [],
    }
    test = partial(measure, trainer, test_data, seen)
    watch = Watch(trainer, test, answer, out=out, limit_s=limit_s)
    try:
        trainer.fit(train_data, valid_data, verbose=False, callback_fn=watch.epoch)
        answer["ended"] = "early stopping"
    except TimeIsUp:
        answer["ended"] = "time limit"
    write(answer, out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    sys.argv = sys.argv[:1]  # which RecBole reads too
    torch.set_num_threads(1)
    run(args.model, args.out, args.seconds)


if __name__ == "__main__":
    main()
