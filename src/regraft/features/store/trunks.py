"""Known trunks: what options came to once, so that the same options need neither timm nor PyTorch again.

A record says what a trunk is, which files its weights were read from, and the
digest of its tensors, which lie beside it. It holds as long as these files, the
options and the versions are the same. One that is damaged is ignored, and so
are tensors that are not those of the digest: the network is then built again.
Weights on a hub have no record: only timm can tell which file they are.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors.numpy

from regraft.core.errors import RefusedFile, StoreError
from regraft.core.files import PARTIAL, write_file
from regraft.core.progress import log
from regraft.core.version import versions
from regraft.network import build as building
from regraft.network import catalog, weights
from regraft.network.lazy_module import Tensors
from regraft.network.options import NetworkOptions
from regraft.network.tensors import TensorFile, hash_tensors
from regraft.network.trunk import Choice, Trunk
from regraft.network.weights import builtin

FORMAT = 1
NAME = re.compile(r"[0-9a-f]{64}\.(json|safetensors)")

Sources = dict[str, list[int]]  # a file's path → its size, and when it was changed


def build(folder: Path, options: NetworkOptions, choice: Choice, pool: str) -> Trunk:
    """Return the trunk that `options` ask for, known from a record in `folder`, or built and recorded now.

    Raises what `network.build.build` does.
    """
    sources = _sources(options)
    if sources is None:
        return building.build(options, choice, pool)
    path = folder / f"{_key(options, pool)}.json"
    known = _known(path, sources, options, choice, pool)
    if known is not None:
        building.warn_of_random(known, options.backbone)
        return known
    trunk = building.build(options, choice, pool)
    _record(path, sources, trunk)
    return trunk


def files(folder: Path) -> list[Path]:
    """Return the files in `folder` that are records or tensors, those that are being written too."""
    if not folder.is_dir() or folder.is_symlink():
        return []
    return [path for path in sorted(folder.iterdir()) if path.is_file() and not path.is_symlink() and _is_own(path)]


def _is_own(path: Path) -> bool:
    return bool(NAME.fullmatch(path.name) or (path.name.endswith(PARTIAL) and NAME.match(path.name[1:])))


def _key(options: NetworkOptions, pool: str) -> str:
    """Return the sha256 of the options and versions that decide a trunk."""
    values = {
        **{name: getattr(options, name) for name in ("backbone", "size", "resize", "cut")},
        "weights": str(Path(options.weights).absolute()) if weights.is_path(options.weights) else options.weights,
        "seed": options.seed if options.weights == "random" else None,
        "pool": pool,
        "versions": [versions()[name] for name in ("regraft", "torch", "timm")],
    }
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _sources(options: NetworkOptions) -> Sources | None:
    """Return the files that the weights are read from; None if that can't be told without timm."""
    if type(options.backbone) is not str:  # a module of the user's own
        return None
    if options.weights == "random":
        return {}
    if weights.is_path(options.weights):
        path = Path(options.weights).absolute()
        files = sorted(path.iterdir()) if path.is_dir() else [path]
    elif options.weights == "builtin":
        entry = next((entry for entry in catalog.families() if entry.name == options.backbone), None)
        installed = entry and builtin.find(entry)
        files = [installed] if installed else []
    else:
        return None
    return {str(path): _stamp(path) for path in files if path.is_file()} or None


def _stamp(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _known(path: Path, sources: Sources, options: NetworkOptions, choice: Choice, pool: str) -> Trunk | None:
    try:
        content = json.loads(path.read_bytes())
        record = content["record"]
        if content["sha256"] != _sha256(record) or record["format"] != FORMAT or record["sources"] != sources:
            return None
        rebuild = functools.partial(building.build, options, choice, pool)
        tensors = path.with_name(f"{record['tensors']}.safetensors")
        read = functools.partial(_read_tensors, tensors, record["tensors"], rebuild)
        return building.restore(record["trunk"], read, choice, digest=record["tensors"])
    except (OSError, ValueError, KeyError, TypeError, RefusedFile):
        return None


def _record(path: Path, sources: Sources, trunk: Trunk) -> None:
    """Write the record and the tensors; a disk that refuses means that the network is built again the next time."""
    record = {"format": FORMAT, "sources": sources, "tensors": trunk.frozen.digest, "trunk": trunk.describe()}
    tensors = path.with_name(f"{trunk.frozen.digest}.safetensors")
    try:
        if not tensors.exists():
            write_file(tensors, safetensors.numpy.save(dict(trunk.tensors())))
        write_file(path, json.dumps({"record": record, "sha256": _sha256(record)}, indent=2).encode())
    except StoreError as error:
        log.debug("The network is built again the next time: %s", error)


def _sha256(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _read_tensors(path: Path, digest: str, rebuild: Callable[[], Trunk]) -> Tensors:
    """Return the tensors of a digest: from the file, if it has them, else of the network built again."""
    try:
        tensors: Tensors = TensorFile(path)
        if hash_tensors(tensors) == digest:
            return tensors
    except (OSError, safetensors.SafetensorError):
        pass
    log.info("%s is missing or damaged; the network is built again.", path)
    tensors = rebuild().tensors()
    if hash_tensors(tensors) != digest:
        raise StoreError(f"The weights have changed since {path} was written. Start again.")
    return tensors
