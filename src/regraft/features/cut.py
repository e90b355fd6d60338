"""The cut: a network is divided at a named place into a trunk below and a tail above.

A network enters, whose output is its pooled features (timm's `num_classes=0`);
two modules leave that share its weights, and `tail(trunk(x))` is `network(x)`,
bit for bit. A place is where a module of the network ends, under the module's
own path; it is a cut only if every path from the image to the output passes
through it. What is frozen, stored or trained is left to `trunk` and `graft/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import fx, nn

from regraft.core.errors import UnknownName, UsageError
from regraft.features import catalog
from regraft.features._torchvision import import_timm
from regraft.features.backbones import Backbone

WHOLE, NOTHING = "pooled", "input"  # the two cuts that every network has: all of it is frozen, or none


@dataclass(frozen=True)
class Cut:
    """A single passage of a network, and what is below and above it."""

    name: str  # a module's path, "pooled" or "input"
    trunk: nn.Module
    tail: nn.Module


def find_cut(network: nn.Module, name: str, layers: Mapping[str, str] | None = None) -> Cut:
    """Divide `network` at the place called `name`; its modules are shared, not copied.

    network: in eval mode, its output the pooled features.
    name:    "pooled", "input", a key of `layers` or a module's path.
    layers:  the names by which the network's places are known elsewhere, e.g. {"mixed7": "Mixed_6e"}.

    Raises UnknownName if there is no such place, UsageError if it is not the single passage.
    """
    layers = layers or {}
    path = layers.get(name, name)
    if path == WHOLE:
        return Cut(path, network, nn.Identity())
    if path == NOTHING:
        return Cut(path, nn.Identity(), network)
    network_map = _trace(network)
    node = _passage(network_map, path, layers)
    return Cut(path, _below(network_map, node), _above(network_map, node))


def list_cuts(network: nn.Module) -> list[str]:
    """Return the paths at which `network` can be cut, from the input up; the shortest where several name one place."""
    network_map = _trace(network)
    shortest: dict[fx.Node, str] = {}
    for path in network_map.cuts:
        node = network_map.places[path][0]
        shortest[node] = min(shortest.get(node, path), path, key=len)
    # an identity, as timm leaves where a classifier was, ends where it begins: no place of its own
    names = (path for path in shortest.values() if not isinstance(network.get_submodule(path), nn.Identity))
    return sorted(names, key=network_map.position)


def named_cuts(backbone: Backbone) -> dict[str, list[str]]:
    """Return the cuts of a backbone, from the input up, each with the other names that it is known by."""
    known: dict[str, list[str]] = {}
    for name, path in backbone.layers.items():
        known.setdefault(path, []).append(name)
    paths = [NOTHING, *list_cuts(catalog.build(backbone)), WHOLE]
    return {path: known.get(path, []) for path in paths}


@dataclass(frozen=True)
class _Map:
    """A traced network: its graph, and for each module's path what its calls returned."""

    network: nn.Module
    graph: fx.Graph
    places: dict[str, list[Any]]

    @cached_property
    def order(self) -> dict[fx.Node, int]:
        """Each node's place in the order of computation."""
        return {node: place for place, node in enumerate(self.graph.nodes)}

    @cached_property
    def passages(self) -> set[fx.Node]:
        """The nodes through which every path from the image to the output goes.

        Among the nodes on such paths, in order of computation: those that no edge passes over.
        """
        between = self._from_the_image & self._to_the_output
        found, reach = set(), 0
        for node in (node for node in self.graph.nodes if node in between):
            if reach <= self.order[node]:
                found.add(node)
            reach = max([reach, *(self.order[user] for user in node.users if user in between)])
        return found

    @cached_property
    def _from_the_image(self) -> set[fx.Node]:
        found: set[fx.Node] = set()
        for node in self.graph.nodes:
            if node.op == "placeholder" or any(source in found for source in node.all_input_nodes):
                found.add(node)
        return found

    @cached_property
    def _to_the_output(self) -> set[fx.Node]:
        return ancestors([self.graph.output_node()])

    @cached_property
    def cuts(self) -> list[str]:
        """The paths that are good cuts."""
        return [path for path in self.places if self.complaint(path) is None]

    def position(self, path: str) -> int:
        """Return where in the order of computation the module at `path` ends."""
        return max((self.order[node] for node in self.places[path] if isinstance(node, fx.Node)), default=0)

    def complaint(self, path: str) -> str | None:
        """Return in words why the network can't be cut where the module at `path` ends; None if it can."""
        outputs = self.places[path]
        if len(outputs) > 1:
            return f"runs {len(outputs)} times"
        if not isinstance(outputs[0], fx.Node):
            return "gives more than one tensor"
        if outputs[0] not in self._from_the_image:
            return "does not depend on the image"
        if outputs[0] not in self._to_the_output:
            return "is not used for the features"
        if outputs[0] not in self.passages:
            return "is inside a branch or beside a residual connection: part of the signal goes round it"
        return None


class _Tracer(fx.Tracer):  # type: ignore[misc, unused-ignore]
    """Trace with timm's own lists of what to leave whole, and note where each module ends."""

    def __init__(self) -> None:
        import_timm()
        from timm.layers import DropPath
        from timm.models._features_fx import get_notrace_functions, get_notrace_modules
        from torch.nn.modules.batchnorm import _BatchNorm

        super().__init__(autowrap_functions=tuple(get_notrace_functions()))
        # what behaves otherwise in training must stay a module: tracing would fix it as it is in eval mode
        self.whole = (*get_notrace_modules(), _BatchNorm, DropPath)
        self.places: dict[str, list[Any]] = {}

    def create_args_for_root(self, root_fn: Callable[..., Any], *_: object) -> tuple[Callable[..., Any], list[Any]]:
        """Let the images alone vary: the forward's other arguments keep their defaults."""
        return root_fn, [self.root, self.create_proxy("placeholder", "images", (), {})]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Leave whole what timm says, and what fx itself leaves whole."""
        return isinstance(m, self.whole) or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Trace the module's call, and note what it returns under the module's path."""
        output = super().call_module(m, forward, args, kwargs)
        node = output.node if isinstance(output, fx.Proxy) else None
        self.places.setdefault(self.path_of_module(m), []).append(node)
        return output


def _trace(network: nn.Module) -> _Map:
    tracer = _Tracer()
    try:
        graph = tracer.trace(network)
    except Exception as error:  # a network may do anything while it is traced
        raise UsageError(
            f"{_name_of(network)} can't be cut inside: torch.fx does not follow it ({first_line(error)}). "
            f"Cut it at {WHOLE!r} or {NOTHING!r}, or choose another backbone."
        ) from error
    return _Map(network, graph, tracer.places)


def _passage(network_map: _Map, path: str, layers: Mapping[str, str]) -> fx.Node:
    if path in network_map.places:
        complaint = network_map.complaint(path)
    elif path in dict(network_map.network.named_modules(remove_duplicate=False)):
        complaint = "has no output of its own"
    else:
        raise UnknownName.of("cut", path, {*layers, WHOLE, NOTHING, *network_map.cuts}, _hint(network_map))
    if complaint is None:
        node: fx.Node = network_map.places[path][0]
        return node
    raise UsageError(
        f"The cut {path!r} {complaint}. The nearest cut that works is {_nearest(network_map, path)!r}. "
        + _hint(network_map)
    )


def _nearest(network_map: _Map, path: str) -> str:
    """Return the smallest module around `path` that is a good cut, or else the good cut next to it."""
    parts = path.split(".")
    around = [".".join(parts[:length]) for length in range(len(parts) - 1, 0, -1)]
    place = max((network_map.position(p) for p in network_map.places if (p + ".").startswith(path + ".")), default=0)
    beside = sorted(network_map.cuts, key=lambda good: (abs(network_map.position(good) - place), len(good)))
    return next((good for good in [*around, *beside] if good in network_map.cuts), WHOLE)


def _below(network_map: _Map, node: fx.Node) -> fx.GraphModule:
    """Return the network up to `node`, with the shape checks that it makes on the way."""
    checks = [
        check
        for check in network_map.graph.nodes
        if check.target is torch._assert and network_map.order[check] < network_map.order[node]
    ]
    keep = ancestors([node, *checks])
    graph = fx.Graph()
    copies = _copy(graph, [old for old in network_map.graph.nodes if old in keep], {})
    graph.output(copies[node])
    return _module(network_map.network, graph)


def _above(network_map: _Map, node: fx.Node) -> fx.GraphModule:
    """Return the network from `node` on; it works on a copy, so that no caller's features are changed in place."""
    keep = ancestors([network_map.graph.output_node()], without=node) - {node}
    graph = fx.Graph()
    features = graph.call_method("clone", (graph.placeholder("features"),))
    _copy(graph, [old for old in network_map.graph.nodes if old in keep], {node: features})
    return _module(network_map.network, graph)


def _copy(graph: fx.Graph, nodes: Iterable[fx.Node], copies: dict[fx.Node, fx.Node]) -> dict[fx.Node, fx.Node]:
    """Write `nodes` into `graph` in their order; `copies` says what stands for what, and grows."""
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    return copies


def _module(network: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    """Return the module that runs `graph`; it holds only the parts of `network` that it calls, under their names."""
    module = fx.GraphModule(network, graph).eval()
    names = set(network.state_dict())
    for path, part in module.named_modules():
        for name in part._buffers:
            if f"{path}.{name}".lstrip(".") not in names:  # made while building or tracing, not part of the weights
                part._non_persistent_buffers_set.add(name)
    return module


def ancestors(nodes: Iterable[fx.Node], without: fx.Node | None = None) -> set[fx.Node]:
    """Return `nodes` and all that they are computed from; the search does not go below `without`."""
    found, waiting = set[fx.Node](), list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend([] if node is without else node.all_input_nodes)
    return found


def _hint(network_map: _Map) -> str:
    return f"List them with `regraft backbones {_name_of(network_map.network)} --cuts`."


def _name_of(network: nn.Module) -> str:
    return str(getattr(network, "pretrained_cfg", {}).get("architecture") or type(network).__name__)


def first_line(error: Exception) -> str:
    """Return the start of what a library says, or the kind of its error if it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
