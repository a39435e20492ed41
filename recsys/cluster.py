"""Connecting to Ray quietly, and knowing what it has to give."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from recsys.errors import InputError
from recsys.ray_address import joining, require_answer
from recsys.stopping import own_signals

logger = logging.getLogger(__name__)

T = TypeVar("T")

OWN_CGROUP, CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
"""Where Linux says which control group this process lies in, and what each of them allows."""
_BIT_OF_A_GPU = 0.001
"""So that a question finds room in whatever part of a GPU is free."""
_GPU_ANSWERS_S = 120.0
"""A process that answers may import PyTorch, on a node that was never used before."""

RAY_QUIET = {
    "LANCE_LOG": "error",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DEDUP_LOGS": "1",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # it would end a sweep as if it were done
}


def connect(*, dashboard: bool = False) -> None:
    """Joins the cluster that the process runs in, or starts a local Ray; once is enough.

    Ray's own hundreds of log lines stay in its log files; the project prints its few. Where the
    process has joined by itself, Ray's output is as it was set up there.

    Args:
        dashboard: Whether a Ray that is started has its dashboard, and with it the service that
            knows which actors live: it takes seconds to start.

    Raises:
        InputError: There is a cluster to join, and it does not answer.
    """
    for name, value in RAY_QUIET.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    # A checkpoint read in one process is meant to be.
    warnings.filterwarnings("ignore", message="torch.distributed is disabled")
    import ray

    if ray.is_initialized():
        return
    where = require_answer()
    with joining(where), own_signals(), _without_native_output():
        ray.init(
            log_to_driver=False,
            logging_level=logging.ERROR,
            include_dashboard=dashboard,
            runtime_env={"env_vars": {"PYTHONWARNINGS": "ignore"}},
        )
    _quiet()


@contextlib.contextmanager
def _without_native_output() -> Iterator[None]:
    """Drops what Ray's C++ side writes on standard error; exceptions come through as ever."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _quiet() -> None:
    import ray

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray.train", "ray.serve", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # They log what a task raised and raise that too; the command line says it in one line.
    for name in ("ray.data", "ray.tune"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def num_cpus() -> int:
    """CPUs that the cluster has, or may come to have."""
    return _most("CPU")


def num_gpus() -> int:
    """GPUs that the cluster has, or may come to have."""
    return _most("GPU")


def num_cores() -> int:
    """Cores that this process may use: those that it may run on, within its container's limit."""
    affine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, int(min(affine or 1, _cpu_limit())))


def _cpu_limit() -> float:
    """The lowest limit of the control groups (version 2) that this process lies in, in CPUs."""
    try:
        lines = OWN_CGROUP.read_text().splitlines()
    except OSError:
        return math.inf
    limit = math.inf
    for line in lines:
        if line.startswith("0::"):
            own = CGROUPS / line.removeprefix("0::").lstrip("/")
            for folder in (own, *own.parents):
                limit = min(limit, _own_limit(folder / "cpu.max"))
    return limit


def _own_limit(path: Path) -> float:
    """What a file `cpu.max` allows: microseconds of CPU in a period, or `max`."""
    try:
        quota, period = path.read_text().split()
    except (OSError, ValueError):
        return math.inf
    return math.inf if quota == "max" else int(quota) / int(period)


def node_has(resource: str) -> float:
    """What the node of this process has of a resource in all, used or not."""
    import ray

    own = ray.get_runtime_context().get_node_id()
    return sum(n["Resources"].get(resource, 0.0) for n in ray.nodes() if n["NodeID"] == own)


def has_gpu() -> bool:
    """Whether Ray has given this worker a GPU, or a part of one."""
    import ray

    if not ray.is_initialized():
        return False
    return bool(ray.get_runtime_context().get_accelerator_ids().get("GPU"))


def on_a_gpu(question: Callable[[], T], otherwise: T) -> T:
    """The answer of a process that Ray gives a bit of a GPU, to what only its node can know.

    A cluster's head often has no GPU, and other packages than the nodes that have.

    Args:
        question: What is asked; it and its answer are sent.
        otherwise: The answer where no GPU is free, or none answers in time, or its process dies.
    """
    import ray
    from ray.exceptions import RayError

    if not ray.is_initialized():
        return otherwise
    share = min(ray.available_resources().get("GPU", 0.0), _BIT_OF_A_GPU)
    if not share:
        return otherwise
    asked = ray.remote(
        num_cpus=0,
        num_gpus=share,
        max_calls=1,
        max_retries=0,
        scheduling_strategy="DEFAULT",  # a trial of Ray Tune else finds what is its own alone
    )
    asking = asked(question).remote()
    ready, _ = ray.wait([asking], timeout=_GPU_ANSWERS_S)
    if not ready:
        logger.warning("no process with a GPU has come in %g seconds", _GPU_ANSWERS_S)
        ray.cancel(asking, force=True)
        return otherwise
    try:
        answer: T = ray.get(asking)
    except RayError as error:
        said = str(error).strip().splitlines()[-1]
        logger.warning("a process with a GPU could not say what it is good for: %s", said)
        return otherwise
    return answer


def torch_sees_gpu() -> bool:
    """Whether PyTorch sees a GPU in this process; its CPU build never does."""
    import torch

    return torch.cuda.is_available()


def gpus_compute() -> bool:
    """Whether PyTorch sees the cluster's GPUs; True where none is free, and so none can be asked.

    Asked once a connection: it takes seconds.
    """
    import ray

    if not ray.is_initialized():
        return True
    return _gpus_compute(ray.get_runtime_context().get_job_id())


@functools.cache
def _gpus_compute(job: str) -> bool:
    return on_a_gpu(torch_sees_gpu, otherwise=True)


def _most(resource: str) -> int:
    """What there is of a resource; where nodes come with the work, what there can be at most."""
    import ray
    from ray._private.state import state

    with_all_nodes = state.get_max_resources_from_cluster_config() or {}
    there = ray.cluster_resources().get(resource, 0)
    return int(max(there, with_all_nodes.get(resource, 0)))


def tell_of_gpus(who: str, num: int, share: float) -> None:
    """Logs that actors may wait, where others have GPUs or parts of them.

    Ray adds up the parts that are free, and an actor's share lies on one GPU: halves of two are no
    whole one, and nothing tells which GPU the parts are of.

    Args:
        who: What the actors are for, as the line begins.
        num: Actors.
        share: GPUs of each, perhaps a part of one; 0 is none.
    """
    if not share:
        return
    import ray

    there = ray.cluster_resources().get("GPU", 0.0)
    free = ray.available_resources().get("GPU", 0.0)
    if free < there or num * share > free:
        logger.warning(
            "%s: %d × %g GPUs are needed, each on one GPU, and others have %g of %g: waiting where "
            "no GPU has the room",
            *(who, num, share, there - free, there),
        )


def leaving_nodes() -> set[str]:
    """Ray's ids of the nodes that have announced their end, as spot machines do."""
    from ray._private.state import state

    return set(state.get_draining_nodes())


def require(workers: int, *, gpu: bool) -> None:
    """Refuses more training workers than the cluster can ever run at once.

    Raises:
        InputError: With what to change; otherwise the job would wait for ever.
    """
    kind, there = ("GPU", num_gpus()) if gpu else ("CPU", num_cpus())
    if workers > there:
        raise InputError(
            f"train.workers={workers}: each takes one {kind} and the cluster has {there}; "
            f"set train.workers to at most {there} or add nodes"
        )
