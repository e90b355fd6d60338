"""PyTorch, on the processor or a CUDA GPU: in float32 the engine that the others are checked against."""

from __future__ import annotations

import ctypes
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from regraft.core.errors import UsageError
from regraft.core.machine import fast_bfloat16
from regraft.core.version import versions

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from regraft.inference.engines import Engine, LoadModule, Sample

BATCH, GPU_BATCH = 4, 64  # images; on a processor each core has its own batch, and more were no faster


def precisions() -> list[str]:
    """Return float32, after bfloat16 where the hardware multiplies it faster."""
    import torch

    gpu = torch.cuda.is_available()
    fast = torch.cuda.is_bf16_supported(including_emulation=False) if gpu else fast_bfloat16()
    return ["bfloat16", "float32"] if fast else ["float32"]


def has_gpu() -> bool:
    """Whether PyTorch has a CUDA GPU here; where there is no driver of one, PyTorch is not asked, nor imported."""
    if sys.platform == "darwin" or not _has_driver():
        return False
    import torch

    return torch.cuda.is_available()


def _has_driver() -> bool:
    try:
        ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return False
    return True


def version() -> str:
    """Return PyTorch's."""
    return versions()["torch"]


def build(
    load: LoadModule,
    size: int,  # noqa: ARG001 (all engines alike)
    precision: str,
    folder: Path,  # noqa: ARG001
    calibration: Sample,  # noqa: ARG001
) -> Engine:
    """Return the engine; nothing has to be converted."""
    import torch

    return _Torch(load(), torch.bfloat16 if precision == "bfloat16" else None)


class _Torch:
    def __init__(self, module: nn.Module, lower: torch.dtype | None) -> None:
        import torch

        self._gpu = torch.cuda.is_available()
        self._module = _on_gpu(module) if self._gpu else module
        self._lower = lower
        self._lock = threading.Lock()  # a GPU takes one batch after another
        self.batch = GPU_BATCH if self._gpu else BATCH

    def __call__(self, images: np.ndarray) -> np.ndarray:
        import torch

        if not self._gpu:
            return run(self._module, torch.from_numpy(images), self._lower)
        with self._lock:
            return run(self._module, torch.from_numpy(images).pin_memory().cuda(non_blocking=True), self._lower)


def _on_gpu(module: nn.Module) -> nn.Module:
    """Return a copy of a module on the GPU; raise UsageError in a process that was forked after the GPU was used."""
    import copy

    try:
        return copy.deepcopy(module).cuda()
    except RuntimeError as error:
        if "forked" not in str(error):
            raise
        raise UsageError(
            "This process was forked after PyTorch had used the GPU, which it can't use here. Load the model after "
            "the fork, start processes with the method 'spawn', or use --engine openvino."
        ) from error


def run(module: nn.Module, images: torch.Tensor, lower: torch.dtype | None = None) -> np.ndarray:
    """Return the features of images by a module in eval mode: (n, S, S, 3) uint8 → (n, …) float32, its own memory.

    lower: the type that products are computed in, where autocast considers it safe; None: float32.
    """
    import numpy as np
    import torch

    with torch.no_grad(), torch.autocast(images.device.type, lower, enabled=lower is not None):
        features: torch.Tensor = module(images)
    return np.array(features.float().cpu().numpy(), np.float32, order="C")
