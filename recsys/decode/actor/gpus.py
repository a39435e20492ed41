"""What the cluster's GPUs are good for in decoding, as a process on one of their nodes finds it."""

from __future__ import annotations

from dataclasses import dataclass

from recsys import cluster
from recsys.decode.hardware.choice import Decoder, choose_decoder, look_around


@dataclass(frozen=True)
class GpuUses:
    """What a GPU can be used for."""

    decoder: Decoder = "cpu"
    """What decodes on it; `cpu` where nothing does."""
    encodes: bool = False
    """PyTorch sees it."""


def look() -> GpuUses:
    """What this process can use its GPU for."""
    return GpuUses(choose_decoder(look_around()), cluster.torch_sees_gpu())


def ask() -> GpuUses:
    """What a GPU that is free can be used for; nothing where none answers."""
    return cluster.on_a_gpu(look, otherwise=GpuUses())
