"""PyTorch, on the processor or a CUDA GPU: in float32 the engine that the others are checked against."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from regraft.core.machine import fast_bfloat16

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import nn

    from regraft.network.engines import Engine

BATCH, GPU_BATCH = 4, 64  # images; on a processor each core has its own batch, and more were no faster


def precisions() -> list[str]:
    """Return float32, after bfloat16 where the hardware multiplies it faster."""
    import torch

    gpu = torch.cuda.is_available()
    fast = torch.cuda.is_bf16_supported(including_emulation=False) if gpu else fast_bfloat16()
    return ["bfloat16", "float32"] if fast else ["float32"]


def version() -> str:
    """Return PyTorch's."""
    import torch

    return str(torch.__version__)


def build(
    module: nn.Module,
    size: int,  # noqa: ARG001 (all engines alike)
    precision: str,
    folder: Path,  # noqa: ARG001
    calibration: Callable[[int], np.ndarray],  # noqa: ARG001
) -> Engine:
    """Return the engine; nothing has to be converted."""
    import torch

    return _Torch(module, torch.bfloat16 if precision == "bfloat16" else None)


class _Torch:
    def __init__(self, module: nn.Module, lower: torch.dtype | None) -> None:
        import copy

        import torch

        self._gpu = torch.cuda.is_available()
        self._module = copy.deepcopy(module).cuda() if self._gpu else module
        self._lower = lower
        self._lock = threading.Lock()  # a GPU takes one batch after another
        self.batch = GPU_BATCH if self._gpu else BATCH

    def __call__(self, squares: np.ndarray) -> np.ndarray:
        import torch

        if not self._gpu:
            return run(self._module, torch.from_numpy(squares), self._lower)
        with self._lock:
            return run(self._module, torch.from_numpy(squares).pin_memory().cuda(non_blocking=True), self._lower)


def run(module: nn.Module, squares: torch.Tensor, lower: torch.dtype | None = None) -> np.ndarray:
    """Return what a module in eval mode makes of squares, (n, S, S, 3) uint8 → (n, …) float32, its own memory.

    lower: the type that products are computed in, where autocast holds it safe; none: float32.
    """
    import numpy as np
    import torch

    with torch.no_grad(), torch.autocast(squares.device.type, lower, enabled=lower is not None):
        features: torch.Tensor = module(squares)
    return np.array(features.float().cpu().numpy(), np.float32, order="C")
