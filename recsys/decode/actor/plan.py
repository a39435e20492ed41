"""How many decoding actors, and what each has of GPUs and cores, before any of them starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recsys.decode.actor.processes import ProcessSet


@dataclass(frozen=True)
class Resources:
    """What a cluster has for decoding."""

    free_cpus: float
    free_gpus: float = 0.0
    nodes: Sequence[Mapping[str, float]] = ()
    """What each node that is alive has in all, as Ray counts it (`CPU`, `GPU`)."""


@dataclass(frozen=True)
class ActorPlan:
    """Actors of one kind."""

    actors: int
    cpus: float
    """Cores of each."""
    gpus: float = 0.0
    """GPUs of each, perhaps a part of one."""
    processes: ProcessSet = ProcessSet()
    """Decoding processes of each."""

    @property
    def num_processes(self) -> int:
        """Decoding processes in all."""
        return self.actors * self.processes.num


def plan_actors(
    workers: int | None, *, num_videos: int, has: Resources, in_hardware: int = 0
) -> ActorPlan:
    """One actor a GPU with all its node's cores for it, or one a core where there are no GPUs.

    An actor that waits for what is not there would stop everything: none asks for more than is
    free, nor for a GPU and cores that no node has together. Where no core is free, there is one
    actor that asks for none.

    Args:
        workers: Decoding processes that are wished for in all; without it all there is room for.
        num_videos: What is to be decoded; more processes than videos would have nothing to do.
        has: What there is.
        in_hardware: Processes that each GPU gets for decoding in hardware, beside its cores'.

    >>> plan_actors(None, num_videos=100, has=Resources(2.0)).actors
    2
    >>> one_gpu = Resources(16.0, 1.0, [{"CPU": 16, "GPU": 1}])
    >>> plan_actors(None, num_videos=100, has=one_gpu, in_hardware=4)
    ActorPlan(actors=1, cpus=16.0, gpus=1.0, processes=ProcessSet(on_cores=16, in_hardware=4))
    """
    most = min(workers or num_videos, num_videos)
    cores_a_gpu = min((_cores_a_gpu(node) for node in has.nodes if node.get("CPU")), default=0)
    if has.free_gpus <= 0 or cores_a_gpu < 1 or has.free_cpus < 1:
        return ActorPlan(max(1, min(most, int(has.free_cpus))), min(1.0, has.free_cpus))
    actors = max(1, min(int(has.free_gpus), int(has.free_cpus), most))
    processes = max(1, min(cores_a_gpu, int(has.free_cpus) // actors, -(-most // actors)))
    gpus = int(1e4 * min(1.0, has.free_gpus)) / 1e4
    return ActorPlan(actors, float(processes), gpus, ProcessSet(processes, in_hardware))


def _cores_a_gpu(node: Mapping[str, float]) -> int:
    """Cores of a node for each GPU of it; 0 without any, and all for a part of one."""
    gpus = node.get("GPU", 0.0)
    return int(node["CPU"] / max(1.0, gpus)) if gpus else 0
