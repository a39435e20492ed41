"""Figures while training runs: running losses, and the actor that the driver reads them from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, TypedDict

import torch
from torch import Tensor

from recsys.model.recommender import Losses


class SumsState(TypedDict, total=False):
    """The state of `StepSums` in a checkpoint; empty before the first step of an epoch."""

    totals: list[float]
    """Sums over the steps: retrieval loss, its targets, events, and the loss of each task."""
    seconds: float
    waited_s: float
    """Of them those without a batch to learn from."""


class StepSums:
    """Mean losses and speed of an epoch: of all workers, and across restarts.

    Args:
        tasks: The ranking tasks, in their order.
        state: What `state` gave, to go on from.
    """

    def __init__(self, tasks: tuple[str, ...], state: SumsState | None = None) -> None:
        self.tasks = tasks
        nothing: SumsState = {"totals": [0.0] * (3 + len(tasks)), "seconds": 0.0, "waited_s": 0.0}
        known: SumsState = {**nothing, **(state or {})}  # a checkpoint may be older than `waited_s`
        self._kept = torch.tensor(known["totals"], dtype=torch.float64)
        self._own = torch.zeros_like(self._kept)  # on the device of the losses, once there are any
        self._began = time.perf_counter() - known["seconds"]
        self._waited_s = known["waited_s"]

    def add(self, losses: Losses) -> None:
        """Adds the summed losses and the counts of one of this worker's steps.

        Without waiting for the device that computes them: who asks for the figures waits.
        """
        totals = [losses.retrieval, losses.num_retrieval, losses.num_tasks, *losses.tasks]
        step = torch.stack([total.detach().double() for total in totals])
        self._own = self._own.to(step.device) + step

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time inside as one in which this worker waited for data."""
        began = time.perf_counter()
        yield
        self._waited_s += time.perf_counter() - began

    def gather(self, add_up: Callable[[Tensor], Tensor]) -> None:
        """Takes in the steps of all workers since the last time; `add_up` sums over the workers."""
        self._kept += add_up(self._own.cpu())
        self._own = torch.zeros_like(self._own)

    def are_finite(self) -> bool:
        """Whether the loss of every step since the last `gather` was a number."""
        return bool(self._own.isfinite().all())

    def state(self) -> SumsState:
        """What goes into a checkpoint: all that was gathered."""
        seconds, waited_s = self._seconds(), self._waited_s
        return {"totals": self._kept.tolist(), "seconds": seconds, "waited_s": waited_s}

    def figures(self) -> dict[str, float]:
        """The figures by name: of what was gathered and this worker's steps since."""
        retrieval, targets, events, *by_task = (self._kept + self._own.cpu()).tolist()
        seconds = self._seconds()
        return {
            "retrieval_loss": retrieval / max(targets, 1),
            **{
                f"{task}_loss": total / max(events, 1)
                for task, total in zip(self.tasks, by_task, strict=True)
            },
            "events_per_s": events / seconds,
            "epoch_s": seconds,
            "waiting_share": self._waited_s / seconds,
        }

    def _seconds(self) -> float:
        return max(time.perf_counter() - self._began, 1e-9)


class Pace:
    """Says when something is due that shall not be done too often.

    Args:
        every_s: Least seconds between two times; with 0 it is always due.
        clock: Seconds that only grow.

    >>> now = iter([0.0, 0.5, 1.0, 1.5, 2.0])
    >>> pace = Pace(1.0, clock=lambda: next(now))
    >>> [pace.is_due() for _ in range(5)]
    [True, False, True, False, True]
    """

    def __init__(self, every_s: float, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self._every_s, self._clock = every_s, clock
        self._next_s = float("-inf")

    def is_due(self) -> bool:
        """Whether it is; asking counts as doing it."""
        now = self._clock()
        if now < self._next_s:
            return False
        self._next_s = now + self._every_s
        return True


class Told(NamedTuple):
    """What the first worker has told of the training so far."""

    plan: str = ""
    """Of the tables in one line, as `describe_plan` gives it; empty before it has begun."""
    begun_after: int = 0
    """Epochs that were done when the workers first began, by a training that was stopped."""
    epochs_done: float = 0.0
    """With the fraction of the running one."""
    figures: dict[str, float] = {}
    """The running figures by name."""
    history: list[dict[str, float]] = []
    """The figures of each epoch that has ended since, its number as `epoch` among them."""


class ProgressActor:
    """Holds the newest figures of the first worker; a Ray actor that the driver asks."""

    def __init__(self) -> None:
        self._told = Told(history=[])

    def begin(self, plan: str, epochs_done: int) -> None:
        """Takes the plan of the tables, and after how many epochs the workers begin."""
        if not self._told.plan:  # not where they begin again, after a node was lost
            self._told = self._told._replace(plan=plan, begun_after=epochs_done)

    def step(self, epochs_done: float, figures: dict[str, float]) -> None:
        """Takes how many epochs are done, a fraction, and the running figures by name."""
        self._told = self._told._replace(epochs_done=epochs_done, figures=figures)

    def epoch(self, figures: dict[str, float]) -> None:
        """Takes the figures of a finished epoch by name, its number as `epoch` among them."""
        self._told.history.append(figures)

    def read(self) -> Told:
        """Gives all that was told."""
        return self._told
