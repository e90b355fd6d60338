"""A torchvision whose compiled part does not load must not stop regraft.

timm imports torchvision, and torchvision's Python side insists on operators of
its compiled part even where nothing calls them. When they are missing (a CUDA
build of torchvision beside a CPU build of torch, or versions that don't match)
they are declared here by their schema alone: the import succeeds, and whoever
calls one is told by torch that it has no kernel. A torchvision that works, or
that is not there, is left as it is. Everything that needs timm gets it here.
"""

from __future__ import annotations

import functools
import importlib.util
from types import ModuleType

# torchvision registers a fake implementation for exactly these, without asking first whether they exist.
_INSISTED_ON = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


@functools.cache
def ensure_torchvision() -> None:
    """Make `import torchvision` work if only its compiled operators stand in the way."""
    if importlib.util.find_spec("torchvision") is None or _imports():
        return
    import torch

    for name in _INSISTED_ON:
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", _SCHEMA)


def import_timm() -> ModuleType:
    """Return timm, imported after torchvision has been seen to."""
    ensure_torchvision()
    import timm

    return timm  # type: ignore[no-any-return]


def _imports() -> bool:
    """Whether torchvision imports as it is; False if it misses an operator, other errors are not ours to hide."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        return False
    return True
