"""Figures while training runs: running losses, and the board that the driver reads."""

from __future__ import annotations

import time

from recsys.model.recommender import Losses


class StepSums:
    """Mean losses and speed since it was made."""

    def __init__(self, tasks: tuple[str, ...]) -> None:
        self.tasks = tasks
        self.retrieval = self.num_retrieval = self.num_events = 0.0
        self.by_task = [0.0] * len(tasks)
        self.started = time.perf_counter()

    def add(self, losses: Losses, num_timelines: int) -> None:
        """Adds a step."""
        self.retrieval += losses.retrieval.item()
        self.num_retrieval += losses.num_retrieval.item()
        self.num_events += losses.num_tasks.item()
        for number, value in enumerate(losses.tasks.tolist()):
            self.by_task[number] += value

    def figures(self) -> dict[str, float]:
        """The figures by name."""
        seconds = max(time.perf_counter() - self.started, 1e-9)
        return {
            "retrieval_loss": self.retrieval / max(self.num_retrieval, 1),
            **{
                f"{task}_loss": total / max(self.num_events, 1)
                for task, total in zip(self.tasks, self.by_task, strict=True)
            },
            "events_per_s": self.num_events / seconds,
            "epoch_s": seconds,
        }


class Board:
    """Holds the newest figures of the first worker; a Ray actor that the driver asks."""

    def __init__(self) -> None:
        self.epochs_done = 0.0
        self.figures: dict[str, float] = {}
        self.history: list[dict[str, float]] = []
        self.plan = ""

    def place(self, plan: str) -> None:
        """Takes how the tables are placed."""
        self.plan = plan

    def step(self, epochs_done: float, figures: dict[str, float]) -> None:
        """Takes the figures of a step."""
        self.epochs_done, self.figures = epochs_done, figures

    def epoch(self, figures: dict[str, float]) -> None:
        """Takes the figures of a finished epoch."""
        self.history.append(figures)

    def read(self) -> tuple[float, dict[str, float], list[dict[str, float]], str]:
        """(epochs done, newest figures, figures of the finished epochs, the tables' plan)."""
        return self.epochs_done, self.figures, self.history, self.plan
