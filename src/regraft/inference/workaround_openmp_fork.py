"""OpenMP, with which PyTorch and scikit-learn compute, hangs in a process that was forked after it had computed.

Its threads are not in the forked process, and it waits for them. With one
thread it waits for none, so a forked process computes with one.

https://gcc.gnu.org/bugzilla/show_bug.cgi?id=58378,
https://github.com/pytorch/pytorch/issues/17199. It may go once the test of it
passes without it.
"""

from __future__ import annotations

import sys
from typing import Any


def use_one_thread() -> None:
    """Have what is loaded of PyTorch and scikit-learn compute with one thread from now on."""
    torch: Any = sys.modules.get("torch")
    if torch:
        torch.set_num_threads(1)  # MKL's too, which has its own number
    if "sklearn" in sys.modules:
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        threadpool_limits(1, "openmp")
