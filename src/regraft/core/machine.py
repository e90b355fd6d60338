"""What this machine has."""

from __future__ import annotations

import os


def cores() -> int:
    """Return how many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fast_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 faster than float32 (AVX-512 BF16, AMX), as PyTorch sees it."""
    import torch

    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # PyTorch before 2.10 does not say
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
