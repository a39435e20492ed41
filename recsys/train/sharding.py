"""The sharded model: tables on meta → optimizer in backward → plan → DMP → dense optimizer.

TorchRec and FBGEMM are imported by the worker that trains and by nobody else: it takes seconds.
The update of the tables happens inside backward, so gradient clipping never reaches them.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, fx, nn
from torch.nn.parallel import DistributedDataParallel

from recsys.config.run import RunConfig
from recsys.errors import InputError
from recsys.features.inputs import Batch, Sizes, TableInputs
from recsys.model.embeddings import TableSpec, init_table
from recsys.model.recommender import Losses, Recommender, table_specs
from recsys.train.exchange import set_exchange
from recsys.train.placement import CACHED_SHARE, Card, choose_kernels
from recsys.train.steps import Step, StepLoss
from recsys.train.trainable import Trainable, make_adamw

if TYPE_CHECKING:
    from torchrec import KeyedJaggedTensor
    from torchrec.distributed.planner import EmbeddingShardingPlanner
    from torchrec.distributed.types import QuantizedCommCodecs, ShardingPlan

FUSED_EPS = 1e-8
QUIETED = ("torchrec", "fbgemm_gpu")


def have_torchrec() -> bool:
    """Whether TorchRec and FBGEMM are installed."""
    return all(importlib.util.find_spec(name) is not None for name in QUIETED)


@contextmanager
def quiet_torchrec() -> Iterator[None]:
    """Keeps TorchRec's and FBGEMM's hundreds of log lines out of the worker's output.

    Theirs alone, and their warnings while they are imported and the model is made; what others log
    and warn of is left as it is.
    """
    # TorchRec makes FX warn, once, of how TorchRec asks whether it is traced.
    for name in (*QUIETED, "torch.fx._symbolic_trace"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # FBGEMM logs through the root logger.
    logging.getLogger().addFilter(_is_for_the_user)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _is_for_the_user(record: logging.LogRecord) -> bool:
    """False for what the quieted libraries log below an error."""
    folders = Path(record.pathname).parts
    return record.levelno >= logging.ERROR or not any(name in folders for name in QUIETED)


class TraceableRecommender(Recommender):
    """The model as TorchRec's pipeline can trace it, with parameters of the same names."""

    def forward(self, batch: Batch) -> Losses:
        """The step's losses; to the tracer only what the tables are asked for."""
        if isinstance(batch, fx.Proxy):
            return self.tables(batch.videos.keyed)
        return super().forward(batch)


class ShardedTables(nn.Module):
    """TorchRec's tables with the signature of `PlainTables`."""

    def __init__(self, specs: Mapping[str, TableSpec]) -> None:
        super().__init__()
        from torchrec import EmbeddingCollection, EmbeddingConfig

        self.names = list(specs)
        self.collection = EmbeddingCollection(
            tables=[
                EmbeddingConfig(
                    name=name,
                    num_embeddings=spec.num_rows,
                    embedding_dim=spec.dim,
                    feature_names=[name],
                    init_fn=init_table,
                )
                for name, spec in specs.items()
            ],
            device=torch.device("meta"),
        )

    def keyed(self, inputs: TableInputs) -> KeyedJaggedTensor:
        """Makes one KeyedJaggedTensor of the rows that each table is asked for."""
        from torchrec import KeyedJaggedTensor

        return KeyedJaggedTensor(
            keys=self.names,
            values=torch.cat([inputs[name][0] for name in self.names]),
            lengths=torch.cat([inputs[name][1] for name in self.names]),
        )

    def forward(self, inputs: TableInputs | KeyedJaggedTensor) -> dict[str, Tensor]:
        """The rows' embeddings by table name, (R, dim) each; `inputs` may be keyed already."""
        embeddings = self.collection(self.keyed(inputs) if isinstance(inputs, Mapping) else inputs)
        return {name: embeddings[name].values() for name in self.names}


def build_sharded(config: RunConfig, sizes: Sizes, device: torch.device) -> Trainable:
    """The model sharded over the process group's workers.

    Raises:
        InputError: TorchRec is not installed.
    """
    if not have_torchrec():
        raise InputError(
            "train.tables=torchrec: torchrec and fbgemm are not installed; "
            "pip install 'recsys[cpu]' (or [gpu]), or set train.tables=plain"
        )
    with quiet_torchrec():
        return _build(config, sizes, device)


def _build(config: RunConfig, sizes: Sizes, device: torch.device) -> Trainable:
    from torch.distributed.optim import (
        _apply_optimizer_in_backward as apply_optimizer_in_backward,
    )
    from torchrec.distributed.embedding import EmbeddingCollectionSharder
    from torchrec.distributed.model_parallel import DistributedModelParallel
    from torchrec.optim.keyed import CombinedOptimizer, KeyedOptimizerWrapper
    from torchrec.optim.optimizers import in_backward_optimizer_filter
    from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

    tables = ShardedTables(table_specs(config.model, sizes))
    model = TraceableRecommender(config.model, sizes, tables=tables)
    apply_optimizer_in_backward(
        RowWiseAdagrad, tables.parameters(), {"lr": config.train.table_lr, "eps": FUSED_EPS}
    )
    sharders = [EmbeddingCollectionSharder(qcomm_codecs_registry=make_codecs(config, device))]
    planner = make_planner(table_specs(config.model, sizes), device, workers=dist.get_world_size())
    plan = planner.collective_plan(model, sharders, dist.GroupMember.WORLD)
    sharded = DistributedModelParallel(model, device=device, plan=plan, sharders=sharders)
    dense = KeyedOptimizerWrapper(
        dict(in_backward_optimizer_filter(sharded.named_parameters())),
        lambda parameters: make_adamw(parameters, config.train),
    )
    trainable = Trainable(
        module=sharded,
        model=unwrap(sharded),
        dense_optimizer=dense,
        optimizer=CombinedOptimizer([sharded.fused_optimizer, dense]),
        plan=describe_plan(plan),
        sharded=True,
        half=config.train.precision == "bfloat16",
    )
    if dist.get_world_size() > 1:
        (parallel,) = (m for m in sharded.modules() if isinstance(m, DistributedDataParallel))
        learnt = trainable.dense_parameters()
        trainable.local_steps = set_exchange(parallel, learnt, dense, config.train)
    return trainable


def make_codecs(config: RunConfig, device: torch.device) -> dict[str, QuantizedCommCodecs] | None:
    """What makes fewer bits of the rows and gradients that workers send each other; None: nothing.

    A worker that is alone sends none.
    """
    from torchrec.distributed.fbgemm_qcomm_codec import (
        CommType,
        QCommsConfig,
        get_qcomm_codecs_registry,
    )

    if config.train.exchange_precision == "float32" or dist.get_world_size() == 1:
        return None
    halves = QCommsConfig(forward_precision=CommType.BF16, backward_precision=CommType.BF16)
    return get_qcomm_codecs_registry(halves, device=device)


def make_planner(
    tables: Mapping[str, TableSpec], device: torch.device, *, workers: int
) -> EmbeddingShardingPlanner:
    """TorchRec's planner, told how large card and host are and which tables do not fit.

    Without it TorchRec takes 32 GB for every card, 128 GB of its host for each worker, and all
    workers to be on one machine.
    """
    from torchrec.distributed.comm import get_local_size
    from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology
    from torchrec.distributed.planner.types import ParameterConstraints
    from torchrec.distributed.types import CacheParams

    card = card_of(device, workers)
    if card is None:
        return EmbeddingShardingPlanner(topology=Topology(workers, device.type))
    on_host = ParameterConstraints(
        compute_kernels=["fused_uvm_caching"], cache_params=CacheParams(load_factor=CACHED_SHARE)
    )
    kernels = choose_kernels(tables, card)
    constraints = {name: on_host for name, kernel in kernels.items() if kernel != "fused"}
    local = get_local_size(workers)
    topology = Topology(
        workers,
        device.type,
        hbm_cap=card.memory_bytes,
        ddr_cap=host_bytes() // local,
        local_world_size=local,
    )
    return EmbeddingShardingPlanner(topology=topology, constraints=constraints)


def host_bytes() -> int:
    """The memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def card_of(device: torch.device, workers: int) -> Card | None:
    """This worker's card; None on a CPU."""
    if device.type != "cuda":
        return None
    return Card(torch.cuda.get_device_properties(device).total_memory, workers)


def describe_plan(plan: ShardingPlan) -> str:
    """The planner's plan in one line: how each table is cut, and the workers that hold it."""
    parts = []
    for tables in plan.plan.values():
        for name, place in tables.items():
            workers = ", ".join(str(rank) for rank in place.ranks)
            parts.append(f"{name} {place.sharding_type}, {place.compute_kernel} on {workers}")
    return "; ".join(parts)


def unwrap(module: nn.Module) -> Recommender:
    """The model inside DMP and DDP; its tables stay sharded."""
    while isinstance(inner := getattr(module, "module", None), nn.Module):
        module = inner
    assert isinstance(module, Recommender)
    return module


class PipelinedSteps:
    """`TrainPipelineSparseDist`: while a batch is computed with, the next one's rows are sent for.

    The copy of the batch after it and the exchange of the rows that the workers ask each other for
    run on streams of their own. The steps and their results are those of `SingleSteps`.
    """

    def __init__(
        self, trainable: Trainable, step_loss: StepLoss, device: torch.device, clip_norm: float
    ) -> None:
        from torchrec.distributed.train_pipeline import TrainPipelineSparseDist
        from torchrec.streamable import Pipelineable

        Pipelineable.register(Batch)
        self.trainable, self.step_loss = trainable, step_loss
        self._given: Iterator[Batch] | None = None
        self._keyed: Iterator[Batch] = iter(())
        self.pipeline = TrainPipelineSparseDist(
            model=trainable.module,
            optimizer=_Clipped(trainable, clip_norm),
            device=device,
            custom_model_fwd=self._forward,
        )

    def next_step(self, batches: Iterator[Batch]) -> Step | None:
        """Learns from the next batch; None where there is no other one.

        The pipeline reads ahead: it wants the same iterator until that is used up.
        """
        if batches is not self._given:
            self._given, self._keyed = batches, map(self._with_keys, batches)
        try:
            step: Step = self.pipeline.progress(self._keyed)
        except StopIteration:
            self._given = None
            self.pipeline.detach()  # validation and checkpoints want the tables as they were
            return None
        return step

    def _with_keys(self, batch: Batch) -> Batch:
        videos = batch.videos
        videos.keyed = self.trainable.model.tables.keyed(videos.table_inputs())  # type: ignore[operator]
        return batch.pinned() if torch.cuda.is_available() else batch

    def _forward(self, batch: Batch) -> tuple[Tensor, Step]:
        losses = self.trainable.losses(batch)
        return self.step_loss(losses, batch), (losses, batch)


class _Clipped:
    """The optimizer as the pipeline steps it."""

    def __init__(self, trainable: Trainable, clip_norm: float) -> None:
        self.trainable, self.clip_norm = trainable, clip_norm

    def zero_grad(self) -> None:
        self.trainable.optimizer.zero_grad()

    def step(self) -> None:
        self.trainable.update(self.clip_norm)
