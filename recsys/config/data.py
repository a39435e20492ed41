"""The config's sections on the input: the user's columns, the split, and the two data stages.

Imports neither torch nor ray.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """A part of the config: frozen, and refusing unknown keys, empty texts, infinity and NaN."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        str_min_length=1,
        allow_inf_nan=False,
    )


class EventColumns(Section):
    """Which of the event table's columns plays which role."""

    user: str = "user_id"
    """Who was shown the video: text or whole numbers. Floats stand for the whole numbers that they
    are; a row without a user, a video or a time is dropped and counted. Missing, here and in every
    column, is a null, a NaN, or text that is empty or blank; the text "nan" is text."""
    video: str = "video_id"
    """Which video: as `user`."""
    time: str = "time"
    """When: a timestamp (UTC where it has no zone), or a number in `data.time_unit`. Where the bulk
    are dates, one before 1980 or more than a day ahead cannot be: dropped and counted."""
    positive: str | None = None
    """0/1 column that says whether the user liked it; without it every row is a viewing."""
    tasks: tuple[str, ...] = ()
    """0/1 columns that the ranking head learns, one logit each."""
    watched: str | None = None
    """How long the user watched, a number from 0 on in the unit of `video_columns.duration`. It is
    known afterwards, and with the share of the video that it is, it says more of a user's history
    than 0/1 columns alone. A missing one is taken as 0 and counted."""
    context: tuple[str, ...] = ()
    """Columns known when the request is made (a tab, a device), used by the ranking head: text,
    whole numbers or true/false."""

    @model_validator(mode="after")
    def _known_before_or_after(self) -> EventColumns:
        after = (self.positive, *self.tasks, self.watched)
        both = [name for name in self.context if name in after]
        if both:
            raise ValueError(
                f"{both[0]} is in context, which is known when the request is made, and in "
                "positive, tasks or watched, which are what came of it; take it out of one of them"
            )
        return self

    @property
    def watch_dim(self) -> int:
        """W: numbers that say how long a video was watched: the time and the share of it."""
        return 0 if self.watched is None else 2


class VideoColumns(Section):
    """Which of the video table's columns plays which role."""

    video: str = "video_id"
    """Which video; the same ids as in the events."""
    uri: str | None = None
    """Path or URI of the file; without it categories alone describe a video."""
    title: str | None = None
    """What people call it: shown on the page, never seen by the model."""
    poster: str | None = None
    """Path or URI of a picture of it (JPEG, PNG, WebP) for the page; where there is none, decode
    makes one of the file."""
    creator: str | None = None
    """Who made the video: an embedding of its own, and whose exposure the report follows."""
    categories: tuple[str, ...] = ()
    """Columns of tags; a text column may hold several, separated by commas; a list column works,
    and missing values in its lists are passed over. 1 and 1.0 are one tag."""
    duration: str | None = None
    """Length of the video, in any unit; what is not above 0 is missing, and counted."""
    course: str | None = None
    """Name of the course (or series) that the video is a lesson of; no model sees it."""
    lesson: str | None = None
    """Its place in the course, a number: smaller ones come first."""
    requires: str | None = None
    """Ids of the videos that must be finished before this one is recommended: a list, or text
    separated by commas. A video is finished by a positive event with it (`columns.positive`). Ids
    that are of no video are passed over and counted."""
    vector: str | None = None
    """Ready-made content vectors, lists of numbers of one length: they stand in for the frames,
    and no video file is decoded."""

    @property
    def has_lessons(self) -> bool:
        """Whether anything is said of courses, or of what must come first."""
        return any((self.course, self.lesson, self.requires))

    @model_validator(mode="after")
    def _lessons_of_courses(self) -> VideoColumns:
        if self.lesson is not None and self.course is None:
            raise ValueError("lesson is a place in a course: name the column of courses too")
        return self


class UserColumns(Section):
    """Which of the user table's columns plays which role."""

    user: str = "user_id"
    """Which user; the same ids as in the events."""
    groups: tuple[str, ...] = ()
    """Columns by which the fairness report groups users; the model never sees them as such."""
    features: tuple[str, ...] = ()
    """Columns of what the model may know of a user (an age band, a region): text or numbers, each
    value an embedding of its own; a new user is then no stranger."""


class DataConfig(Section):
    """Where the input lies and how to read it."""

    root: str | None = None
    """Folder or URI that relative paths of `events`, `videos` and `users` start from; without it
    the folder where the command runs."""
    events: str
    """Path, glob, folder or URI of Parquet; one row an exposure or a viewing. A name that exists is
    taken as it stands; of a folder come all files below it that end in .parquet or .pq, but for
    hidden ones (`_temporary/…`, `.part-0.parquet`); links are followed. Files may differ in the
    width of numbers, in the kind of text and in the unit of timestamps."""
    live: str | None = None
    """Address of an event log (a path of SQLite, or postgresql://USER@HOST/NAME, the password in
    PGPASSWORD or ~/.pgpass) whose showings join `events`, exposures that came to nothing included.
    Without `columns.positive` only those that the user liked. Prepare copies them into the run
    folder, and does so again once the log has grown. What is in the log and in `events` counts
    twice, unless user, video and time are the same: leave it out of one of them."""
    columns: EventColumns = EventColumns()
    time_unit: Literal["auto", "s", "ms", "us", "ns"] = "auto"
    """Unit of a time column of numbers; `auto` tells it from the median of all files, and the
    report says it."""
    missing_labels: Literal["drop", "zero"] = "drop"
    """What a missing `positive` or task label means: nothing is known, and the event is dropped and
    counted (`drop`), or it did not happen, 0 (`zero`)."""
    videos: str | None = None
    """Path of Parquet; without it the catalogue is the videos that occur in the events."""
    video_columns: VideoColumns = VideoColumns()
    users: str | None = None
    """Path of Parquet with one row a user: groups of the fairness report, features of the model."""
    user_columns: UserColumns = UserColumns()

    @model_validator(mode="after")
    def _users_of_features(self) -> DataConfig:
        if self.user_columns.features and self.users is None:
            raise ValueError("user_columns.features needs data.users, the table that has them")
        return self


class SplitConfig(Section):
    """What is learnt from, what is chosen by, and what is measured on."""

    kind: Literal["time", "leave_one_out"] = "time"
    """`time`: one cut in time for everybody. `leave_one_out`: a user's last positive event is the
    test and the one before it the validation."""
    valid_from: int | datetime | None = None
    """Start of the validation events, in the events' own unit or as an ISO date (UTC)."""
    test_from: int | datetime | None = None
    """Start of the test events."""
    valid_days: float | None = Field(None, gt=0)
    """In place of `valid_from`: days of validation before the test."""
    test_days: float | None = Field(None, gt=0)
    """In place of `test_from`: days of test before the newest event, so that the cuts move with the
    data, as `recsys refresh` wants them."""

    @model_validator(mode="after")
    def _cuts(self) -> SplitConfig:
        moments = [self.valid_from is not None, self.test_from is not None]
        days = [self.valid_days is not None, self.test_days is not None]
        if self.kind == "leave_one_out" and any(moments + days):
            raise ValueError(
                "kind=leave_one_out takes neither valid_from nor test_from, and no days"
            )
        if self.kind == "time" and (all(moments), any(moments), all(days), any(days)) not in (
            (True, True, False, False),
            (False, False, True, True),
        ):
            raise ValueError(
                "kind=time needs valid_from and test_from, or valid_days and test_days"
            )
        return self


class PrepareConfig(Section):
    """How events become timelines."""

    partitions: int | None = Field(None, ge=1, le=65536)
    """Number of Parquet files that users are spread over by a hash of their id; a training
    checkpoint can fall between any two, and one must fit in a worker's memory. Without it 16, and
    from 16 million events on one for each million."""
    min_video_events: int = Field(1, ge=0)
    """A video with fewer training events gets no ID embedding of its own: its content stands for
    it."""


class DecodeConfig(Section):
    """How video files become clips of `frames` frames."""

    frames: int = Field(16, ge=1, le=512)
    """How many frames stand for a video."""
    size: int = Field(112, ge=16, le=1024)
    """Height and width of a stored frame, in pixels."""
    sampling: Literal["uniform", "keyframes", "auto"] = "uniform"
    """`uniform`: over the whole clip. `keyframes`: key frames only, much faster. `auto`: key
    frames where there are enough of them, else uniform."""
    fit: Literal["crop", "letterbox"] = "crop"
    """`crop`: short side to `size`, then the centre. `letterbox`: long side to `size`, black
    around."""
    workers: int | None = Field(None, ge=1)
    """Decoding processes; without it one a free CPU."""
    max_pixels: int = Field(16384 * 16384, ge=1)
    """Largest frame that is decoded, in pixels."""
    max_duration_s: float = Field(4 * 3600.0, gt=0)
    """Longest video that is decoded, in seconds."""
    max_bytes: int = Field(8 * 2**30, ge=1)
    """Largest file that is read, in bytes."""
    max_decode_s: float = Field(60.0, gt=0)
    """Longest time that one file may take, in seconds."""
    max_memory_bytes: int = Field(1280 * 2**20, ge=256 * 2**20)
    """Memory that the decoder may use for one file."""
    auto_max_frames: int = Field(300, ge=1)
    """With `sampling: auto`: frames that may be decoded to sample a video uniformly. Where it takes
    more, the sampled frames move towards the key frames before them."""
    still_images: bool = True
    """Whether a picture (PNG, JPEG, a song's cover) counts as a video of one frame."""
    reader: Literal["auto", "fastest", "decord", "pyav"] = "auto"
    """`auto`: decord wherever it is exact, PyAV for everything else. `fastest`: the same frames and
    times by PyAV, which leaves out frames that no other needs; where a GPU decodes, it is
    asked first. `decord`, `pyav`: that one only."""
    schemes: tuple[str, ...] = ("file", "http", "https", "s3", "gs")
    """Kinds of address that are read; `file` are local paths."""
    features: bool | None = None
    """Store the frozen frame encoder's features instead of frames: a fifteenth of the bytes, and
    frames never cross the object store. Without it, wherever the encoder is frozen."""
    encode_precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """In what the frozen frame encoder multiplies. `auto` is float32 on a CPU; on a GPU float16 for
    `efficientnet_lite0`, whose activations are bounded, and bfloat16 for others, whose range is not
    known."""
    encode_frames: int = Field(1024, ge=1)
    """Frames, of the clips of many videos, that the encoder takes at a time on a GPU."""
    encode_compiled: bool = False
    """Whether `torch.compile` makes the encoder's kernels on a GPU: it takes a minute or so at the
    start of each worker, and pays where many videos follow."""
    hardware_processes: int = Field(8, ge=0)
    """Processes a GPU that decode in hardware, each with a CUDA context of about half a gigabyte,
    where pynvvideocodec or torchcodec's CUDA build is installed; 0 leaves decoding to the cores."""
    hardware_pixels: int = Field(640 * 360, ge=1)
    """Smallest frame that is decoded in hardware, in pixels. The default is the smallest that was
    measured: clips of 2 s take a card a fifth of a core's time there (tests/benchmarks/README.md).
    """
    poster_size: int = Field(224, ge=0, le=1024)
    """Height and width of the picture (WebP) that stands for a video on the page, in pixels; 0
    makes none."""
