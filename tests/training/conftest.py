"""What every test of what is trained gets."""

import pytest
import torch

CUDA = pytest.param(
    "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")
)


@pytest.fixture(params=["cpu", CUDA])
def device(request):
    """Where to train: each kind of device that this machine has."""
    return request.param


@pytest.fixture(autouse=True)
def one_thread():
    """Compute with one thread: the tensors are tiny, and waiting for a core for a second one takes much longer."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
