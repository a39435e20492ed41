import pytest

from recsys.decode.actor.plan import ActorPlan, Resources, plan_actors
from recsys.decode.actor.processes import ProcessSet

MANY = 1000
ONE_GPU = {"CPU": 16.0, "GPU": 1.0}


@pytest.mark.parametrize(
    ("has", "actors", "cpus", "gpus", "processes"),
    [
        # free cores, free GPUs, nodes → actors, cores of each, GPUs of each, processes of each
        (Resources(16.0, 1.0, [ONE_GPU]), 1, 16.0, 1.0, 16),
        (Resources(8.0), 8, 1.0, 0.0, 1),
        (Resources(64.0, 8.0, [{"CPU": 64.0, "GPU": 8.0}]), 8, 8.0, 1.0, 8),
        (Resources(2.0, 1.0, [{"CPU": 2.0, "GPU": 1.0}]), 1, 2.0, 1.0, 2),
        (Resources(32.0, 2.0, [ONE_GPU, ONE_GPU]), 2, 16.0, 1.0, 16),
        # A part of a GPU that others hold the rest of.
        (Resources(4.0, 0.5, [{"CPU": 4.0, "GPU": 1.0}]), 1, 4.0, 0.5, 4),
        (Resources(4.0, 0.33333, [{"CPU": 4.0, "GPU": 1.0}]), 1, 4.0, 0.3333, 4),
        # Every actor fits on the node with the fewest cores.
        (Resources(20.0, 2.0, [ONE_GPU, {"CPU": 4.0, "GPU": 1.0}]), 2, 4.0, 1.0, 4),
        # More GPUs than cores: one of them each.
        (Resources(2.0, 8.0, [{"CPU": 8.0, "GPU": 8.0}]), 2, 1.0, 1.0, 1),
        # Half of the cores are taken.
        (Resources(8.0, 1.0, [ONE_GPU]), 1, 8.0, 1.0, 8),
        # No node has both, or not every node: an actor could wait for ever.
        (Resources(8.0, 1.0, [{"CPU": 8.0}, {"GPU": 1.0}]), 8, 1.0, 0.0, 1),
        (Resources(8.0, 1.0, [{"CPU": 8.0}, {"CPU": 0.0, "GPU": 1.0}]), 8, 1.0, 0.0, 1),
        (Resources(24.0, 1.0, [{"CPU": 8.0}, ONE_GPU]), 24, 1.0, 0.0, 1),
        # Nothing is free: one actor that asks for no whole core.
        (Resources(0.0), 1, 0.0, 0.0, 1),
        (Resources(0.5), 1, 0.5, 0.0, 1),
        (Resources(0.0, 1.0, [ONE_GPU]), 1, 0.0, 0.0, 1),
    ],
)
def test_gpus_and_cores(
    has: Resources, actors: int, cpus: float, gpus: float, processes: int
) -> None:
    plan = plan_actors(None, num_videos=MANY, has=has)
    assert plan == ActorPlan(actors, cpus, gpus, ProcessSet(processes))
    assert plan.num_processes == actors * processes
    assert plan.actors * plan.cpus <= max(has.free_cpus, 1.0)


@pytest.mark.parametrize(
    ("wished", "num_videos", "has", "actors", "processes"),
    [
        (3, MANY, Resources(8.0), 3, 1),
        (64, MANY, Resources(2.0), 2, 1),
        (None, 3, Resources(16.0), 3, 1),
        (4, MANY, Resources(16.0, 1.0, [ONE_GPU]), 1, 4),
        (None, 3, Resources(16.0, 1.0, [ONE_GPU]), 1, 3),
        (3, MANY, Resources(32.0, 2.0, [ONE_GPU, ONE_GPU]), 2, 2),
        (1, MANY, Resources(32.0, 2.0, [ONE_GPU, ONE_GPU]), 1, 1),
    ],
)
def test_no_more_processes_than_wished_for_and_than_videos(
    wished: int | None, num_videos: int, has: Resources, actors: int, processes: int
) -> None:
    plan = plan_actors(wished, num_videos=num_videos, has=has)
    assert (plan.actors, plan.processes.on_cores) == (actors, processes)


def test_hardware_comes_beside_the_cores_and_only_with_a_gpu() -> None:
    with_gpu = plan_actors(
        None, num_videos=MANY, has=Resources(16.0, 1.0, [ONE_GPU]), in_hardware=4
    )
    assert with_gpu.processes == ProcessSet(16, 4) and with_gpu.num_processes == 20
    assert with_gpu.cpus == 16.0
    without = plan_actors(None, num_videos=MANY, has=Resources(16.0), in_hardware=4)
    assert without.processes == ProcessSet(1, 0)
