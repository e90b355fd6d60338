"""A plug-in is a file, its name is the option's value, and it is imported on use.

To add one, write one file into the folder of its kind; no list is edited.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from regraft.core.errors import UnknownName


def names(package: ModuleType) -> list[str]:
    """Return the names of the plug-ins in a package's folder, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_"))


def load(package: ModuleType, name: str) -> ModuleType:
    """Import and return the plug-in `name`; raise UnknownName with the nearest one if there is none."""
    if name not in names(package):
        raise UnknownName.of(package.__name__.rpartition(".")[2].rstrip("s"), name, names(package))
    return importlib.import_module(f"{package.__name__}.{name}")
