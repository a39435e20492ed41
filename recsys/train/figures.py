"""Figures while training runs: running losses, and the actor that the driver reads them from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypedDict

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
        self._own = torch.zeros_like(self._kept)
        self._began = time.perf_counter() - known["seconds"]
        self._waited_s = known["waited_s"]

    def add(self, losses: Losses) -> None:
        """Adds the summed losses and the counts of one of this worker's steps."""
        step = [losses.retrieval, losses.num_retrieval, losses.num_tasks]
        self._own += torch.tensor([value.item() for value in step] + losses.tasks.tolist())

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time inside as one in which this worker waited for data."""
        began = time.perf_counter()
        yield
        self._waited_s += time.perf_counter() - began

    def gather(self, add_up: Callable[[Tensor], Tensor]) -> None:
        """Takes in the steps of all workers since the last time; `add_up` sums over the workers."""
        self._kept += add_up(self._own)
        self._own.zero_()

    def state(self) -> SumsState:
        """What goes into a checkpoint: all that was gathered."""
        seconds, waited_s = self._seconds(), self._waited_s
        return {"totals": self._kept.tolist(), "seconds": seconds, "waited_s": waited_s}

    def figures(self) -> dict[str, float]:
        """The figures by name: of what was gathered and this worker's steps since."""
        retrieval, targets, events, *by_task = (self._kept + self._own).tolist()
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


class ProgressActor:
    """Holds the newest figures of the first worker; a Ray actor that the driver asks."""

    def __init__(self) -> None:
        self.epochs_done = 0.0
        self.figures: dict[str, float] = {}
        self.history: list[dict[str, float]] = []
        self.plan = ""

    def place(self, plan: str) -> None:
        """Takes the plan of the tables in one line, as `describe_plan` gives it."""
        self.plan = plan

    def step(self, epochs_done: float, figures: dict[str, float]) -> None:
        """Takes how many epochs are done, a fraction, and the running figures by name."""
        self.epochs_done, self.figures = epochs_done, figures

    def epoch(self, figures: dict[str, float]) -> None:
        """Takes the figures of a finished epoch by name, its number as `epoch` among them."""
        self.history.append(figures)

    def read(self) -> tuple[float, dict[str, float], list[dict[str, float]], str]:
        """Gives epochs done, newest figures, finished epochs' figures and the tables' plan."""
        return self.epochs_done, self.figures, self.history, self.plan
