"""From a video's frames, ids and categories to its vector.

Shapes: V videos of a step, M of them with a clip, S frames of a clip, Z features of a frame, Y
video vector.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from recsys.config.run import ContentConfig, ModelConfig
from recsys.features.inputs import ClipShape, VideoBatch
from recsys.model.dropout import Dropout
from recsys.model.embeddings import mean_by_bag
from recsys.model.frames import make_frame_encoder
from recsys.model.lookup import look_up

NUM_DURATION_BUCKETS = 32


class FrameCNN(nn.Module):
    """Frames (M, S, height, width, 3) uint8 -> features (M, S, Z), which are then projected.

    Where features are stored instead of frames, they are projected alone.
    """

    def __init__(self, config: ContentConfig, *, clip: ClipShape) -> None:
        super().__init__()
        self.encoder: nn.Module | None = None
        width = clip.feature_dim
        if width is None:
            self.encoder = make_frame_encoder(config.encoder)
            self.encoder.requires_grad_(config.trains_encoder)
            width = int(self.encoder.out_dim)  # type: ignore[arg-type]
        self.frozen = not config.trains_encoder
        self.checkpointed = config.gradient_checkpointing
        self.project = nn.Sequential(nn.Linear(width, config.frame_dim), nn.GELU())

    def forward(self, clips: Tensor) -> Tensor:
        """Encodes clips, frames or features: (M, S, frame dim)."""
        if self.encoder is None:
            features = clips.to(next(self.project.parameters()).dtype)
        else:
            M, S, height, width, _ = clips.shape
            frames = clips.reshape(M * S, height, width, 3).permute(0, 3, 1, 2).float() / 255
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
                features = self._encode(frames).reshape(M, S, -1)
        return self.project(features)

    def _encode(self, frames: Tensor) -> Tensor:
        assert self.encoder is not None
        if self.checkpointed and torch.is_grad_enabled():
            recomputed: Tensor = checkpoint(self.encoder, frames, use_reentrant=False)
            return recomputed
        encoded: Tensor = self.encoder(frames)
        return encoded


class ClipEncoder(nn.Module):
    """FrameCNN, then an LSTM over the S frames (or their mean): (M, S, …) -> (M, content dim)."""

    def __init__(self, config: ContentConfig, *, clip: ClipShape, dropout: float) -> None:
        super().__init__()
        self.frames = FrameCNN(config, clip=clip)
        self.lstm: nn.LSTM | None = None
        if config.temporal == "lstm":
            self.lstm = nn.LSTM(config.frame_dim, config.dim, batch_first=True)
        width = config.frame_dim + (config.dim if self.lstm else 0)
        # Frames name a video as well as its ID does: what is true of it alone shall go to the ID.
        # Of unit size from the first step on, or taste and content wait for each other to grow.
        self.out = nn.Sequential(
            Dropout(dropout), nn.Linear(width, config.dim), nn.LayerNorm(config.dim)
        )

    def forward(self, clips: Tensor) -> Tensor:
        """Encodes clips, frames or features: (M, content dim)."""
        features_MSZ = self.frames(clips)
        parts = [features_MSZ.mean(1)]
        if self.lstm is not None:
            parts.append(self.lstm(features_MSZ)[1][0][-1])
        return self.out(torch.cat(parts, -1))


class VideoEncoder(nn.Module):
    """Content ⊕ ID embedding ⊕ creator ⊕ categories ⊕ duration -> video vector (V, Y).

    In training the ID part of a random share of the videos is replaced by the unknown one, so
    that a video never seen before still has a good vector from its content (`batches.drop_ids`).
    Afterwards it is what training had on average, the same share of the unknown one in each
    (the weight scaling rule of Srivastava et al. 2014, "Dropout").
    """

    def __init__(self, config: ModelConfig, *, clip: ClipShape | None) -> None:
        super().__init__()
        self.id_dropout = config.id_dropout
        self.content: ClipEncoder | None = None
        if clip:
            self.content = ClipEncoder(config.content, clip=clip, dropout=config.dropout)
        content_dim = config.content.dim if clip else 0
        if clip:
            self.no_clip = nn.Parameter(torch.zeros(content_dim))
        self.cached_contents: Tensor | None = None
        """(N, content dim) of the catalogue, for steps that do not encode all their clips; made by
        whoever trains, and no part of the model's state."""
        self.duration = nn.Embedding(NUM_DURATION_BUCKETS, config.feature_dim)
        width = config.id_dim + config.feature_dim + content_dim
        # Parts that add up: with a hidden layer, creator and duration together name a video.
        self.mix = nn.Linear(2 * config.id_dim + width, config.dim)
        # Without video and creator, whose labels of the training days it would learn by heart.
        self.profile = nn.Linear(width, config.feature_dim)

    def forward(self, videos: VideoBatch, embedded: dict[str, Tensor]) -> Tensor:
        """Makes the vectors (V, Y): D numbers for retrieval, then the profile for ranking.

        Args:
            videos: The first is row 0, the unknown video.
            embedded: The embeddings of their rows, by table.
        """
        ids = embedded["video"]
        if not self.training:
            ids = torch.lerp(ids, ids[:1], self.id_dropout)
        described = [
            mean_by_bag(embedded["category"], videos.category_lengths),
            look_up(self.duration.weight, videos.durations),
        ]
        if self.content is not None:
            described.append(self._content(videos))
        vector = torch.cat([ids, embedded["creator"], *described], -1)
        profile = vector[:, -self.profile.in_features :]
        return torch.cat([self.mix(vector), self.profile(profile)], -1)

    def profile_of_content(self, contents: Tensor) -> Tensor:
        """What contents (V, content dim) add to the profile (V, F).

        A profile is a sum of what content, categories and duration add, so that what remains of a
        video's profile without the others, which are known of it, tells of its content.
        """
        return functional.linear(contents, self.profile.weight[:, -contents.shape[1] :])

    def profile_of_facts(
        self, categories: Tensor, category_lengths: Tensor, durations: Tensor
    ) -> Tensor:
        """What categories, embedded (R, D) and in bags, and durations (V,) add: (V, F)."""
        facts = torch.cat([mean_by_bag(categories, category_lengths), self.duration(durations)], -1)
        weight = self.profile.weight[:, : facts.shape[1]]
        return functional.linear(facts, weight, self.profile.bias)

    def _content(self, videos: VideoBatch) -> Tensor:
        assert self.content is not None and videos.clip_index is not None
        assert videos.clips is not None
        index = videos.clip_index
        if len(videos.clips):
            content = look_up(self.content(videos.clips), index.clamp(min=0))
            content = torch.where((index >= 0).unsqueeze(1), content, self.no_clip)
        else:
            content = self.no_clip.expand(len(index), -1)
        if videos.cached_rows is None:
            return content
        assert self.cached_contents is not None
        rows = videos.cached_rows.unsqueeze(1)
        return torch.where(rows >= 0, self.cached_contents[videos.cached_rows], content)
