"""The model folder: what was trained, whole, in one place.

A trunk, a head and their description enter; a folder leaves that opens on
another machine without a network:

    model.json           format, classes, backbone, cut, preprocessing, head, options, versions, history, measures
    network.safetensors  the frozen part, and above it the tail if one was trained
    head.safetensors     the head
    images.csv           the images of the run by content: id, label, part
    SHA256SUMS           checksums of the files above (`sha256sum -c SHA256SUMS` agrees)

It is never a pickle and runs no code that it carries. A folder that is
edited, cut short, foreign or from a later format is refused.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch

from regraft.core import files, plugins
from regraft.core.errors import RefusedFile, UsageError
from regraft.core.version import __version__
from regraft.data.index import PARTS
from regraft.network import build
from regraft.network.engines import Choice
from regraft.network.runner import CutNetwork, Runner
from regraft.network.tensors import TensorFile, hash_tensors
from regraft.network.trunk import Tail, Trunk
from regraft.training import heads
from regraft.training.examples import Inputs
from regraft.training.history import History
from regraft.training.loop import probabilities
from regraft.training.losses import EVEN, Loss
from regraft.training.options import read_options

if TYPE_CHECKING:
    from regraft.data.index import Index
    from regraft.features.extract import Features

FORMAT = "regraft model"
FORMAT_VERSION = 2  # 1 had softmax alone
FILES = ("model.json", "network.safetensors", "head.safetensors", "images.csv")
SUMS = "SHA256SUMS"
TAIL = "tail."  # before the names of the tail's tensors in network.safetensors


@dataclass(frozen=True, kw_only=True, repr=False)
class Model:
    """A trained classifier: photographs in, probabilities of its classes out.

    trunk:    the frozen part, with the preprocessing that belongs to its weights.
    head:     what gives the logits, (n, outputs), from the features, or from what the tail makes of them.
    tail:     the network above the cut, if it was trained.
    loss:     what the logits mean.
    thresholds: where an image may have several labels, from which probability on each is said to be there.
    images:   id → (label, part) of the images of the run, so that a later evaluation knows what was trained on.
    measures: what was measured when it was trained, by part.
    run:      the sha256 of all that decided the training, so that a finished run is known again.
    """

    trunk: Trunk
    head: torch.nn.Module
    head_name: str
    head_options: Mapping[str, Any]
    classes: tuple[str, ...]
    loss: Loss = Loss()
    thresholds: tuple[float, ...] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    chosen: Mapping[str, Any] = field(default_factory=dict)
    history: History = field(default_factory=History)
    images: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    measures: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=lambda: versions())
    run: str = ""
    tail: Tail | None = None

    @cached_property
    def runner(self) -> Runner:
        """What runs the trunk here; on every engine the labels that the model is confident of must be the same."""
        return Runner(self.trunk, self.probabilities)

    @property
    def network(self) -> CutNetwork:
        """What runs the trunk, and the tail, to continue training from."""
        return CutNetwork(self.runner, self.tail)

    def __repr__(self) -> str:
        """Return one line, for a session."""
        recipe = self.trunk.recipe
        return f"<Model: {recipe.architecture} cut at {recipe.cut}, {self.head_name}, {len(self.classes)} classes>"

    def probabilities(self, features: Inputs) -> np.ndarray:
        """Return (n, n_classes) float64 probabilities of features (n, *trunk.output_shape).

        Rows sum to 1, unless an image may have several labels.
        """
        return probabilities(self.module, features, self.loss)

    def said(self, shares: np.ndarray) -> list[tuple[str, ...]]:
        """Return the labels that are said to be there, for each row of probabilities (n, n_classes) of several."""
        cuts = np.array(self.thresholds or [EVEN] * len(self.classes))
        return [tuple(np.array(self.classes, object)[row]) for row in shares >= cuts]

    @property
    def module(self) -> torch.nn.Sequential:
        """All that is above the frozen part: features (n, *trunk.output_shape) → logits."""
        return torch.nn.Sequential(*([self.tail.module] if self.tail else []), self.head)

    def part_of(self, identifier: str) -> str | None:
        """Return the part that an image with these bytes had when the model was trained, None if it had none."""
        known = self.images.get(identifier)
        return known[1] if known else None

    def save(self, folder: str | Path) -> None:
        """Write the model into `folder`, whole or not at all; a model that is there is replaced.

        Raises UsageError if something else is there, StoreError if the disk refuses.
        """
        folder = Path(folder)
        check_target(folder)
        with files.replacing_folder(folder) as fresh:
            contents = {
                "model.json": json.dumps(self._description(), indent=2, ensure_ascii=False).encode(),
                "network.safetensors": safetensors.numpy.save(self._network_tensors()),
                "head.safetensors": safetensors.torch.save(self.head.state_dict()),
                "images.csv": _images_csv(self.images),
            }
            for name, content in contents.items():
                files.write_file(fresh / name, content)
            sums = "".join(f"{hashlib.sha256(contents[name]).hexdigest()}  {name}\n" for name in FILES)
            files.write_file(fresh / SUMS, sums.encode())

    def _network_tensors(self) -> dict[str, np.ndarray]:
        tail = self.tail.network.tensors() if self.tail else {}
        return {**self.trunk.tensors(), **{TAIL + name: tensor for name, tensor in tail.items()}}

    def _description(self) -> dict[str, Any]:
        pool = self.tail.pool if self.tail else self.trunk.recipe.pool
        end = self.tail.end if self.tail else None
        shape = {"tail_output_shape": list(self.tail.output_shape)} if self.tail else {}
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "classes": list(self.classes),
            "trunk": {**self.trunk.describe(), "pool": pool, "end": end, "tail": self.tail is not None, **shape},
            "head": {"name": self.head_name, "options": dict(self.head_options)},
            "loss": {"name": self.loss.name, "several": self.loss.multilabel},
            "thresholds": self.thresholds,
            "options": dict(self.options),
            "chosen": dict(self.chosen),
            "versions": dict(self.versions),
            "measures": dict(self.measures),
            "history": self.history.to_list(),
            "run": self.run,
        }


def versions() -> dict[str, str]:
    """Return the versions of what decides a model's numbers."""
    packages = ("torch", "timm", "numpy", "pillow", "scikit-learn")
    return {
        "regraft": __version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{name: metadata.version(name) for name in packages},
    }


def check_target(folder: Path) -> None:
    """Raise UsageError if `folder` can't become a model without destroying something else."""
    if not folder.exists() or (folder.is_dir() and _is_ours(folder) and folder.resolve() != Path.cwd()):
        return
    raise UsageError(f"{folder} is there and is not a regraft model; nothing was written. Name another folder.")


def _is_ours(folder: Path) -> bool:
    """Tell an empty folder, or one with a model and nothing else, from what must not be replaced."""
    names = {path.name for path in folder.iterdir()}
    if "model.json" in names and names <= {*FILES, SUMS}:
        return f'"format": "{FORMAT}"' in (folder / "model.json").read_text("utf-8", errors="replace")[:1000]
    return not names


def load(folder: str | Path, choice: Choice) -> Model:
    """Open a model folder; raise RefusedFile if it is edited, cut short, foreign or from a later format.

    choice: what computes the frozen part here.
    """
    folder = Path(folder)
    try:
        description = _read_description(folder)
        _check_sums(folder)
        return _build(folder, description, choice)
    except RefusedFile:
        raise
    except Exception as error:  # a folder from elsewhere can be wrong in any way
        raise RefusedFile(f"{folder} is not a model that this regraft can open: {error}") from error


def _read_description(folder: Path) -> dict[str, Any]:
    if not folder.exists():
        raise RefusedFile(f"No model at {folder}. Train one with `regraft train SOURCE -o {folder}`.")
    path = folder / "model.json"
    if not path.is_file():
        raise RefusedFile(f"{folder} is not a regraft model: it has no model.json.")
    try:
        description = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise RefusedFile(f"{path} is damaged: it is not JSON.") from None
    if not isinstance(description, dict) or description.get("format") != FORMAT:
        raise RefusedFile(f"{folder} is not a regraft model: model.json has another format.")
    found = description.get("format_version")
    if not isinstance(found, int) or found < 1:
        raise RefusedFile(f"{folder} is not a regraft model: its format version is {found!r}.")
    if found > FORMAT_VERSION:
        raise RefusedFile(
            f"{folder} was made by a later regraft (format {found}; this one reads up to {FORMAT_VERSION}). "
            "Update regraft."
        )
    return description


def _check_sums(folder: Path) -> None:
    path = folder / SUMS
    if not path.is_file():
        raise RefusedFile(f"{folder} is cut short: {SUMS} is missing. Train it again, or copy it again.")
    lines = path.read_text("utf-8", errors="replace").splitlines()
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    for name in FILES:
        if not (folder / name).is_file() or name not in sums:
            raise RefusedFile(f"{folder} is cut short: {name} is missing. Train it again, or copy it again.")
        if files.sha256_file(folder / name) != sums[name]:
            raise RefusedFile(f"{folder / name} was changed after it was saved. Train it again, or copy it again.")


def _build(folder: Path, description: dict[str, Any], choice: Choice) -> Model:
    trunk, tail = _network(folder / "network.safetensors", description["trunk"], choice)
    head_name, head_options = description["head"]["name"], description["head"]["options"]
    plugin = plugins.load(heads, head_name)
    classes = tuple(description["classes"])
    loss = _loss(**description.get("loss", {}))
    _check_classes(classes, least=1 if loss.multilabel else 2)
    shape = tail.output_shape if tail else trunk.output_shape
    settings = read_options(plugin.Options, head_options, "option of the head")
    head = plugin.build(shape, loss.outputs(len(classes)), settings)
    weights = safetensors.torch.load_file(folder / "head.safetensors")
    if not all(bool(tensor.isfinite().all()) for tensor in weights.values()):
        raise RefusedFile(f"{folder / 'head.safetensors'} holds NaN or infinity.")
    head.load_state_dict(weights)
    return Model(
        trunk=trunk,
        tail=tail,
        head=head.eval(),
        head_name=head_name,
        head_options=head_options,
        classes=classes,
        loss=loss,
        thresholds=_thresholds(description.get("thresholds"), len(classes)),
        options=description["options"],
        chosen=description["chosen"],
        history=History.from_list(description["history"]),
        images=_read_images(folder / "images.csv"),
        measures=description["measures"],
        versions=description["versions"],
        run=str(description.get("run", "")),
    )


def _network(path: Path, description: Mapping[str, Any], choice: Choice) -> tuple[Trunk, Tail | None]:
    """Return the trunk, and the tail if one was trained."""
    has_tail = bool(description["tail"])
    trunk = build.restore(description, functools.partial(TensorFile, path, without=TAIL), choice, for_tail=has_tail)
    above = TensorFile(path, TAIL)
    if has_tail:
        end, pool = description.get("end"), description["pool"]  # models made before there was an end have none
        shape = description.get("tail_output_shape")
        return trunk, build.restore_tail(trunk, end, pool, shape, functools.partial(TensorFile, path, TAIL))
    if above:
        raise RefusedFile(f"{path} holds a tail of {len(above)} tensors, and the model's description has none.")
    return trunk, None


def _loss(name: str = "softmax", several: bool = False) -> Loss:
    if name not in ("softmax", "sigmoid") or not isinstance(several, bool):
        raise RefusedFile(f"The loss is {name!r}; expected softmax or sigmoid.")
    return Loss(name, several)  # type: ignore[arg-type]


def _thresholds(values: Any, count: int) -> tuple[float, ...] | None:
    if values is not None and (len(values) != count or not all(0 <= value <= 1 for value in values)):
        raise RefusedFile(f"The thresholds are {values!r}; expected one from 0 to 1 for each of {count} labels.")
    return None if values is None else tuple(map(float, values))


def _check_classes(classes: tuple[Any, ...], least: int) -> None:
    if len(classes) < least or len(set(classes)) < len(classes) or not all(isinstance(name, str) for name in classes):
        raise RefusedFile(f"The classes are {classes!r}; expected {least} or more different names.")


def _images_csv(images: Mapping[str, tuple[str, str]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("id", "label", "part"))
    writer.writerows((identifier, label, part) for identifier, (label, part) in images.items())
    return text.getvalue().encode()


def _read_images(path: Path) -> dict[str, tuple[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        images = {row["id"]: (row["label"], row["part"]) for row in csv.DictReader(file)}
    if odd := {part for _, part in images.values()} - set(PARTS):
        raise RefusedFile(f"{path} names parts that there are not: {', '.join(sorted(odd))}.")
    return images


def record_images(index: Index) -> dict[str, tuple[str, str]]:
    """Return what a model remembers of the images of its run: id → (label, part); without parts all were trained on.

    A picture of several parts counts as trained on if any copy was.
    """
    rows = sorted(index.used, key=lambda row: (row.part or "train") == "train")
    return {row.id: (row.label or "", row.part or "train") for row in rows}


def run_digest(features: Features, options: Mapping[str, Any], start: Model | None = None) -> str:
    """Return the sha256 of all that decides a training: images, labels, parts, groups, weights, options, versions.

    start: the model that it goes on from.
    """
    rows = sorted((row.id, row.label or "", row.part or "", row.group or "") for row in features.rows)
    tail = features.tail
    decides: list[Any] = [rows, features.trunk.digest, dict(options), versions()]
    decides += [tail.end, tail.pool, hash_tensors(tail.network.tensors())] if tail else []
    decides += [hash_tensors(start.head.state_dict())] if start else []
    return hashlib.sha256(json.dumps(decides, sort_keys=True, default=str).encode()).hexdigest()
