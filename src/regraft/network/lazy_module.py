"""A module that is only tensors until PyTorch has to run it.

What is done with tensors alone, hashing, saving, NumPy's products, needs no
PyTorch, whose import takes longer than a prediction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from regraft.network.tensors import hash_tensors, to_numpy

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

Tensors = Mapping[str, "np.ndarray"]


class LazyModule:
    """Tensors by name, and the torch module that holds them, which is built when it is first asked for.

    read:  returns the tensors, which need not stay in memory.
    build: returns the module for such tensors, and raises RefusedFile if they are not those that it needs.
    part:  the path of the submodule whose tensors they are; "": the module itself.
    digest: the sha256 of the tensors, if it is known.

    Once the module is built, the tensors are those that it holds.
    """

    def __init__(
        self,
        read: Callable[[], Tensors],
        build: Callable[[Tensors], nn.Module],
        part: str = "",
        *,
        module: nn.Module | None = None,
        digest: str | None = None,
    ) -> None:
        self._read, self._build, self._part, self._module = read, build, part, module
        if digest is not None:
            self.digest = digest

    @classmethod
    def of(cls, module: nn.Module, part: str = "") -> LazyModule:
        """Return one for a module that is built already."""
        return cls(dict, _built_already, part, module=module)

    @property
    def module(self) -> nn.Module:
        """The module; building it takes PyTorch, and mostly timm."""
        if self._module is None:
            self._module = self._build(self._read())
        return self._module

    def tensors(self) -> Tensors:
        """Return the tensors as they are now."""
        return self._read() if self._module is None else to_numpy(self._module.get_submodule(self._part))

    @cached_property
    def digest(self) -> str:
        """The sha256 of the tensors as they were when it was first asked for: of a module that is not trained."""
        return hash_tensors(self.tensors())


def _built_already(tensors: Tensors) -> nn.Module:
    raise AssertionError(f"{len(tensors)} tensors were to be built into a module that exists")
