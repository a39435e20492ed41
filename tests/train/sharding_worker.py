"""One of the processes of test_sharding.py: `python sharding_worker.py TASK RANK WORLD FOLDER`."""

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

os.environ["FBGEMM_TBE_BOUNDS_CHECK_MODE"] = "0"  # fatal: a row that is not there is no row 0

import torch
import torch.distributed as dist

from recsys.config.run import RunConfig
from recsys.features.inputs import Batch
from recsys.model.recommender import Losses
from recsys.train.checkpoint import Progress, restore, save
from recsys.train.loss import LossWeights
from recsys.train.sharding import PipelinedSteps, build_sharded
from recsys.train.steps import Step
from recsys.train.trainable import Trainable, build_plain
from tests.steps import NUM_VIDEOS, SIZES, make_batch, make_config, make_videos

STEPS = 3
EMPTY = (2, 1)
"""(step, rank) that has nothing to learn from."""


LOSS_WEIGHTS = LossWeights.of(make_config(), torch.device("cpu"))


def batch_of(step: int, rank: int) -> Batch:
    """The workers' batches are of 4 and 8 users, and what their losses are divided by is shared."""
    batch = make_batch(10 * step + rank, empty=(step, rank) == EMPTY, num_users=4 * (1 + rank))
    dist.all_reduce(batch.num_learnt)
    batch.num_learnt /= dist.get_world_size()
    return batch


def step(trainable: Trainable, number: int, rank: int) -> float:
    trainable.optimizer.zero_grad()
    batch = batch_of(number, rank)
    loss = LOSS_WEIGHTS.combine(trainable.module(batch), batch)
    loss.backward()
    trainable.optimizer.step()
    return loss.item()


def heard() -> tuple[int, list[str], list[str]]:
    """The root logger's level, all warnings' filters, and what comes through of some messages."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    logging.getLogger().warning("of the user's own")
    logging.getLogger("own.module").warning("of a module of the user's")
    for path, text in (("", "of no file"), ("/site-packages/fbgemm_gpu/a.py", "of FBGEMM")):
        record = logging.LogRecord("root", logging.WARNING, path, 1, text, (), None)
        logging.getLogger().handle(record)
    logging.getLogger().removeHandler(handler)
    return logging.getLogger().level, [str(entry) for entry in warnings.filters], lines


def vectors(trainable: Trainable) -> torch.Tensor:
    """The whole catalogue's, through the sharded tables."""
    trainable.module.eval()
    with torch.no_grad():
        encoded = trainable.model.encode_videos(make_videos().batch(torch.arange(51).numpy()))
    trainable.module.train()
    return encoded


def shard_by_rows() -> None:
    """Makes the planner cut the video table into rows; the others lie whole on some rank."""
    import torchrec.distributed.planner as planner
    from torchrec.distributed.planner.types import ParameterConstraints

    constraints = {
        "video": ParameterConstraints(sharding_types=["row_wise"]),
        "creator": ParameterConstraints(sharding_types=["table_wise"]),
        "category": ParameterConstraints(sharding_types=["table_wise"]),
    }
    planner.EmbeddingShardingPlanner = partial(  # type: ignore[misc]
        planner.EmbeddingShardingPlanner, constraints=constraints
    )


def all_steps(steps: PipelinedSteps, batches: list[Batch]) -> list[Step]:
    """The steps of a round."""
    left = iter(batches)
    taken: Iterator[Step] = iter(lambda: steps.next_step(left), None)  # type: ignore[arg-type]
    return list(taken)


def overlapped(trainable: Trainable, rank: int) -> list[float]:
    """The same steps through TorchRec's pipeline, in two rounds with a validation between."""
    losses: list[float] = []

    def step_loss(parts: Losses, batch: Batch) -> torch.Tensor:
        loss = LOSS_WEIGHTS.combine(parts, batch)
        losses.append(loss.item())
        return loss

    steps = PipelinedSteps(trainable, step_loss, torch.device("cpu"), clip_norm=float("inf"))
    batches = [batch_of(number, rank) for number in range(STEPS)]
    first = all_steps(steps, batches[:2])
    assert len(steps.pipeline._pipelined_modules) == 1, "the tables' exchange is overlapped"
    vectors(trainable)
    second = all_steps(steps, batches[2:])
    assert (len(first), len(second)) == (2, 1)
    return losses


def train(rank: int, folder: Path) -> None:
    """Checkpoint, three steps, checkpoint."""
    shard_by_rows()
    before = heard()
    trainable = build_sharded(make_config(), SIZES, torch.device("cpu"))
    after = heard()
    save(str(folder / "start"), trainable, Progress())
    losses = [step(trainable, number, rank) for number in range(STEPS)]
    results = {"losses": losses, "vectors": vectors(trainable), "plan": trainable.plan}
    results["heard"] = [before, after]
    save(str(folder / "end"), trainable, Progress(steps=STEPS))
    restore(str(folder / "start"), trainable)
    results["overlapped"] = overlapped(trainable, rank)
    results["overlapped_vectors"] = vectors(trainable)
    torch.save(results, folder / f"train-{rank}.pt")


def resume(rank: int, folder: Path) -> None:
    """In another number of workers: one more step, and a row that is not there."""
    trainable = build_sharded(make_config(), SIZES, torch.device("cpu"))
    progress = restore(str(folder / "end"), trainable)
    results = {"steps": progress.steps, "vectors": vectors(trainable)}
    results["loss"] = step(trainable, STEPS, rank)
    save(str(folder / "resumed"), trainable, progress)
    results["moved"] = moved_after(folder, make_config(), rank)
    half = make_config(train={"table_lr": make_config().train.table_lr / 2})
    results["moved_half"] = moved_after(folder, half, rank)
    batch = make_batch(0)
    batch.videos.id_rows[0] = NUM_VIDEOS + 1
    try:
        trainable.module(batch)
    except RuntimeError as error:
        results["out_of_bounds"] = str(error)
    torch.save(results, folder / f"resume-{rank}.pt")


def moved_after(folder: Path, config: RunConfig, rank: int) -> torch.Tensor:
    """How far a step moves the video table of a checkpoint that goes on with this config."""
    trainable = build_sharded(config, SIZES, torch.device("cpu"))
    restore(str(folder / "end"), trainable)
    before = video_table(trainable)
    step(trainable, STEPS, rank)
    return video_table(trainable) - before


def video_table(trainable: Trainable) -> torch.Tensor:
    """The rows that lie on this rank."""
    (table,) = (
        v for n, v in trainable.module.state_dict().items() if ".video." in n and "tables" in n
    )
    return torch.cat([shard.tensor for shard in table.local_shards()]).clone()


def spread(rank: int, folder: Path) -> None:
    """In three workers what one worker left, and saved again as it came."""
    shard_by_rows()
    trainable = build_sharded(make_config(), SIZES, torch.device("cpu"))
    progress = restore(str(folder / "resumed"), trainable)
    save(str(folder / "spread"), trainable, progress)
    torch.save({"vectors": vectors(trainable)}, folder / f"spread-{rank}.pt")


def plain(rank: int, folder: Path) -> None:
    """Two workers with a copy of the tables on each: what `tables: plain` does."""
    torch.manual_seed(5)
    trainable = build_plain(make_config(), SIZES, torch.device("cpu"))
    save(str(folder / "plain-start"), trainable, Progress())
    losses = [step(trainable, number, rank) for number in range(STEPS)]
    save(str(folder / "plain-end"), trainable, Progress(steps=STEPS))
    torch.save({"losses": losses, "vectors": vectors(trainable)}, folder / f"plain-{rank}.pt")


if __name__ == "__main__":
    task, rank, world, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/{task}-store", rank=rank, world_size=world
    )
    {"train": train, "resume": resume, "spread": spread, "plain": plain}[task](rank, folder)
    dist.barrier()
    dist.destroy_process_group()
