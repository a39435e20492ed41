import pytest
import torch
from torch import Tensor
from torch.nn import functional

from recsys.model.lookup import FEW_ROWS, look_up


@pytest.mark.parametrize("num_rows", [5, FEW_ROWS, FEW_ROWS + 1, 200])
@pytest.mark.parametrize("shape", [(300,), (6, 7), (0,)])
def test_a_gpus_backward_gives_torchs_gradient(
    num_rows: int, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    random = torch.Generator().manual_seed(0)
    rows = torch.randint(0, num_rows, shape, generator=random)
    weights = torch.randn(*shape, 3, generator=random)
    table = torch.randn(num_rows, 3, generator=random).requires_grad_()

    def learnt(found: Tensor) -> list[Tensor]:
        return [found, *torch.autograd.grad((found * weights).sum(), table)]

    expected = learnt(functional.embedding(rows, table))
    torch.testing.assert_close(learnt(look_up(table, rows)), expected, rtol=0, atol=0)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True, raising=False)
    quick = look_up(table, rows)
    assert "LookUp" in type(quick.grad_fn).__name__
    torch.testing.assert_close(learnt(quick), expected)


def test_a_popular_rows_gradient_is_added_up_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16 the sum of ones would stay at 256."""
    monkeypatch.setattr(torch.Tensor, "is_cuda", True, raising=False)
    table = torch.zeros(FEW_ROWS + 1, 1, dtype=torch.bfloat16, requires_grad=True)
    rows = torch.zeros(1000, dtype=torch.int64)
    (gradient,) = torch.autograd.grad(look_up(table, rows).sum(), table)
    assert gradient.dtype == torch.bfloat16
    assert gradient[0].item() == 1000
    assert not gradient[1:].any()
