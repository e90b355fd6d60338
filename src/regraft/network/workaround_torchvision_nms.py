"""A torchvision whose compiled part does not load must not stop regraft.

The bug: https://github.com/pytorch/vision/issues/9085. `import torchvision`
fails with "operator torchvision::nms does not exist" where its compiled part
was built for another torch (CUDA builds beside a CPU build, versions that don't
match), though nothing here calls the operator: timm imports torchvision. The
missing operators are declared here by their schema alone; a call of one raises
torch's own error. A torchvision that works, or none, is left as it is.

Needed as long as pip installs a torchvision beside a torch that it was not
built for, and it registers `nms` without asking whether that exists: 0.28 does,
and the pull request that ends it (9086) was closed without being merged.
Everything that needs timm gets it here.
"""

from __future__ import annotations

import functools
import importlib.util
from types import ModuleType

from regraft.core.workaround_tqdm_widgets import import_tqdm

# torchvision/_meta_registrations.py registers fake implementations of exactly these without asking whether they exist.
_EXPECTED = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


@functools.cache
def ensure_torchvision() -> None:
    """Make `import torchvision` work if only its compiled operators stand in the way."""
    if importlib.util.find_spec("torchvision") is None or _imports():
        return
    import torch

    for name in _EXPECTED:
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", _SCHEMA)


def import_timm() -> ModuleType:
    """Return timm; torchvision, which timm imports, is made importable first."""
    ensure_torchvision()
    import_tqdm()
    import timm

    return timm  # type: ignore[no-any-return]


def _imports() -> bool:
    """Whether torchvision imports as it is; False if it lacks an operator. Other errors are not hidden."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        return False
    return True
