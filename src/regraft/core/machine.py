"""What this machine has."""

from __future__ import annotations

import ctypes
import os
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def cores() -> int:
    """Return how many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fast_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 faster than float32 (AVX-512 BF16, AMX), as PyTorch sees it."""
    import torch

    capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # PyTorch before 2.10 does not say
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def keep_freed_memory() -> None:
    """Have the C library keep up to 1 GiB that is freed for what is wanted next; nothing but glibc needs it.

    By itself glibc gives large blocks back to the system at once, which then clears every page of the next ones: a
    tenth of the time of a network's training step.
    """
    if platform.libc_ver()[0] == "glibc":
        for option in (_TRIM_THRESHOLD, _MMAP_THRESHOLD):
            ctypes.CDLL(None).mallopt(option, 1 << 30)
