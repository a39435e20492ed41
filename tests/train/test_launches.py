"""How many operations a step starts on a GPU, which waits for the CPU where they are many."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from recsys.model import user
from recsys.train.loss import LossWeights
from recsys.train.steps import SingleSteps
from recsys.train.trainable import build_plain
from tests.steps import SIZES, make_batch, make_config

CPU = torch.device("cpu")
VIEWS = set(
    "_indices _reshape_alias _sparse_coo_tensor_with_dims_and_tensors _unsafe_view _values alias "
    "as_strided detach empty empty_like empty_strided expand lift_fresh new_empty permute select "
    "slice split split_with_sizes squeeze t transpose unbind unsqueeze view".split()
)
MOST = 320
"""A few more than the step of this little world takes."""
SORTING = ("embedding_dense_backward", "index_put", "index_put_", "_index_put_impl_", "sort")


class Operations(TorchDispatchMode):
    """Counts the operations that compute something, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if name.partition("::")[0] not in {*VIEWS, "profiler"}:
            self.counts[name] += 1
        return func(*args, **kwargs or {})


def lstm_of_torch(lstm: nn.LSTM, inputs: Tensor) -> Tensor:
    states: Tensor = lstm(inputs)[0]
    return states


def steps_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has a CPU compute as the model has a GPU do."""
    monkeypatch.setattr(torch.Tensor, "is_cuda", True, raising=False)
    monkeypatch.setattr(user, "run_lstm", lstm_of_torch)


def learnt() -> tuple[list[Tensor], Counter[str]]:
    """The losses of three steps and the weights after them, and what the last step started."""
    torch.manual_seed(0)
    config = make_config()
    trainable = build_plain(config, SIZES, CPU)
    trainable.module.train()
    weights = LossWeights.of(config, CPU)
    steps = SingleSteps(trainable, weights.combine, CPU, config.train.clip_norm)
    losses = []
    for batch in [make_batch(number) for number in range(3)]:
        with Operations() as operations:
            step = steps.next_step(iter([batch]))
        assert step is not None
        losses += [step[0].retrieval.detach(), step[0].tasks.detach()]
    return [*losses, *trainable.model.state_dict().values()], operations.counts


def test_a_step_starts_few_operations_and_sorts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    steps_of_a_gpu(monkeypatch)
    _, counts = learnt()
    assert sum(counts.values()) <= MOST, counts.most_common()
    # What is known of a user: few rows, which torch does not sort on a GPU.
    assert {name: counts[name] for name in SORTING if counts[name]} == {
        "embedding_dense_backward": 1
    }


def test_a_gpus_way_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = learnt()
    steps_of_a_gpu(monkeypatch)
    torch.testing.assert_close(learnt()[0], expected, rtol=1e-4, atol=1e-5)
