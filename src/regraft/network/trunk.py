"""The trunk: the frozen part of a network, with all that decides what it says of an image.

The options of a run, or a model folder's description and tensors, enter; a
`Trunk` leaves, and on request a copy of the network above it, to be trained.
No gradient reaches the trunk and nothing puts it into training mode. What it
says is kept by `store`; what is trained on top is left to `graft/`.
"""

from __future__ import annotations

import bisect
import copy
import dataclasses
import hashlib
import json
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import fx, nn

from regraft.core.errors import RefusedFile, RegraftError, UsageError
from regraft.core.options import require_choice
from regraft.core.progress import log
from regraft.core.text import listed
from regraft.data.decode import DECODE_RULES
from regraft.features.store import Stored
from regraft.network import agreement, catalog, input_size, weights
from regraft.network.agreement import Choice, Judge, Sample
from regraft.network.backbones import Backbone
from regraft.network.cut import Cut, find_cut, first_line, list_cuts, take_mean
from regraft.network.engines import Engine
from regraft.network.options import EngineOptions, NetworkOptions, TailOptions
from regraft.network.preprocess import Preprocess
from regraft.network.tensors import hash_tensors
from regraft.network.weights import file
from regraft.network.workaround_torchvision_nms import import_timm

_starting = threading.RLock()
TAIL = "tail."  # before the names of the tail's tensors, in a model folder


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a trunk is made, beside its tensors."""

    architecture: str  # timm's name
    model_args: Mapping[str, Any]
    cut: str  # a module's path, "pooled" or "input"
    pool: str  # "mean" or "none"
    preprocess: Preprocess
    weights: Mapping[str, Any]  # where they came from; decides nothing
    end: str | None = None  # where the tail ends: a module's path; None: at the network's own end


class Frozen(nn.Module):
    """Normalises, runs a body that stays in eval mode and has no gradient, takes the mean over places of a map."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, body: nn.Module, preprocess: Preprocess, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.body, self.axes = body, axes
        mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (preprocess.mean, preprocess.std))
        self.register_buffer("scale", 1 / (255 * std), persistent=False)
        self.register_buffer("shift", -mean / std, persistent=False)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Frozen:  # noqa: ARG002
        """Stay in eval mode: frozen is frozen."""
        return super().train(False)

    def forward(self, squares: torch.Tensor) -> torch.Tensor:
        """Return the features of `squares`: (n, S, S, 3) uint8 → (n, …)."""
        images = squares.permute(0, 3, 1, 2).float() * self.scale + self.shift  # channels-last as it lies
        features: torch.Tensor = self.body(images)
        return features.mean(self.axes) if self.axes else features


class Trunk:
    """The frozen part below the cut: (n, S, S, 3) uint8 → (n, …) float32.

    module:       what computes it.
    choice:       the engine that runs it, and in which precision.
    tail:         a trainable copy of the network above the cut, or None.
    preprocess:   how an image becomes a square; its mean and std are the module's first step.
    output_shape: the shape of one image's features.
    judge:        the head of the model that it belongs to, if there is one: it must say the same on every engine.
    stored:       how a store keeps them: pooled features as float32, maps for a tail as bfloat16.
    """

    def __init__(self, recipe: Recipe, cut: Cut, choice: Choice, *, layout: str = "NCHW", tail: bool = False) -> None:
        features = input_size.forward(cut.trunk, recipe.preprocess.size)
        mean = recipe.pool == "mean"
        axes = _places(features.shape, layout) if mean and not tail else ()
        pool = "mean" if axes or (mean and cut.end) else "none"
        self.recipe = dataclasses.replace(recipe, cut=cut.name, end=cut.end, pool=pool)
        self.choice = choice
        self.module = Frozen(cut.trunk, recipe.preprocess, axes)
        self.tail = _trainable(cut.tail, features, layout if mean and cut.end else None) if tail else None
        self.preprocess = recipe.preprocess
        self.output_shape = tuple((features.mean(axes) if axes else features).shape[1:])
        self.stored: Stored = "bfloat16" if tail else "float32"
        self.judge: Judge | None = None
        self._engine: Engine | None = None
        self._proven = False
        self._finer: Trunk | None = None  # what takes its place, where it disagrees

    @property
    def batch(self) -> int:
        """How many images the engine takes at once, when it is started."""
        return self._engine.batch if self._engine else 1

    def start(self, folder: Path, sample: Sample) -> None:
        """Make the engine ready, if it is not yet: convert the network and check what it says of real images.

        folder: where the converted network is kept, this trunk's own.
        sample: gives up to so many squares of the images that it is about to see.

        Raises Disagreement (see `engine`).
        """
        with _starting:
            if self._engine is None or not self._proven:
                at = f"{self.recipe.architecture} cut at {self.recipe.cut!r}"
                size = self.preprocess.size
                started = agreement.start(self.module, size, self.choice, folder, sample, at, self.judge)
                self._engine, self._proven = started

    def settled(self, folder: Path, sample: Sample) -> Trunk:
        """Return this trunk, or the same in float32 where "auto" chose a precision in which it disagrees.

        The precision is part of the digest: it is settled before the store's shelf is. Arguments as for `start`.
        """
        with _starting:
            unsettled = self.choice.tentative and self._finer is None and not self._proven
            if unsettled and (refusal := self._refusal(folder, sample)):
                log.info("%s It is computed in float32.", refusal)
                self._finer = self.on(Choice(self.choice.engine, "float32"))
                self._finer.judge = self.judge
            return self._finer or self

    def _refusal(self, folder: Path, sample: Sample) -> str:
        """Return how the engine disagrees, "" if it does not: as it was found before, or is now."""
        known = agreement.verdict(folder, self.choice)
        if known is not None:
            return known
        try:
            self.start(folder, sample)
        except agreement.Disagreement as error:
            agreement.refuse(folder, self.choice, error.said)
            return error.said
        return ""

    @property
    def precision(self) -> str:
        """In which precision it is computed, as far as that is settled."""
        return (self._finer or self).choice.precision

    def __call__(self, squares: np.ndarray) -> np.ndarray:
        """Return the features of preprocessed images: (n, S, S, 3) uint8 → (n, …) float32; several threads may."""
        if self._engine is None:
            with tempfile.TemporaryDirectory() as folder:
                self.start(Path(folder), lambda count: squares[:count])
        return agreement.run(cast("Engine", self._engine), squares, self.output_shape)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the engine, which is this process's own, and who judges it."""
        return {**vars(self), "judge": None, "_engine": None, "_proven": False, "_finer": None}

    @cached_property
    def digest(self) -> str:
        """The sha256 of everything that decides the features, but the image."""
        decides = {**self.describe(), "decode_rules": DECODE_RULES, **self.choice._asdict(), "stored": self.stored}
        decides["pool"] = "mean" if self.module.axes else "none"
        del decides["weights"], decides["tail"], decides["end"], decides["tentative"]
        text = json.dumps([decides, hash_tensors(self.module.body.state_dict())], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def on(self, choice: Choice) -> Trunk:
        """Return the same trunk, run by another engine or in another precision."""
        other = copy.copy(self)
        other.choice, other._engine = choice, None
        vars(other).pop("digest", None)
        return other

    def with_own_tail(self) -> Trunk:
        """Return the same trunk with a copy of its tail, so that training that leaves this one as it is."""
        own = copy.copy(self)
        own._engine, own._proven, own.tail = self._engine, self._proven, copy.deepcopy(self.tail)
        return own

    def hash_tensors(self) -> str:
        """Return the sha256 of the parameters and buffers as they are now."""
        return hash_tensors(dict([*self.module.named_parameters(), *self.module.named_buffers()]))

    def describe(self) -> dict[str, Any]:
        """Return as JSON-able values what `restore` needs beside the tensors."""
        return {
            **vars(self.recipe),
            "model_args": dict(self.recipe.model_args),
            "preprocess": self.preprocess.to_dict(),
            "weights": dict(self.recipe.weights),
            "tail": self.tail is not None,
        }

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return copies of the trunk's tensors under the network's names, and of the tail's under "tail." + name."""
        tail = {} if self.tail is None else self.tail.state_dict()
        named = {**self.module.body.state_dict(), **{TAIL + name: tensor for name, tensor in tail.items()}}
        return {name: tensor.detach().clone().contiguous() for name, tensor in named.items()}

    @classmethod
    def restore(cls, description: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], choice: Choice) -> Trunk:
        """Return the trunk, with its tail if it had one, that `describe` and `tensors` told of.

        choice: what runs it here; a description says nothing of the machine that it was made on.

        No network is reached and no code of the file runs.
        Raises RefusedFile if the description is not one, or the tensors are not those that it needs.
        """
        try:
            return _restore(description, tensors, choice)
        except RefusedFile:
            raise
        except (RegraftError, KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            reason = f"its description lacks {error}" if isinstance(error, KeyError) else first_line(error)
            raise RefusedFile(f"The model's frozen part can't be rebuilt: {reason}") from error


def _trainable(tail: nn.Module, features: torch.Tensor, layout: str | None) -> nn.Module:
    """Return a copy of the network above the cut, to be trained; with a layout, a map that it ends in is pooled."""
    own = copy.deepcopy(tail).requires_grad_(True)
    if layout and isinstance(own, fx.GraphModule):
        with torch.no_grad():
            axes = _places(own(features).shape, layout)
        if axes:
            take_mean(own, axes)
    return own


def build(options: NetworkOptions, ending: TailOptions, computing: EngineOptions, *, tail: bool = False) -> Trunk:
    """Return the trunk that the options ask for, with real weights or, on request, random ones.

    tail: also keep the network above the cut, to train it; then the features are not pooled.

    Raises UnknownName, UsageError (a cut or a size that does not work), WeightsMissing, RefusedFile.
    """
    backbone = _backbone(options)
    found = weights.load(options.weights, backbone, options.seed)
    if not found.pretrained:
        log.warning("The weights of %s are random: the features mean nothing unless they are trained.", backbone.name)
    preprocess = found.preprocess.adapted(options.size, options.resize)
    model_args = {**backbone.model_args, **found.model_args, **input_size.size_arguments(backbone, preprocess.size)}
    network = catalog.build(backbone, model_args)
    weights.fill(network, input_size.resampled(network, found, preprocess.size), needed=())
    cut = find_cut(network, options.cut, backbone.layers, ending.end if tail else None)
    _check_complete(network, cut, found, tail=tail)
    whole = nn.Sequential(cut.trunk, cut.tail) if tail else cut.trunk
    at = f"{backbone.name} cut at {options.cut!r}"
    input_size.check(lambda size: input_size.runs(whole, size), preprocess.size, found.preprocess.size, at)
    recipe = Recipe(
        architecture=backbone.architecture,
        model_args=model_args,
        cut=cut.name,
        pool=ending.pool,
        preprocess=preprocess,
        weights={
            "source": found.source,
            "name": Path(found.path).name,  # the folder is this machine's affair
            "licence": found.licence,
            "pretrained": found.pretrained,
        },
    )
    return Trunk(recipe, cut, agreement.choose(computing), layout=_layout(network), tail=tail)


def _backbone(options: NetworkOptions) -> Backbone:
    """Return the backbone that is meant: a weights folder says its own, and only an equal one may be asked for."""
    asked = catalog.find(options.backbone)
    own = file.architecture(options.weights) if weights.is_path(options.weights) else None
    if own in (None, asked.architecture):
        return input_size.sized(asked, options.size)
    if options.backbone != _default("backbone"):
        raise UsageError(
            f"--weights {options.weights} is for {own}, --backbone is {options.backbone!r}. Leave --backbone out."
        )
    return input_size.sized(catalog.find(str(own)), options.size)


def _default(name: str) -> Any:
    return next(field.default for field in dataclasses.fields(NetworkOptions) if field.name == name)


def _check_complete(network: nn.Module, cut: Cut, found: weights.Weights, *, tail: bool) -> None:
    """Refuse weights that lack a tensor that is needed; say up to which cut they reach."""
    lacking = set(network.state_dict()) - set(found.tensors)
    needed = _names(cut.trunk) + (_names(cut.tail) if tail else [])
    absent = [name for name in needed if name in lacking]
    if absent:
        cuts = list_cuts(network)
        reached = bisect.bisect_left(cuts, True, key=lambda at: bool(lacking & {*_names(find_cut(network, at).trunk)}))
        hint = f"They reach up to `--cut {cuts[reached - 1]}`." if reached else "They reach up to no cut."
        hint += f" Leave out --tail, or let it end there: --end {cuts[reached - 1]}." if tail and reached else ""
        raise RefusedFile(
            f"{found.path} lacks {len(absent)} of the {len(needed)} tensors that the cut {cut.name!r}"
            f"{' with its tail' if tail else ''} needs: {listed(absent, 4)}. {hint}"
        )


def _names(module: nn.Module) -> list[str]:
    """Return the names of a module's tensors that are read in eval mode."""
    return [name for name in module.state_dict() if not name.endswith("num_batches_tracked")]


def _layout(network: nn.Module) -> str:
    return str(getattr(network, "output_fmt", "NCHW"))


def _places(shape: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """Return the axes of a feature tensor that are places: (n, C, H, W) → 2, 3; (n, tokens, C), (n, H, W, C) → between.

    The image is square, so that height and width are equal; where all three are, timm's word for the layout decides.
    """
    if len(shape) == 4 and shape[2] == shape[3] and not (shape[1] == shape[2] and layout == "NHWC"):
        return (2, 3)
    return tuple(range(1, len(shape) - 1))


def _restore(description: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], choice: Choice) -> Trunk:
    require_choice("pool", description["pool"], ("mean", "none"))
    recipe = Recipe(
        architecture=description["architecture"],
        model_args=dict(description["model_args"]),
        cut=description["cut"],
        pool=description["pool"],
        preprocess=Preprocess.from_dict(description["preprocess"]),
        weights=dict(description["weights"]),
        end=description.get("end"),  # models made before there was one do not tell
    )
    network = catalog.build(_known(recipe.architecture), recipe.model_args)
    below = {name: tensor for name, tensor in tensors.items() if not name.startswith(TAIL)}
    above = {name.removeprefix(TAIL): tensor for name, tensor in tensors.items() if name.startswith(TAIL)}
    if {**above, **below}:
        weights.fill(network, {**above, **below}, needed=())
    cut = find_cut(network, recipe.cut, end=recipe.end)
    trunk = Trunk(recipe, cut, choice, layout=_layout(network), tail=description["tail"])
    _load(trunk.module.body, below)
    _load(nn.Identity() if trunk.tail is None else trunk.tail, above)
    return trunk


def _load(module: nn.Module, tensors: Mapping[str, torch.Tensor]) -> None:
    """Load tensors into a module that has exactly these; raise RefusedFile if the names differ."""
    odd = sorted(set(module.state_dict()) ^ set(tensors))
    if odd:
        raise RefusedFile(f"{len(odd)} tensors are missing from the model or not its own: {', '.join(odd[:4])}, …")
    module.load_state_dict(tensors)


def _known(architecture: str) -> Backbone:
    """Return the entry of an architecture of timm's; no other name, nor a place on a hub, is taken."""
    if architecture not in import_timm().list_models():
        raise RefusedFile(f"The model names the architecture {architecture!r}, which timm does not have.")
    return Backbone(name=architecture, architecture=architecture)
