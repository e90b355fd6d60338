"""What every test of what is trained gets."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Compute with one thread: the tensors are tiny, and a second one that has to wait for a core costs much more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
