"""Where things lie in the run folder."""

from __future__ import annotations

from dataclasses import dataclass

from recsys.data.storage import join

REPORT = "report.json"


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run folder, and the only place that knows them.

    >>> RunFolder("runs/first").vocab("video")
    'runs/first/prepare/vocab/video.parquet'
    >>> RunFolder("runs/first").live_log  # old run folders hold one of this name
    'runs/first/live.sqlite'
    """

    run: str
    """The folder; a path or URI."""

    @property
    def config(self) -> str:
        """The whole config of the last command."""
        return join(self.run, "config.yaml")

    @property
    def report(self) -> str:
        """The stages' reports in one."""
        return join(self.run, REPORT)

    def of_stage(self, stage_folder: str) -> str:
        """A stage's folder, by its name."""
        return join(self.run, stage_folder)

    def report_of(self, stage_folder: str) -> str:
        """A stage's report, by the name of its folder."""
        return join(self.of_stage(stage_folder), REPORT)

    @property
    def prepare(self) -> str:
        """The folder of the stage `prepare`."""
        return join(self.run, "prepare")

    @property
    def videos(self) -> str:
        """The catalogue."""
        return join(self.prepare, "videos.parquet")

    @property
    def details(self) -> str:
        """What people are shown of the videos."""
        return join(self.prepare, "details.parquet")

    @property
    def lessons(self) -> str:
        """Courses, and what must be finished before what."""
        return join(self.prepare, "lessons.parquet")

    @property
    def users(self) -> str:
        """What is known of users."""
        return join(self.prepare, "users.parquet")

    @property
    def vectors(self) -> str:
        """Ready-made content vectors."""
        return join(self.prepare, "vectors.npy")

    @property
    def vocabs(self) -> str:
        """The folder of the vocabularies."""
        return join(self.prepare, "vocab")

    def vocab(self, name: str) -> str:
        """One vocabulary: video, creator, category, user or context_<column>."""
        return join(self.vocabs, f"{name}.parquet")

    @property
    def timelines(self) -> str:
        """The folder of the partitions of timelines."""
        return join(self.prepare, "timelines")

    @property
    def counts(self) -> str:
        """The folder of the hourly counts."""
        return join(self.prepare, "counts")

    @property
    def showings(self) -> str:
        """The copy of the event log that prepare reads beside the user's events."""
        return join(self.prepare, "live.parquet")

    @property
    def live_videos(self) -> str:
        """The copy of the videos that came live, which prepare reads beside the user's own."""
        return join(self.prepare, "live_videos.parquet")

    @property
    def decode(self) -> str:
        """The folder of the stage `decode`."""
        return join(self.run, "decode")

    @property
    def clips(self) -> str:
        """The decoded clips."""
        return join(self.decode, "clips.lance")

    @property
    def train(self) -> str:
        """The folder of the stage `train`, and of Ray Train's checkpoints."""
        return join(self.run, "train")

    @property
    def model(self) -> str:
        """The trained model's checkpoint."""
        return join(self.train, "model")

    @property
    def start(self) -> str:
        """The checkpoint that training starts from, where it is made of another run's model."""
        return join(self.train, "start")

    def tensorboard(self, training: str) -> str:
        """The folder of a training's curves."""
        return join(self.train, "tensorboard", training)

    @property
    def evaluate(self) -> str:
        """The folder of the stage `evaluate`."""
        return join(self.run, "evaluate")

    @property
    def bundles(self) -> str:
        """The folder of the bundles."""
        return join(self.run, "bundles")

    @property
    def live_log(self) -> str:
        """The event log that servers keep where no other is named."""
        return join(self.run, "live.sqlite")

    @property
    def refresh_report(self) -> str:
        """What the last refresh decided."""
        return join(self.run, "refresh", REPORT)

    @property
    def refresh_underway(self) -> str:
        """What is pinned while a refresh runs."""
        return join(self.run, "refresh", "underway.json")

    @property
    def refresh_start(self) -> str:
        """The model that the next refresh starts from, laid out as a run folder."""
        return join(self.run, "refresh", "start")

    @property
    def tune(self) -> str:
        """The folder of the sweeps."""
        return join(self.run, "tune")

    @property
    def best_config(self) -> str:
        """The best config of the last sweep."""
        return join(self.tune, "best.yaml")

    @property
    def trials_table(self) -> str:
        """All trials of the sweep, a row each."""
        return join(self.tune, "trials.parquet")

    @property
    def sweep_page(self) -> str:
        """The sweep, for people."""
        return join(self.tune, "sweep.html")

    @property
    def sweep(self) -> str:
        """What all trials of the sweep have in common."""
        return join(self.tune, "sweep.json")

    @property
    def trials(self) -> str:
        """The folder of the sweep's trials."""
        return join(self.tune, "trials")

    def trial(self, number: int) -> str:
        """One trial's settings and figures."""
        return join(self.trials, f"{number:04d}.json")

    def trained_trial(self, number: int) -> str:
        """The folder of one trial's checkpoints."""
        return join(self.trials, f"{number:04d}")
