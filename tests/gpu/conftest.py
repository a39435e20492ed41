import pytest
import torch


@pytest.fixture
def gpu() -> torch.device:
    """The first GPU; a test that asks for it is skipped where there is none."""
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU")
    return torch.device("cuda", 0)
