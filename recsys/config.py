"""The run config: one frozen, typed tree, read from YAML and `key=value` overrides.

Every setting of every stage is here, with its default, its bounds and what it means. Unknown keys
are refused. Imports neither torch nor ray.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from recsys.config_text import absolute, apply_overrides, explain, read_yaml
from recsys.errors import InputError


class Section(BaseModel):
    """A part of the config: frozen, and refusing keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class EventColumns(Section):
    """Which of the event table's columns plays which role."""

    user: str = "user_id"
    """Who was shown the video; integers or strings."""
    video: str = "video_id"
    """Which video; integers or strings."""
    time: str = "time"
    """When: an integer in `data.time_unit`, or an Arrow timestamp."""
    positive: str | None = None
    """0/1 column that says whether the user liked it; without it every row is a viewing."""
    tasks: tuple[str, ...] = ()
    """0/1 columns that the ranking head learns, one logit each."""
    context: tuple[str, ...] = ()
    """Columns known when the request is made (a tab, a device), used by the ranking head."""


class VideoColumns(Section):
    """Which of the video table's columns plays which role."""

    video: str = "video_id"
    uri: str | None = None
    """Path or URI of the file; without it categories alone describe a video."""
    creator: str | None = None
    categories: tuple[str, ...] = ()
    """Columns of tags; a text column may hold several, separated by commas; a list column works."""
    duration: str | None = None
    """Length of the video, in any unit."""


class UserColumns(Section):
    """Which of the user table's columns plays which role."""

    user: str = "user_id"
    groups: tuple[str, ...] = ()
    """Columns by which the fairness report groups users; the model never sees them."""


class DataConfig(Section):
    """Where the input lies and how to read it."""

    root: str | None = None
    """Folder or URI that relative paths of `events`, `videos` and `users` start from; without it
    the folder where the command runs."""
    events: str
    """Path, glob, folder or URI of Parquet; one row an exposure or a viewing."""
    columns: EventColumns = EventColumns()
    time_unit: Literal["auto", "s", "ms", "us", "ns"] = "auto"
    """Unit of an integer time column; `auto` tells it from the size of the values and says so."""
    videos: str | None = None
    """Path of Parquet; without it the catalogue is the videos that occur in the events."""
    video_columns: VideoColumns = VideoColumns()
    users: str | None = None
    user_columns: UserColumns = UserColumns()


class SplitConfig(Section):
    """What is learnt from, what is chosen by, and what is measured on."""

    kind: Literal["time", "leave_one_out"] = "time"
    """`time`: one cut in time for everybody. `leave_one_out`: a user's last positive event is the
    test and the one before it the validation."""
    valid_from: int | datetime | None = None
    """Start of the validation events, in the events' own unit or as an ISO date (UTC)."""
    test_from: int | datetime | None = None
    """Start of the test events."""

    @model_validator(mode="after")
    def _cuts(self) -> SplitConfig:
        given = (self.valid_from is not None, self.test_from is not None)
        if self.kind == "time" and not all(given):
            raise ValueError("kind=time needs valid_from and test_from")
        if self.kind == "leave_one_out" and any(given):
            raise ValueError("kind=leave_one_out takes neither valid_from nor test_from")
        return self


class PrepareConfig(Section):
    """How events become timelines."""

    partitions: int = Field(16, ge=1, le=65536)
    """Number of Parquet files that users are spread over by a hash of their id; a training
    checkpoint can fall between any two, and one must fit in a worker's memory."""
    min_video_events: int = Field(1, ge=0)
    """A video with fewer training events gets no ID embedding of its own: its content stands for
    it."""


class DecodeConfig(Section):
    """How video files become clips of `frames` frames."""

    frames: int = Field(16, ge=1, le=512)
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
    max_bytes: int = Field(8 * 2**30, ge=1)
    max_decode_s: float = Field(60.0, gt=0)
    """Longest time that one file may take, in seconds."""
    max_memory_bytes: int = Field(1280 * 2**20, ge=256 * 2**20)
    """Memory that the decoder may use for one file."""
    auto_max_frames: int = Field(300, ge=1)
    """With `sampling: auto`: frames that may be decoded to sample a video uniformly. Where it takes
    more, the sampled frames move towards the key frames before them."""
    still_images: bool = True
    """Whether a picture (PNG, JPEG, a song's cover) counts as a video of one frame."""
    reader: Literal["auto", "decord", "pyav"] = "auto"
    """`auto`: decord where it is exact, PyAV for everything else."""
    schemes: tuple[str, ...] = ("file", "http", "https", "s3", "gs")
    """Kinds of address that are read; `file` are local paths."""
    features: bool = False
    """Store the frozen frame encoder's features instead of frames. They never cross the object
    store, and training can then not change the encoder."""


class ContentConfig(Section):
    """How the frames of a video become its content vector."""

    encoder: str = "small_cnn"
    """`small_cnn`: trained end to end. `efficientnet_lite0`: pretrained. `none`: no frames are
    used. Or `package.module:factory`, a callable that returns an `nn.Module` from (N, 3, H, W)
    to (N, F)."""
    train_encoder: bool = True
    """Whether training changes the frame encoder; false freezes it."""
    gradient_checkpointing: bool = False
    """Encode frames a second time in backward instead of keeping what the first left: less memory
    for a third more time."""
    frame_dim: int = Field(64, ge=1)
    """F, the width of a frame's features after the encoder's projection."""
    temporal: Literal["lstm", "mean"] = "lstm"
    """What makes one vector of T frames: an LSTM, or their mean (to compare with)."""
    dim: int = Field(64, ge=1)
    """Width of the content vector."""


class ModelConfig(Section):
    """Sizes and habits of the model."""

    content: ContentConfig = ContentConfig()
    dim: int = Field(64, ge=4)
    """Width of the video vector and of a user's query."""
    id_dim: int = Field(64, ge=4)
    """Width of the rows of the sharded tables: video, creator, category."""
    feature_dim: int = Field(16, ge=4)
    """Width of the small embeddings: duration, gap, hour, context, action."""
    state_dim: int = Field(128, ge=4)
    """Width of the history LSTM's state."""
    use_id: bool = True
    """False leaves the ID embedding out, so that content alone describes a video."""
    id_dropout: float = Field(0.1, ge=0, lt=1)
    """Chance that a video's ID embedding is replaced by the unknown one in a training batch: what
    makes cold start work."""
    dropout: float = Field(0.3, ge=0, lt=1)
    max_history: int = Field(200, ge=1)
    """Longest history that a user state is made of; older events are cut into windows of their
    own in training and are forgotten in serving."""


class TrainConfig(Section):
    """How the model is trained."""

    seed: int = 0
    workers: int = Field(1, ge=1)
    """Ray Train workers, each with one CPU, or with one GPU where `device` is cuda."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16`: matrix products in half the bits (autocast), for GPUs; weights stay float32."""
    tables: Literal["auto", "torchrec", "plain"] = "auto"
    """`torchrec`: tables sharded over the workers. `plain`: a copy on each worker, for machines
    where fbgemm cannot be installed. `auto`: torchrec where it is there."""
    start_from: str | None = None
    """A run folder whose trained model this one goes on from, with new users, videos and days."""
    epochs: int = Field(10, ge=0)
    content_first: float = Field(0.0, ge=0, le=1)
    """Share of the epochs in which a video is its content alone, without its ID: IDs are learnt
    so much sooner than frames that the content would be left behind, and cold videos with it."""
    batch_timelines: int = Field(128, ge=1)
    """Timelines a worker takes a step."""
    lr: float = Field(2e-3, gt=0)
    """Peak learning rate of the dense part (AdamW)."""
    table_lr: float = Field(0.05, gt=0)
    """Learning rate of the embedding tables (row-wise Adagrad, fused into backward)."""
    weight_decay: float = Field(0.01, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    """Largest norm of the dense gradient."""
    negatives: int = Field(8192, ge=1)
    """Videos drawn as negatives a step; a catalogue no larger than this is ranked whole."""
    retrieval_weight: float = Field(1.0, ge=0)
    task_weights: dict[str, float] = {}
    """Weight of each ranking task's loss; 1 where it is not named."""
    patience: int = Field(3, ge=1)
    """Epochs without a better validation figure before training stops."""
    refit: bool = True
    """After the number of epochs is chosen on the validation events, learn from them too."""
    checkpoint_every_partitions: int = Field(8, ge=1)
    """Partitions between two checkpoints."""
    max_failures: int = Field(3, ge=0)
    """Times that Ray starts the workers again after one died."""


class EvaluateConfig(Section):
    """What is measured."""

    k: tuple[Annotated[int, Field(ge=1)], ...] = Field((10, 50), min_length=1)
    """Lengths of the lists that are measured; the verdict goes by the first."""
    mask_history: bool = False
    """Whether videos that the user has already had a positive event with are left out of the
    ranking."""
    bootstrap: int = Field(200, ge=0)
    """Resamplings of users behind each confidence interval; 0 leaves the intervals out."""
    seed: int = 0
    half_life_days: float = Field(1.0, gt=0)
    """Of the recent-popularity baseline: the age at which an event counts half."""
    neighbours: int = Field(500, ge=1)
    """Most similar videos that the item-kNN baseline keeps of each video."""
    previous: str | None = None
    """Bundle that the model is compared with: a run folder or a bundle's own; without it the
    newest one of this run that is of another training."""
    tradeoff_users: int = Field(10_000, ge=0)
    """Users on whom the re-ranking's trade-off curve is drawn; 0 leaves it out."""


class RerankConfig(Section):
    """What a recommendation trades relevance for; evaluation and serving use the same step."""

    creator_exposure: float = Field(0.0, ge=0)
    """What a creator's exposure costs, in units of the relevance of a user's best video; 0.1 is a
    place to start."""
    diversity: float = Field(0.0, ge=0)
    """What it costs to have the same categories as the videos above it."""
    new_videos: float = Field(0.0, ge=0)
    """What a new video gains."""
    new_days: float = Field(3.0, gt=0)
    """Age in days, at the newest event that the model knows, up to which a video is new."""
    candidates: int = Field(100, ge=1)
    """Retrieved videos that the step may choose from."""
    page: int = Field(10, ge=1)
    """Videos seen at once: exposure is a place on a page, where the most relevant come first."""
    drawn_places: int = Field(0, ge=0)
    """Last places of a page that go to creators drawn by lot, also to those never retrieved."""


class PublishConfig(Section):
    """How the bundle's index is made."""

    index: Literal["auto", "flat", "hnsw"] = "auto"
    """`flat` is exact. `hnsw` is approximate and fast. `auto`: flat up to 100,000 videos."""


class ServeConfig(Section):
    """The HTTP endpoint."""

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    replicas: int = Field(1, ge=1)
    max_k: int = Field(200, ge=1)
    """Most recommendations that one request may ask for."""
    max_videos: int = Field(1000, ge=1)
    """Most videos that one request may have scored."""
    rank: str = "retrieval"
    """`retrieval` keeps the order of the retrieval scores; the name of a task orders the retrieved
    videos (`rerank.candidates` of them) by their probability of it."""
    files: bool = True
    """Whether the catalogue's own local video files are served, for the web page."""


class TuneConfig(Section):
    """The sweep."""

    trials: int = Field(8, ge=1)
    concurrent: int = Field(1, ge=1)
    """Trials at a time."""
    seed: int = 0


class RunConfig(Section):
    """A whole run, from raw events and video files to a served bundle."""

    run: str
    """The run folder: a path or URI."""
    data: DataConfig
    split: SplitConfig
    prepare: PrepareConfig = PrepareConfig()
    decode: DecodeConfig = DecodeConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    rerank: RerankConfig = RerankConfig()
    publish: PublishConfig = PublishConfig()
    serve: ServeConfig = ServeConfig()
    tune: TuneConfig = TuneConfig()

    @model_validator(mode="after")
    def _known_tasks(self) -> RunConfig:
        tasks = self.data.columns.tasks
        unknown = sorted(self.train.task_weights.keys() - set(tasks))
        if unknown:
            raise ValueError(
                f"train.task_weights.{unknown[0]} is no ranking task; data.columns.tasks has "
                f"{', '.join(tasks) or 'none'}"
            )
        return self

    @property
    def has_content(self) -> bool:
        """Whether video files are used at all."""
        return self.data.video_columns.uri is not None and self.model.content.encoder != "none"


def load_config(path: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Reads a run config.

    Args:
        path: A YAML file.
        overrides: `dotted.key=value` texts; the value is read as YAML.

    Raises:
        InputError: The file or an override is wrong; one line says which key, value and remedy.
    """
    tree = read_yaml(path)
    apply_overrides(tree, overrides)
    return with_absolute_paths(parse_config(tree, path))


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """The same config for processes with another working folder; URIs stay as they are."""
    root = absolute(config.data.root) if config.data.root else os.getcwd()
    data: dict[str, str | None] = {
        name: absolute(value if "://" in value else posixpath.join(root, os.path.expanduser(value)))
        for name in ("events", "videos", "users")
        if (value := getattr(config.data, name)) is not None
    }
    data["root"] = None
    data_config = config.data.model_copy(update=data)
    changed: dict[str, Any] = {"run": absolute(config.run), "data": data_config}
    for name, field in (("evaluate", "previous"), ("train", "start_from")):
        section = getattr(config, name)
        if (path := getattr(section, field)) is not None:
            changed[name] = section.model_copy(update={field: absolute(path)})
    return config.model_copy(update=changed)


def parse_config(tree: Any, source: str) -> RunConfig:
    """Makes a config of a plain tree; `source` is named in the message of an `InputError`."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise InputError(f"{source}: {explain(error, RunConfig)}") from None


def dump_config(config: RunConfig) -> str:
    """The config as YAML, complete, so that `load_config` gives the same one back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
