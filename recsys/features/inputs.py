"""What the model takes in: the data's sizes, and one step's tensors.

Shapes: B timelines, L positions, V distinct videos of a step, M of them with a clip, S frames of a
clip, Z features of a frame, T tasks, A actions (the positive flag, the tasks, how long it was
watched), C context columns, F count features, J columns of user features, R rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torchrec import KeyedJaggedTensor

T = TypeVar("T")
TableInputs = Mapping[str, tuple[Tensor, Tensor]]
"""Table name -> (rows (R,) int64, lengths (V,) int64): a bag of rows for each of V videos."""


@dataclass(frozen=True)
class ClipShape:
    """What is stored of a clip: S frames of size × size pixels, or S × feature_dim features."""

    frames: int
    size: int
    feature_dim: int | None = None


@dataclass(frozen=True)
class Sizes:
    """What the data say of the model's size; row 0 of every vocabulary is "unknown"."""

    num_videos: int
    num_creators: int
    num_categories: int
    context_sizes: tuple[int, ...]
    num_tasks: int
    num_count_features: int
    """F: the length of the `features.counts.CountLayout`."""
    watch_dim: int = 0
    """W: numbers that say how long a video was watched; 0 where no column says so."""
    clip: ClipShape | None = None
    num_user_values: int = 0
    """Rows of the vocabulary of user values; 0 where nothing is known of users."""

    @property
    def num_actions(self) -> int:
        """A: what a user may do with a video: like it, each task, watch it for so long."""
        return 1 + self.num_tasks + self.watch_dim


@dataclass
class VideoBatch:
    """Some videos, as tensors; each video occurs once however often it is looked at."""

    id_rows: Tensor
    """(V,) int64 row of the video table; 0 for a video without an ID embedding of its own."""
    creator_rows: Tensor
    """(V,) int64."""
    category_rows: Tensor
    """(R,) int64, the videos' categories one after the other."""
    category_lengths: Tensor
    """(V,) int64."""
    durations: Tensor
    """(V,) int64 bucket."""
    clips: Tensor | None = None
    """(M, S, height, width, 3) uint8 frames or (M, S, Z) float16 features."""
    clip_index: Tensor | None = None
    """(V,) int64 position in `clips`; -1 where the video has none."""
    cached_rows: Tensor | None = None
    """(V,) int64 row of a video whose clip is left out and whose cached content vector is taken;
    -1 for the others. None where all clips are there."""
    keyed: KeyedJaggedTensor | None = None
    """`table_inputs` as TorchRec's KeyedJaggedTensor, where it was made beforehand."""

    def table_inputs(self) -> TableInputs:
        """What the embedding tables are asked for."""
        one = torch.ones_like(self.id_rows)
        return {
            "video": (self.id_rows, one),
            "creator": (self.creator_rows, one),
            "category": (self.category_rows, self.category_lengths),
        }


@dataclass
class RequestContext:
    """What is known of a request when it is made, whatever the video; of any leading shape."""

    gaps: Tensor
    """(…) int64 bucket of the time since the user's last event."""
    hours: Tensor
    """(…) int64 hour of the day."""
    num_prior: Tensor
    """(…) int64 how many strictly earlier events the user has."""
    tallies: Tensor
    """(…, A) float32: the sum over them of what the user did: how often, how long."""
    context_rows: Tensor
    """(…, C) int64."""

    def __getitem__(
        self, index: int | slice | list[int] | Tensor | tuple[int | slice | Tensor, ...]
    ) -> RequestContext:
        """The contexts of some of the requests, by an index of the leading shape."""
        return RequestContext(**{name: value[index] for name, value in vars(self).items()})

    def split(self, size: int) -> tuple[RequestContext, ...]:
        """The contexts of `size` requests at a time, as `Tensor.split` gives them."""
        return tuple(self[i : i + size] for i in range(0, max(len(self.gaps), 1), size))


@dataclass
class EventBatch:
    """Padded timelines as tensors: `EventArrays` without the videos.

    The videos' vectors are given beside it.
    """

    actions: Tensor
    """(B, L, A) float32."""
    num_prior: Tensor
    """(B, L) int64: how many of the timeline's events are strictly earlier."""
    context: RequestContext
    """(B, L) what was known of the request when each video was shown."""
    count_features: Tensor
    """(B, L, F) float32: what was known of the video's counts then."""
    user_rows: Tensor
    """(B, J) int64: what is known of the users."""


@dataclass
class Batch:
    """One training step's input."""

    videos: VideoBatch
    """The V distinct videos of the step: histories, targets and negatives; the first is row 0."""
    log_q: Tensor
    """(V,) log of the chance that a video is among the step's candidates; inf for a video that
    is no candidate."""
    events: EventBatch
    video_index: Tensor
    """(B, L) int64 position among the V videos."""
    learn: Tensor
    """(B, L) bool: positions whose outcome is learnt from."""
    queries: Tensor
    """(P,) int64 the positive ones among them, counted along all B · L. They are found where the
    batch is made: a GPU that were asked how many there are would have to be waited for."""
    num_learnt: Tensor
    """(2,) float32: how many positive events and how many events in all the workers learn from in
    this step, as a mean over the workers; what the losses' sums are divided by."""
    user_ids: tuple[str, ...] = ()
    """(B,) whose timelines they are; none in a step that teaches nothing."""

    def to(self, device: torch.device, non_blocking: bool = False) -> Batch:
        """The same batch on a device."""
        return mapped(self, lambda value: value.to(device, non_blocking=non_blocking))

    def pinned(self) -> Batch:
        """The same batch in memory that a GPU copies from on the side."""
        return mapped(self, lambda value: value.pin_memory())

    def record_stream(self, stream: torch.Stream) -> None:
        """Tells the allocator that a stream uses the batch."""
        mapped(self, lambda value: value.record_stream(stream))


def mapped(value: T, change: Callable[[Any], Any]) -> T:
    """The same structure with every tensor in it changed."""
    if hasattr(value, "__dataclass_fields__"):
        fields = {name: mapped(part, change) for name, part in vars(value).items()}
        return type(value)(**fields)
    return change(value) if hasattr(value, "record_stream") else value


def move(value: T, device: torch.device) -> T:
    """The same batch, or a part of one, on a device."""
    return mapped(value, lambda part: part.to(device, non_blocking=True))
