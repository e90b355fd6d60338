"""Trunks and tails from the options of a run, or from what a model folder keeps of them.

Options, or a description and tensors, enter; a `Trunk` leaves, and on request
the `Tail` above it. What options ask for is built at once, so that what is
wrong with them is said at once; what was kept is built when it is needed.
"""

from __future__ import annotations

import bisect
import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from regraft.core.errors import RefusedFile, RegraftError, UsageError, first_line
from regraft.core.options import require_choice
from regraft.core.progress import log
from regraft.core.text import listed
from regraft.network.backbones import Backbone
from regraft.network.lazy_module import LazyModule, Tensors
from regraft.network.options import NetworkOptions, TailOptions
from regraft.network.preprocess import Preprocess
from regraft.network.tensors import to_torch
from regraft.network.trunk import OWN, Choice, Recipe, Stored, Tail, Trunk

if TYPE_CHECKING:
    from torch import nn

    from regraft.network.cut import Cut
    from regraft.network.own_backbone import OwnBackbone
    from regraft.network.weights import Weights


Shape = tuple[int, ...]
_FINGERPRINT = "fingerprint"  # the model argument by which a module of the user's own is known again


def build(options: NetworkOptions, choice: Choice, pool: str = "mean") -> Trunk:
    """Return the trunk that `options` ask for, with real weights or, on request, random ones.

    choice: what runs it.
    pool:   what becomes of a map at the cut: "mean", over height and width, or "none".
    Raises UnknownName, UsageError (a cut or a size that does not work), WeightsMissing, RefusedFile.
    """
    recipe, cut, layout = _cut_network(options, pool)
    trunk = _trunk(recipe, cut, choice, layout)
    warn_of_random(trunk, options.backbone)
    return trunk


def build_with_tail(options: NetworkOptions, choice: Choice, ending: TailOptions) -> tuple[Trunk, Tail]:
    """Return the trunk, whose features are whole maps, and a copy of the network above it; raises as `build` does."""
    from regraft.network.frozen import trainable_half

    recipe, cut, layout = _cut_network(options, ending.pool, tail=True, end=ending.end)
    trunk = _trunk(dataclasses.replace(recipe, pool="none"), cut, choice, layout, stored="bfloat16")
    pool = recipe.pool if cut.end else "none"
    tail, shape = trainable_half(cut, trunk.output_shape, mean=pool == "mean", layout=layout)
    warn_of_random(trunk, options.backbone)
    return trunk, Tail(end=cut.end, pool=pool, output_shape=shape, network=LazyModule.of(tail))


def warn_of_random(trunk: Trunk, name: str) -> None:
    """Say so if the weights of the network called `name` are random."""
    if not trunk.recipe.weights["pretrained"]:
        log.warning("The weights of %s are random: its features mean nothing unless they are trained.", name)


def _trunk(recipe: Recipe, cut: Cut, choice: Choice, layout: str, **how: Any) -> Trunk:
    from regraft.network.frozen import frozen_half

    frozen, shape = frozen_half(cut, recipe.preprocess, mean=recipe.pool == "mean", layout=layout)
    recipe = dataclasses.replace(recipe, pool="mean" if frozen.axes else "none")
    return Trunk(recipe=recipe, choice=choice, output_shape=shape, frozen=LazyModule.of(frozen, "body"), **how)


def _cut_network(
    options: NetworkOptions, pool: str, *, tail: bool = False, end: str | None = None
) -> tuple[Recipe, Cut, str]:
    """Return what `options` ask for: the recipe, the cut network, and the layout of its maps."""
    from torch import nn

    from regraft.network import input_size
    from regraft.network.cut import find_cut
    from regraft.network.own_backbone import OwnBackbone, fingerprint

    own = options.backbone if isinstance(options.backbone, OwnBackbone) else None
    backbone, loaded, preprocess, model_args, network = _named(options) if own is None else _own(own, options)
    cut = find_cut(network, options.cut, backbone.layers, end)
    _check_complete(network, cut, loaded, tail=tail)
    whole = nn.Sequential(cut.trunk, cut.tail) if tail else cut.trunk
    name = f"{backbone.name} cut at {options.cut!r}"
    input_size.check(lambda size: input_size.runs(whole, size), preprocess.size, loaded.preprocess.size, name)
    recipe = Recipe(
        architecture=backbone.architecture,
        model_args=model_args if own is None else {_FINGERPRINT: fingerprint(cut.trunk, preprocess.size)},
        own=None if own is None else own.network,
        cut=cut.name,
        pool=pool,
        preprocess=preprocess,
        weights={
            "source": loaded.source,
            "name": Path(loaded.path).name,  # its folder is a matter of this machine
            "licence": loaded.licence,
            "pretrained": loaded.pretrained,
        },
    )
    return recipe, cut, _layout(network)


class _Network(NamedTuple):
    """A whole network with its weights, before it is cut."""

    backbone: Backbone
    weights: Weights
    preprocess: Preprocess
    model_args: Mapping[str, Any]
    module: nn.Module


def _named(options: NetworkOptions) -> _Network:
    """Return the network that `options` name."""
    from regraft.network import catalog, input_size, weights

    backbone = _backbone(options)
    loaded = weights.load(options.weights, backbone, options.seed)
    preprocess = loaded.preprocess.adapted(options.size, options.resize)
    model_args = {**backbone.model_args, **loaded.model_args, **input_size.size_arguments(backbone, preprocess.size)}
    network = catalog.build(backbone, model_args)
    weights.fill(network, input_size.resampled(network, loaded, preprocess.size), needed=())
    return _Network(backbone, loaded, preprocess, model_args, network)


def _own(own: OwnBackbone, options: NetworkOptions) -> _Network:
    """Return the network that is the user's own module."""
    from regraft.network.weights import Weights

    if options.weights != _default("weights"):
        raise UsageError(
            f"--weights is {options.weights!r}, and the backbone {str(own)!r} is a module of your own, which has its "
            "weights. Leave --weights out."
        )
    weights = Weights(source="module", path=str(own), tensors=own.network.state_dict(), preprocess=own.preprocess)
    backbone = Backbone(name=str(own), architecture=f"{OWN}{own}")
    return _Network(backbone, weights, own.preprocess.adapted(options.size, options.resize), {}, own.network)


def _backbone(options: NetworkOptions) -> Backbone:
    """Return the backbone that is meant: a weights folder names its own, and no other may be asked for beside it."""
    from regraft.network import catalog, input_size, weights
    from regraft.network.weights import file

    named = catalog.find(options.backbone)
    own = file.architecture(options.weights) if weights.is_path(options.weights) else None
    if own in (None, named.architecture):
        return input_size.sized(named, options.size)
    if options.backbone != _default("backbone"):
        raise UsageError(
            f"--weights {options.weights} is for {own}, --backbone is {options.backbone!r}. Leave --backbone out."
        )
    return input_size.sized(catalog.find(str(own)), options.size)


def _default(name: str) -> Any:
    return next(field.default for field in dataclasses.fields(NetworkOptions) if field.name == name)


def _check_complete(network: nn.Module, cut: Cut, loaded: Weights, *, tail: bool) -> None:
    """Refuse weights that lack a tensor that is needed; say up to which cut they reach."""
    from regraft.network.cut import find_cut, list_cuts

    lacking = set(network.state_dict()) - set(loaded.tensors)
    needed = _names(cut.trunk) + (_names(cut.tail) if tail else [])
    absent = [name for name in needed if name in lacking]
    if absent:
        cuts = list_cuts(network)
        reached = bisect.bisect_left(cuts, True, key=lambda at: bool(lacking & {*_names(find_cut(network, at).trunk)}))
        hint = f"They reach up to `--cut {cuts[reached - 1]}`." if reached else "They reach up to no cut."
        hint += f" Leave out --tail, or let it end there: --end {cuts[reached - 1]}." if tail and reached else ""
        raise RefusedFile(
            f"{loaded.path} lacks {len(absent)} of the {len(needed)} tensors that the cut {cut.name!r}"
            f"{' with its tail' if tail else ''} needs: {listed(absent, 4)}. {hint}"
        )


def _names(module: nn.Module) -> list[str]:
    """Return the names of a module's tensors that are read in eval mode."""
    return [name for name in module.state_dict() if not name.endswith("num_batches_tracked")]


def _layout(network: nn.Module) -> str:
    return str(getattr(network, "output_fmt", "NCHW"))


# What a model folder keeps


def restore(
    description: Mapping[str, Any],
    read: Callable[[], Tensors],
    choice: Choice,
    *,
    for_tail: bool = False,
    own: nn.Module | None = None,
    digest: str | None = None,
) -> Trunk:
    """Return the trunk with this description, see `Trunk.describe`; its module is built when it is needed.

    read:     returns its tensors.
    choice:   what runs it here; a description says nothing of the machine that it was made on.
    for_tail: its features are the maps that a tail was trained on.
    own:      the module that was its backbone, if that was the user's own; its tensors are not used.
    digest:   the sha256 of its tensors, if it is known.

    No network is reached and no code of the file runs. Raises RefusedFile if the description is not one; if it does
    not go with the tensors, at once where it lacks the shape of the features, else when the module is built.
    """
    with _refusing():
        recipe = dataclasses.replace(_recipe(description), own=own)
        recipe = dataclasses.replace(recipe, pool="none") if for_tail else recipe
        if own is not None and not recipe.is_own:
            raise RefusedFile(f"The model's backbone is {recipe.architecture}, no module of your own: open it without.")
        shape = _shape(description.get("output_shape"))
    network, shape = _lazy_or_built(functools.partial(_rebuild_frozen, recipe), shape, read, "body", digest)
    stored: Stored = "bfloat16" if for_tail else "float32"
    return Trunk(recipe=recipe, choice=choice, output_shape=shape, frozen=network, stored=stored)


def restore_tail(trunk: Trunk, end: str | None, pool: str, output_shape: Any, read: Callable[[], Tensors]) -> Tail:
    """Return the tail above a trunk, built when it is needed, or at once where `output_shape` is None.

    end, pool, output_shape: as `Tail` has them.
    read:                    returns its tensors.

    Raises RefusedFile as `restore` does.
    """
    with _refusing():
        rebuild = functools.partial(_rebuild_tail, trunk.recipe, trunk.output_shape, end, _check_pool(pool))
        shape = _shape(output_shape)
    network, shape = _lazy_or_built(rebuild, shape, read)
    return Tail(end=end, pool=pool, output_shape=shape, network=network)


Rebuild = Callable[[Tensors], "tuple[nn.Module, Shape]"]


def _lazy_or_built(
    rebuild: Rebuild, shape: Shape | None, read: Callable[[], Tensors], part: str = "", digest: str | None = None
) -> tuple[LazyModule, Shape]:
    """Return the module and the shape that it gives: built when it is needed, or now to learn the shape."""
    if shape is not None:
        return LazyModule(read, functools.partial(_rebuild_described, rebuild, shape), part, digest=digest), shape
    with _refusing():  # as in models up to format 2
        module, shape = rebuild(read())
    return LazyModule.of(module, part), shape


def _rebuild_described(rebuild: Rebuild, described: Shape, tensors: Tensors) -> nn.Module:
    with _refusing():
        module, shape = rebuild(tensors)
    if shape != described:
        raise RefusedFile(f"The model's description has features of the shape {described}, its network has {shape}.")
    return module


def _shape(values: Any) -> Shape | None:
    return None if values is None else tuple(values)


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Turn whatever a foreign description or foreign tensors bring about into RefusedFile."""
    try:
        yield
    except RefusedFile:
        raise
    except (RegraftError, KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = f"its description lacks {error}" if isinstance(error, KeyError) else first_line(error)
        raise RefusedFile(f"The model's network can't be rebuilt: {reason}") from error


def _recipe(description: Mapping[str, Any]) -> Recipe:
    from regraft.network import catalog

    for name in ("architecture", "cut"):
        if not isinstance(description[name], str):
            raise RefusedFile(f"The model's {name} is {description[name]!r}; expected a name.")
    catalog.check_arguments(description["architecture"], description["model_args"], ask_timm=False)
    return Recipe(
        architecture=description["architecture"],
        model_args=dict(description["model_args"]),
        cut=description["cut"],
        pool=_check_pool(description["pool"]),
        preprocess=Preprocess.from_dict(description["preprocess"]),
        weights=dict(description["weights"]),
    )


def _check_pool(pool: str) -> str:
    require_choice("pool", pool, ("mean", "none"))
    return pool


def _rebuild_frozen(recipe: Recipe, tensors: Tensors) -> tuple[nn.Module, Shape]:
    from regraft.network.frozen import frozen_half
    from regraft.network.own_backbone import check_fingerprint, fingerprint

    cut, layout = _rebuild(recipe, tensors)
    _load(cut.trunk, tensors)
    if recipe.is_own:
        numbers = fingerprint(cut.trunk, recipe.preprocess.size)
        check_fingerprint(recipe.architecture.removeprefix(OWN), recipe.model_args[_FINGERPRINT], numbers)
    return frozen_half(cut, recipe.preprocess, mean=recipe.pool == "mean", layout=layout)


def _rebuild_tail(
    recipe: Recipe, shape: Shape, end: str | None, pool: str, tensors: Tensors
) -> tuple[nn.Module, Shape]:
    from regraft.network.frozen import trainable_half

    cut, layout = _rebuild(recipe, tensors, end)
    tail, shape = trainable_half(cut, shape, mean=pool == "mean" and end is not None, layout=layout)
    _load(tail, tensors)
    return tail, shape


def _rebuild(recipe: Recipe, tensors: Tensors, end: str | None = None) -> tuple[Cut, str]:
    """Return the cut network, filled with tensors that may cover one half of it, and the layout of its maps."""
    from regraft.network import catalog, weights
    from regraft.network.cut import find_cut
    from regraft.network.own_backbone import copy_for_model

    if recipe.is_own:
        network = copy_for_model(recipe.architecture.removeprefix(OWN), recipe.own)
    else:
        network = catalog.build(_known(recipe.architecture), recipe.model_args)
    if tensors:
        weights.fill(network, to_torch(tensors), needed=())
    return find_cut(network, recipe.cut, end=end), _layout(network)


def _load(module: nn.Module, tensors: Tensors) -> None:
    """Load tensors into a module that has exactly these; raise RefusedFile if the names differ."""
    odd = sorted(set(module.state_dict()) ^ set(tensors))
    if odd:
        raise RefusedFile(f"{len(odd)} tensors are missing from the model or not its own: {listed(odd, 4)}.")
    module.load_state_dict(to_torch(tensors))


def _known(architecture: str) -> Backbone:
    """Return the entry of an architecture of timm's; no other name, nor one on a hub, is accepted."""
    from regraft.network.workaround_torchvision_nms import import_timm

    if architecture not in import_timm().list_models():
        raise RefusedFile(f"The model names the architecture {architecture!r}, which timm does not have.")
    return Backbone(name=architecture, architecture=architecture)
