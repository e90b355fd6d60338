"""What a weights file of Keras's holds: its layers' names or kinds, their weights, and its description of them.

Three layouts enter: the legacy .h5 (a group a layer; weights alone, or a whole
model), Keras 3's .weights.h5, and .keras (a zip around one). Nothing is built
from a file, no link in it is followed, and no number is read here.
"""

from __future__ import annotations

import io
import itertools
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regraft.core.errors import RefusedFile, RegraftError, WeightsMissing, first_line

if TYPE_CHECKING:
    import h5py

SUFFIXES = (".h5", ".hdf5", ".keras")

_WEIGHTS, _CONFIG = "model.weights.h5", "config.json"
_LARGEST = {_WEIGHTS: 4 * 2**30, _CONFIG: 10 * 2**20}  # bytes; VGG19's weights are 575 MB
_LISTS = ("layers", "_layer_checkpoint_dependencies")  # where Keras 3 and Keras 2.12 to 2.15 keep a model's layers


@dataclass(frozen=True)
class File:
    """The layers of a file, in its order.

    legacy:      whether they have their own names; else they are counted by class: "conv2d", "conv2d_1", …
    weights:     the weights of each layer that has some.
    bare:        the layers that have none.
    description: class, settings and more of each layer, as Keras would build it; None if the file has none.
    """

    path: Path
    legacy: bool
    weights: Mapping[str, Sequence[h5py.Dataset]]
    bare: Sequence[str]
    description: Sequence[Mapping[str, Any]] | None


@contextmanager
def opened(path: Path) -> Iterator[File]:
    """Open a file while its weights are read; raise RefusedFile if it is not a weights file of Keras's."""
    import h5py

    if not path.is_file():
        raise WeightsMissing(f"The weights file {path} is missing.")
    try:
        source, config = _unzipped(path) if path.suffix == ".keras" else (path, None)
        with h5py.File(source, "r") as root:
            yield _file(path, root, config or root.attrs.get("model_config"))
    except RegraftError:
        raise
    except Exception as error:  # a damaged file can raise anything; it is named, and nothing of it is used
        raise RefusedFile(f"{path} can't be read as a file of Keras's weights: {first_line(error)}") from error


def _unzipped(path: Path) -> tuple[io.BytesIO, bytes]:
    """Return the weights in a .keras file, as a file, and its description of the layers."""
    with zipfile.ZipFile(path) as archive:
        unknown = sorted(set(archive.namelist()) - {_WEIGHTS, _CONFIG, "metadata.json"})
        if unknown:
            raise RefusedFile(f"{path} holds {unknown[0]!r}, which is not one of the three parts of a .keras file.")
        for name, limit in _LARGEST.items():
            if archive.getinfo(name).file_size > limit:
                raise RefusedFile(f"{name} in {path} is larger than the {limit} bytes that are expected at most.")
        return io.BytesIO(archive.read(_WEIGHTS)), archive.read(_CONFIG)


def _file(path: Path, root: h5py.File, config: str | bytes | None) -> File:
    group = next((_child(root, name) for name in _LISTS if name in root), None)
    if group is not None:
        layers = {name: _counted(path, _child(group, name)) for name in group}
    else:
        group = _child(root, "model_weights") if "model_weights" in root else root
        layers = {name: _named(path, _child(group, name)) for name in _strings(group, "layer_names")}
    return File(
        path=path,
        legacy=group.name not in {f"/{name}" for name in _LISTS},
        weights={name: weights for name, weights in layers.items() if weights},
        bare=[name for name, weights in layers.items() if not weights],
        description=None if config is None else json.loads(config)["config"]["layers"],
    )


def _counted(path: Path, layer: h5py.Group) -> list[h5py.Dataset]:
    """Return a layer's weights in Keras 3's layout: vars/0, vars/1, …"""
    weights = _child(layer, "vars") if "vars" in layer else {}
    return [_dataset(path, _child(weights, name)) for name in sorted(weights, key=int)]


def _named(path: Path, layer: h5py.Group) -> list[h5py.Dataset]:
    """Return a layer's weights in the legacy layout, in which an attribute lists their names."""
    return [_dataset(path, _child(layer, name)) for name in _strings(layer, "weight_names")]


def _strings(group: h5py.Group, name: str) -> list[str]:
    """Return the names that an attribute lists; a long list is split into "name0", "name1", …"""
    parts = itertools.takewhile(group.attrs.__contains__, (f"{name}{number}" for number in itertools.count()))
    lists = [group.attrs[part] for part in ([name] if name in group.attrs else parts)]
    return [text.decode() if isinstance(text, bytes) else str(text) for texts in lists for text in texts]


def _child(group: h5py.Group, path: str) -> Any:
    """Return what lies at a path in a group; links, which may point to other files, are not followed."""
    import h5py

    for name in path.split("/"):
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise RefusedFile(f"{group.file.filename} has no {name!r} in {group.name}, or a link instead of it.")
        group = group[name]
    return group


def _dataset(path: Path, item: Any) -> h5py.Dataset:
    import h5py

    if not isinstance(item, h5py.Dataset) or item.dtype.kind != "f" or item.is_virtual or item.external:
        raise RefusedFile(f"{path} holds {item.name}, which is not an array of floating-point numbers.")
    return item
