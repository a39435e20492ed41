"""What one trial does: it trains one config, in a process that the sweep keeps for the next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, cast

import torch
import torch.distributed as dist

from recsys import cluster
from recsys.config.run import RunConfig, parse_config
from recsys.data.run_folder import RunFolder
from recsys.data.storage import (
    copy_folder,
    exists,
    join,
    local_folder,
    read_json,
    remove,
    write_json,
)
from recsys.errors import find_input_error
from recsys.prepare.prepared import Prepared
from recsys.schema import VALID
from recsys.train.checkpoint import PROGRESS_FILE
from recsys.train.collectives import Collectives
from recsys.train.loop import Job, Worker
from recsys.train.schedule import Stretch
from recsys.train.stage import root_cause
from recsys.train.trainer import checkpoint_folder, make_trainer, read_result
from recsys.tune.population import go_on, last_epoch
from recsys.tune.space import with_settings
from recsys.tune.trials import EPOCH, ERROR, FIGURES, OBJECTIVE, Figures, Trial, objective

if TYPE_CHECKING:
    from ray.train import Checkpoint
    from ray.train.v2._internal.execution.context import TrainRunContext

NUMBER, SETTINGS, PARENT, STRETCH = "number", "settings", "parent", "stretch"
"""What Ray Tune hands a trial as its config."""
FIT = "fit"
"""Folder of the checkpoints of a trial with several workers."""
KEPT = "kept.json"
"""Names a trial's newest and best checkpoint; written when both are whole."""


def run_trial(
    asked: Mapping[str, object], *, config_tree: Mapping[str, object], gpu: bool, room: int
) -> None:
    """One trial, as Ray Tune calls it; it reports the figures of each epoch.

    An error of its own ends the trial and not the sweep. A process that dies is another matter: Ray
    Tune then tries the trial again, and it goes on from its newest checkpoint.

    Args:
        asked: The trial's number, its settings, the trial whose weights it goes on from (None
            where it begins with its own), and which of its member's stretches it is.
        config_tree: The run's config.
        gpu: Whether it trains on GPUs.
        room: How many trials run at a time on the whole cluster.
    """
    base = parse_config(config_tree, "sweep")
    with failure_told():
        reports = Reports(
            base,
            cast("int", asked[NUMBER]),
            parent=cast("int | None", asked[PARENT]),
            stretch_number=cast("int", asked[STRETCH]),
        )
        config = asked_config(base, asked)
        if config.train.workers > 1:
            _train_apart(config, reports)
        else:
            torch.set_num_threads(_num_threads(room, gpu=gpu))
            _train_here(config, reports, gpu=gpu)


def _num_threads(room: int, *, gpu: bool) -> int:
    """PyTorch's threads for a trial: its share of the cores of the node that it runs on."""
    fits = min(room, int(cluster.node_has("GPU" if gpu else "CPU")))
    return max(1, cluster.num_cores() // max(1, fits))


def asked_config(base: RunConfig, asked: Mapping[str, object]) -> RunConfig:
    """The config of a trial."""
    settings = asked[SETTINGS]
    assert isinstance(settings, Mapping)
    return with_settings(base, settings)


@contextmanager
def failure_told() -> Iterator[None]:
    """Reports an error of a trial's own in place of raising it."""
    from ray import tune

    try:
        yield
    except Exception as error:
        line = str(find_input_error(error) or root_cause(error))
        tune.report({EPOCH: 0, OBJECTIVE: float("-inf"), ERROR: line})


def _train_here(config: RunConfig, session: Reports, *, gpu: bool) -> None:
    """Trains as the one worker of `recsys train` would, in this very process."""
    _join_alone("nccl" if gpu else "gloo")
    device = torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")
    job = Job(config, VALID, config.train.epochs, gpu, stretch=session.stretch)
    Worker(job, Prepared(config), collectives=Collectives(device=device), session=session).run()


@cache
def _join_alone(backend: str) -> None:
    """Makes a process group of this process, as TorchRec wants one; it lasts for all trials."""
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)


def _train_apart(config: RunConfig, reports: Reports) -> None:
    """Trains with several workers, which Ray Train starts."""
    from ray.tune.integration.ray_train import TuneReportCallback

    class Passed(TuneReportCallback):  # type: ignore[misc]
        def after_report(
            self,
            run_context: TrainRunContext,
            metrics: list[dict[str, float]],
            checkpoint: Checkpoint | None,
        ) -> None:
            if is_epoch(metrics[0]):
                super().after_report(run_context, [reports.result(metrics[0])], checkpoint)

    earlier = _newest_of_fit(reports.out)
    if earlier is not None:
        reports.tell_history(earlier)
    cluster.connect()
    make_trainer(
        config, name=FIT, callbacks=[Passed()], out=reports.out, stretch=reports.stretch
    ).fit()


def _newest_of_fit(out: str) -> str | None:
    """The folder of the newest checkpoint that an earlier try of a trial left; None of the first.

    Args:
        out: Folder of the trial, which has several workers.
    """
    from ray.train.v2._internal.constants import CHECKPOINT_MANAGER_SNAPSHOT_FILENAME

    fit = join(out, FIT)
    begun = exists(join(fit, CHECKPOINT_MANAGER_SNAPSHOT_FILENAME))
    checkpoint = read_result(fit).checkpoint if begun else None
    return None if checkpoint is None else checkpoint_folder(fit, checkpoint)


def is_epoch(figures: Figures) -> bool:
    """Whether a report of the training loop is of a whole epoch, and not of a place inside one."""
    return "retrieval_loss" in figures


def best_checkpoint(config: RunConfig, number: int) -> str:
    """The folder of the checkpoint that a trial's training would keep."""
    out = RunFolder(config.run).trained_trial(number)
    if config.train.workers == 1:
        return join(out, str(read_json(join(out, KEPT))["best"]))
    fit = join(out, FIT)
    return checkpoint_folder(fit, read_result(fit).get_best_checkpoint("score", "max"))


def newest_checkpoint(config: RunConfig, number: int) -> str:
    """The folder of a trial's last checkpoint."""
    out = RunFolder(config.run).trained_trial(number)
    if config.train.workers == 1:
        return join(out, str(read_json(join(out, KEPT))["newest"]))
    newest = _newest_of_fit(out)
    assert newest is not None
    return newest


class Reports:
    """The session of a trial's training: keeps its newest and best checkpoint, tells Ray Tune."""

    def __init__(
        self,
        config: RunConfig,
        number: int,
        *,
        parent: int | None = None,
        stretch_number: int = 0,
    ) -> None:
        folder = RunFolder(config.run)
        self.config, self.out = config, folder.trained_trial(number)
        self.trial, start = Trial(number, {}), None
        if parent is not None:
            before = Trial(**read_json(folder.trial(parent)))
            self.trial, start = go_on(before, number, {}), newest_checkpoint(config, parent)
        # A trial trains all there is, but in a population.
        self.stretch = Stretch(start, last_epoch(config, stretch_number))

    def result(self, figures: Figures) -> dict[str, object]:
        """What Ray Tune is told of an epoch: its figures, and what the trial is worth by now."""
        self.trial = self.trial.with_epoch(figures)
        best = self.trial.best
        assert best is not None
        value = objective(best, self.config.tune)
        return {EPOCH: figures[EPOCH], OBJECTIVE: value, FIGURES: dict(figures)}

    def tell_history(self, checkpoint: str) -> None:
        """Tells Ray Tune of the trial's own epochs behind a checkpoint of an earlier try.

        That try may have died between the checkpoint and its report.

        Args:
            checkpoint: Its folder, a path or URI.
        """
        from ray import tune

        history = read_json(join(checkpoint, PROGRESS_FILE))["history"]
        for epoch in history[self.trial.num_inherited :]:
            tune.report(self.result(epoch))

    @contextmanager
    def newest(self) -> Iterator[str | None]:
        """The checkpoint that an earlier try left, whose epochs are told first."""
        kept = read_json(join(self.out, KEPT))
        if kept is None:
            yield None
            return
        checkpoint = join(self.out, kept["newest"])
        self.tell_history(checkpoint)
        with local_folder(checkpoint) as folder:
            yield folder

    def report(self, figures: dict[str, float], folder: str) -> None:
        """Keeps the checkpoint, and tells Ray Tune of a whole epoch."""
        from ray import tune

        best_before = self.trial.best
        result = self.result(figures) if is_epoch(figures) else None
        self._keep(folder, is_best=self.trial.best is not best_before)
        if result is not None:
            tune.report(result)

    def leaving_nodes(self) -> set[str]:
        """This trial's own, once it has announced its end: one more checkpoint is kept."""
        import ray

        return cluster.leaving_nodes() & {ray.get_runtime_context().get_node_id()}

    def _keep(self, folder: str, *, is_best: bool) -> None:
        kept = read_json(join(self.out, KEPT)) or {"count": 0, "best": None, "newest": None}
        name = f"checkpoint-{kept['count']:04d}"
        remove(join(self.out, name))  # half of it, of a try that died here
        copy_folder(folder, join(self.out, name))
        now = {
            "count": kept["count"] + 1,
            "newest": name,
            "best": name if is_best else kept["best"],
        }
        write_json(now, join(self.out, KEPT))
        for old in {kept["newest"], kept["best"]} - {now["newest"], now["best"], None}:
            remove(join(self.out, old))
