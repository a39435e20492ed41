"""The run config: one frozen, typed tree, read from YAML and `key=value` overrides.

Every setting of every stage is here, with its default, its bounds and what it means. Unknown keys
are refused. Imports neither torch nor ray.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from recsys.config.access import TokenReference
from recsys.config.addresses import FileServer
from recsys.config.data import DataConfig, DecodeConfig, PrepareConfig, Section, SplitConfig
from recsys.config.text import absolute, apply_overrides, explain, read_yaml
from recsys.errors import InputError


class ContentConfig(Section):
    """How the frames of a video become its content vector."""

    encoder: str = "efficientnet_lite0"
    """`efficientnet_lite0`: pretrained on photographs. `small_cnn`: small, for training end to
    end. `none`: no frames are used. Or `package.module:factory`, a callable that returns an
    `nn.Module` from (N, 3, H, W) to (N, Z)."""
    train_encoder: bool | None = None
    """Whether training changes the frame encoder, or it is frozen; without it the pretrained one
    is frozen and any other is trained."""
    gradient_checkpointing: bool = False
    """Encode frames a second time in backward instead of keeping what the first left: less memory
    for a third more time."""
    frame_dim: int = Field(64, ge=1)
    """Width of a frame's features after the encoder's projection."""
    temporal: Literal["lstm", "mean"] = "lstm"
    """What makes one vector of the frames: an LSTM, or their mean (to compare with)."""
    dim: int = Field(64, ge=1)
    """Width of the content vector."""

    @property
    def trains_encoder(self) -> bool:
        """Whether training changes the frame encoder."""
        if self.train_encoder is None:
            return self.encoder != "efficientnet_lite0"
        return self.train_encoder


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
    makes cold start work. Afterwards each is mixed with as much of the unknown one."""
    dropout: float = Field(0.3, ge=0, lt=1)
    """Share of the values that training sets to 0 at random: of content, user states and heads."""
    max_history: int = Field(200, ge=1)
    """Longest history that a user state is made of; older events are cut into windows of their
    own in training and are forgotten in serving."""


class TrainConfig(Section):
    """How the model is trained."""

    seed: int = 0
    """Decides first weights, drawn negatives and the order of timelines."""
    workers: int = Field(1, ge=1)
    """Ray Train workers, each with one CPU or one GPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto`: GPUs where the cluster has one for each worker, CPUs for all of them otherwise.
    Evaluation takes the GPUs that are free, unless it is `cpu`."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16`: matrix products in half the bits (autocast), for GPUs; weights stay float32."""
    exchange_precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16`: what workers send each other in a step, the rows of the tables and all gradients,
    takes half the bits, for slow networks; what it is added to stays float32."""
    average_every: int = Field(1, ge=1)
    """Steps after which workers exchange the dense part. 1: the gradient of each step. More: each
    learns by its own gradient, and the mean of all weights is taken after so many steps and before
    each checkpoint (local SGD), for slow networks; the tables, which are shared, learn as ever."""
    tables: Literal["auto", "torchrec", "plain"] = "auto"
    """`torchrec`: tables sharded over the workers. `plain`: a copy on each worker, for machines
    where fbgemm cannot be installed. `auto`: torchrec where it is there."""
    start_from: str | None = None
    """A run folder whose trained model this one goes on from, with new users, videos and days."""
    epochs: int = Field(10, ge=0)
    """Most passes over the training events; `patience` may end it before."""
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
    """Of the dense part (AdamW); the embedding tables have none."""
    clip_norm: float = Field(1.0, gt=0)
    """Largest norm of the dense gradient."""
    negatives: int = Field(8192, ge=1)
    """Videos drawn as negatives a step; a catalogue no larger than this is ranked whole."""
    step_clips: int | None = Field(None, ge=1)
    """Videos whose frames a step encodes at most, where the frame encoder is trained; without it
    all that the step looks at. The videos of the step's own events come first. The others, mostly
    negatives, take content vectors that are made anew of the whole catalogue after each checkpoint
    (`checkpoint_every_partitions`)."""
    retrieval_weight: float = Field(1.0, ge=0)
    """Weight of the retrieval loss beside those of the ranking tasks."""
    task_weights: dict[str, float] = {}
    """Weight of each ranking task's loss; 1 where it is not named."""
    patience: int = Field(3, ge=1)
    """Epochs without a better validation figure before training stops."""
    refit: bool = True
    """After the number of epochs is chosen on the validation events, learn from them too."""
    checkpoint_every_partitions: int = Field(8, ge=1)
    """Partitions between two checkpoints."""
    max_failures: int = Field(3, ge=0)
    """Times that Ray starts the workers again after one died. Wrong input, and a loss that is no
    number, end training at once."""
    mlflow: str | None = None
    """MLflow tracking URI (http://…) that takes the curves and the config too; TensorBoard event
    files are always written, into RUN/train/tensorboard."""


HEADLINE = 10
"""Videos that a user looks at, about."""


class EvaluateConfig(Section):
    """What is measured."""

    k: tuple[Annotated[int, Field(ge=1)], ...] = Field((10, 50), min_length=1)
    """Lengths of the lists that are measured; the verdict goes by `headline_k` of them."""
    mask_history: bool = True
    """Whether videos that the user has already had a positive event with are left out of every
    ranking, as a server leaves them out: the model's, the baselines' and the validation's."""
    users: int | None = Field(None, ge=1)
    """Users with an event in the test, or in the validation of each epoch, who are measured at
    most, drawn at random; without it all. The intervals hold what the draw leaves uncertain."""
    bootstrap: int = Field(200, ge=0)
    """Resamplings of users behind each confidence interval; 0 leaves the intervals out."""
    seed: int = 0
    """Decides the users that are drawn, their resamplings, the users of the trade-off curve, and
    those of item-kNN where there are too many for all."""
    half_life_days: float | None = Field(None, gt=0)
    """Of the recent-popularity baseline: the age at which an event counts half. Without it, as
    with the next two, the value is chosen on the validation days."""
    neighbours: int | None = Field(None, ge=1)
    """Most similar videos that the item-kNN baseline keeps of each video."""
    ease_penalty: float | None = Field(None, gt=0)
    """The L2 penalty λ of the EASE baseline."""
    ease_videos: int = Field(7000, ge=0)
    """Most popular videos that EASE is made of; the others' scores are 0, and the report says what
    share of the likes it covers. 7,000 take 0.8 GB while it is fitted, twice as many four times as
    much. 0 leaves EASE out."""
    previous: str | None = None
    """Bundle that the model is compared with: a run folder or a bundle's own; without it the
    newest one of this run that is of another training."""
    tradeoff_users: int = Field(10_000, ge=0)
    """Users on whom the re-ranking's trade-off curve is drawn; 0 leaves it out."""

    @property
    def headline_k(self) -> int:
        """The length that the verdict goes by: the largest up to 10, or else the shortest.

        >>> [EvaluateConfig(k=k).headline_k for k in ((10, 50), (1, 5), (50, 20))]
        [10, 5, 20]
        """
        return max((k for k in self.k if k <= HEADLINE), default=min(self.k))


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

    index: Literal["auto", "flat", "pq"] = "auto"
    """`flat` compares all videos. `pq` looks at codes of four bits a number first, which takes an
    eighth of the time and may miss a few; where it would miss more than 2 % of the 100 best for the
    bundle's users, or 5 % under a filter, publish takes `flat` and says so. `auto`: flat up to
    100,000 videos."""


class ServeConfig(Section):
    """The HTTP endpoint."""

    host: str = "127.0.0.1"
    """Address that it listens on; 0.0.0.0 is all of the machine's."""
    port: int = Field(8000, ge=0, le=65535)
    """Port that it listens on; 0 takes any free one."""
    replicas: int = Field(1, ge=1)
    """Processes that answer, each with one CPU and the whole bundle in memory."""
    max_replicas: int | None = Field(None, ge=1)
    """With it, replicas come and go with the load: at least `replicas`, at most this many."""
    target_ongoing_requests: float = Field(16, gt=0)
    """Requests in progress that each replica should have; where replicas come and go, more requests
    than that call for another one."""
    max_queued_requests: int = Field(128, ge=1)
    """Requests that may wait for a replica beside those that it takes, 64 more than `max_waiting`;
    what comes then is answered 503 at once, with a `Retry-After` of a second."""
    max_k: int = Field(200, ge=1)
    """Most recommendations that one request may ask for."""
    max_videos: int = Field(1000, ge=1, le=5000)
    """Most videos that one request may have scored; no request names more than 5,000 ids."""
    rank: str = "retrieval"
    """`retrieval` keeps the order of the retrieval scores; the name of a task orders the retrieved
    videos (`rerank.candidates` of them) by their probability of it."""
    monitor: float = Field(0.01, ge=0, le=1)
    """Share of the searches that an idle replica makes again without the index, to tell how many of
    the right videos the index finds; of no effect where the index is exact."""
    explore: float = Field(0.0, ge=0, le=0.5)
    """Share of a list's places that go to new videos, drawn by how well they have done so far
    (Thompson sampling); a video is new for `rerank.new_days`."""
    events: str | None = None
    """The event log: a local path, sqlite:///PATH or postgresql://USER@HOST/NAME; without it
    live.sqlite in the run folder. SQLite serves the replicas of one machine."""
    held_users: int = Field(50_000, ge=0)
    """Users whose state a replica keeps until they do something again; about 4 kB each."""
    watch_s: float = Field(2.0, gt=0)
    """How often each replica looks whether another version of the bundle is to be served."""
    front: Literal["feed", "rows", "course"] = "feed"
    """What the web page opens with. `feed`: one list, which reorders with each reaction. `rows`:
    several, by reason. `course`: the next lesson, what to learn after it, and how far one is in
    each course (`data.video_columns.course`)."""
    files: bool = True
    """Whether the catalogue's own local video files are served, for the web page."""
    files_at: dict[str, FileServer] = {}
    """Folders of video files, as the catalogue's URIs begin, that another server has (nginx, a
    bucket, a CDN), and its address: `{/data/videos: "https://cdn.example/videos"}`. A request for
    such a file is sent there (status 307), so that its body passes by the replicas and HAProxy."""
    max_body_mib: int = Field(1, ge=1)
    """Largest body of a request, in MiB; a larger one is refused before it is read."""
    budget_ms: int = Field(1000, ge=1)
    """Longest that a request waits for the model, in milliseconds; then it is answered at once with
    a list for everybody that says so, or, where nothing can stand in for the answer, with status
    503."""
    uploads: str | None = None
    """Folder of the videos that are handed in: a path or URI that all replicas and encoders reach.
    Without it `uploads` beside the event log, where that is a file of SQLite."""
    max_upload_mib: int = Field(512, ge=1)
    """Largest video that is taken in, in MiB."""
    video_roots: tuple[str, ...] = ()
    """Folders and addresses (`https://HOST/FOLDER`, `s3://BUCKET/FOLDER`) below which a video may
    be handed in by its address. Without any, none may; no address inside a network is fetched."""
    encoders: int = Field(1, ge=0)
    """Processes that decode and encode videos that are handed in; with 0 each replica does it
    beside its requests."""
    encoder_gpus: float = Field(0, ge=0)
    """GPUs of each of them, perhaps a part of one."""
    max_waiting: int = Field(256, ge=1)
    """Most requests that one replica has taken in and not answered yet; one more is refused at
    once with status 503. So is a call for many users where as many others wait."""
    read_token: TokenReference | None = None
    """Where the tokens that reading asks for are: `env:NAME`, a variable of the server's
    environment, or `file:/PATH`; several stand in one place with white space between. Without it
    everybody may read. As with the next two the token itself is never in a config."""
    events_token: TokenReference | None = None
    """Where the tokens are that sending events and deleting a user's data ask for. Without it both
    are open to everybody, and the server listens on this machine's own address alone."""
    videos_token: TokenReference | None = None
    """Where the tokens are that changes of videos and versions ask for. Without it they are open on
    this machine's own address, and to nobody where the server listens on others."""

    @model_validator(mode="after")
    def _most_are_not_less(self) -> ServeConfig:
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(
                f"serve.max_replicas={self.max_replicas} is below serve.replicas={self.replicas}, "
                "the fewest; raise one or lower the other"
            )
        return self


class RefreshConfig(Section):
    """When `recsys refresh` publishes a new model."""

    metric: str | None = None
    """Metric of users that decides, such as `ndcg@10`, or `cold/ndcg@10` of a slice; without it
    NDCG at the headline cutoff."""
    allowed_loss: float = Field(0.05, ge=0, lt=1)
    """Share of the served model's figure that a new one may lose for being newer; with 0 only a
    proven gain is published."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """How sure it must be that no more than that is lost, by a paired test over users. Few users
    can show little: then the old model stays."""


class TuneConfig(Section):
    """The sweep."""

    trials: int | None = Field(None, ge=1)
    """How many configs are tried, the first of them, but in a grid, as it is; without it 8, or the
    whole grid. With `pbt` the members of a population, each of whose stretches is a trial."""
    concurrent: int | None = Field(None, ge=1)
    """Trials at a time; without it as many as the cluster has room for. With 1 the same sweep tries
    the same configs again, to the last one."""
    seed: int = 0
    """Decides which configs the search tries."""
    search: Literal["tpe", "random", "grid"] = "tpe"
    """How configs are chosen. `tpe`: where earlier trials did well (Optuna). `random`: anywhere.
    `grid`: every combination of the space's values, in order, or the first `trials` of them."""
    scheduler: Literal["asha", "hyperband", "pbt", "none"] = "asha"
    """What becomes of weak trials. `asha`: after 1, 4, 16 … epochs all but the best quarter end.
    `hyperband`: the same, and some trials are left alone for longer. `pbt`: nothing ends; every
    `perturb_every` epochs the worst quarter of the members goes on from the weights of the best
    quarter, with settings a little changed. `none`: nothing."""
    perturb_every: int = Field(1, ge=1)
    """With `pbt` the epochs of a stretch, after which members take over others' weights."""
    objective: dict[str, float] = Field({"score": 1.0}, min_length=1)
    """Validation figures and their weights; the sweep makes the weighted sum as large as it can. A
    weight below 0 asks for a small figure."""
    pareto: bool = False
    """Whether the search looks for the best trades between the objective's figures and not for the
    largest sum, which then only names the winner among them."""

    @property
    def is_population(self) -> bool:
        """Whether a population is trained, whose settings change on the way."""
        return self.scheduler == "pbt"


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
    refresh: RefreshConfig = RefreshConfig()
    tune: TuneConfig = TuneConfig()

    @model_validator(mode="after")
    def _known_tasks(self) -> RunConfig:
        tasks, orders = self.data.columns.tasks, ("retrieval", *self.data.columns.tasks)
        for unknown in sorted(self.train.task_weights.keys() - set(tasks)):
            raise ValueError(
                f"train.task_weights.{unknown} is no ranking task; data.columns.tasks has "
                f"{', '.join(tasks) or 'none'}"
            )
        if self.serve.rank not in orders:
            raise ValueError(f"serve.rank={self.serve.rank}: must be one of {', '.join(orders)}")
        return self

    @model_validator(mode="after")
    def _front_of_courses(self) -> RunConfig:
        if self.serve.front == "course" and self.data.video_columns.course is None:
            raise ValueError(
                "serve.front=course shows courses, and data.video_columns.course names none; name "
                "their column, or set serve.front=feed"
            )
        return self

    @model_validator(mode="after")
    def _trades_need_whole_trials(self) -> RunConfig:
        if self.tune.pareto and len(self.tune.objective) < 2:
            raise ValueError(
                "tune.pareto=true: a trade is between two figures or more, and tune.objective has "
                "one; name another, or set tune.pareto=false"
            )
        if self.tune.pareto and self.tune.scheduler != "none":
            raise ValueError(
                f"tune.scheduler={self.tune.scheduler}: it ends trials by one number, and "
                "tune.pareto=true has several; set tune.scheduler=none"
            )
        return self

    @model_validator(mode="after")
    def _stretches_of_a_population(self) -> RunConfig:
        if self.tune.perturb_every != 1 and not self.tune.is_population:
            raise ValueError(
                f"tune.perturb_every={self.tune.perturb_every} is for tune.scheduler=pbt, and it "
                f"is {self.tune.scheduler}; leave tune.perturb_every out, or set tune.scheduler=pbt"
            )
        return self

    @model_validator(mode="after")
    def _features_of_a_frozen_encoder(self) -> RunConfig:
        if self.decode.features and self.model.content.trains_encoder:
            raise ValueError(
                "decode.features=true keeps what a frozen encoder says of the frames, and this one "
                "is trained; set model.content.train_encoder=false or decode.features=false"
            )
        return self

    @model_validator(mode="after")
    def _capped_clips_of_a_trained_encoder(self) -> RunConfig:
        if self.train.step_clips is not None and not self.model.content.trains_encoder:
            raise ValueError(
                "train.step_clips is for a frame encoder that is trained, and this one is frozen: "
                "its features are stored; leave train.step_clips out, or set "
                "model.content.train_encoder=true"
            )
        return self

    @property
    def stores_features(self) -> bool:
        """Whether decode stores the frozen encoder's features in place of frames."""
        if self.decode.features is None:
            return not self.model.content.trains_encoder
        return self.decode.features

    @property
    def decodes(self) -> bool:
        """Whether video files are decoded and used."""
        columns = self.data.video_columns
        no_files = columns.uri is None or columns.vector is not None
        return not no_files and self.model.content.encoder != "none"

    @property
    def has_vectors(self) -> bool:
        """Whether ready-made content vectors are used."""
        return self.data.video_columns.vector is not None and self.model.content.encoder != "none"


def load_config(path: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Reads a run config.

    Args:
        path: A YAML file.
        overrides: `dotted.key=value` texts. A setting whose type is text takes the value as typed
            (`null` where it may be left out: none); any other is read as YAML, as its type asks.

    Raises:
        InputError: The file or an override is wrong; one line says which key, value and remedy.
    """
    tree = read_yaml(path, RunConfig)
    apply_overrides(tree, overrides, RunConfig)
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
    changed: dict[str, Any] = {"data": config.data.model_copy(update=data)}
    paths = {"data": ["live"], "evaluate": ["previous"], "train": ["start_from"]}
    for section, fields in {**paths, "serve": ["events", "uploads"]}.items():
        values = changed.get(section, getattr(config, section))
        given = {name: absolute(path) for name in fields if (path := getattr(values, name))}
        changed[section] = values.model_copy(update=given)
    return config.model_copy(update={**changed, "run": absolute(config.run)})


def parse_config(tree: object, source: str) -> RunConfig:
    """Makes a config of a plain tree; `source` is named in the message of an `InputError`."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise InputError(f"{source}: {explain(error, RunConfig)}") from None


def dump_config(config: RunConfig) -> str:
    """The config as YAML, complete, so that `load_config` gives the same one back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
