"""The cut: a network is divided at a named place into a trunk below and a tail above.

A network enters, whose output is its pooled features (timm's `num_classes=0`);
two modules leave that share its weights, and `tail(trunk(x))` is `network(x)`,
bit for bit. A place is where a module of the network ends (see `places` for its
names); it is a cut only if every path from the image to the output passes
through it. What is frozen, stored or trained is left to `trunk` and `graft/`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

from regraft.core.errors import UsageError
from regraft.network import catalog, layer_names
from regraft.network.backbones import Backbone, Layer
from regraft.network.graph import Graph, ancestors, first_line, trace
from regraft.network.keras.layers import NOTHING, WHOLE
from regraft.network.workaround_torchvision_nms import import_timm

__all__ = ["Cut", "find_cut", "first_line", "list_cuts", "named_cuts", "take_mean", "text"]


@dataclass(frozen=True)
class Cut:
    """A single passage of a network, and what is below and above it."""

    name: str  # a module's path, "pooled" or "input"
    trunk: nn.Module
    tail: nn.Module
    end: str | None = None  # the path of the module that the tail ends with, if that is not the network's end


def find_cut(network: nn.Module, name: str, layers: Sequence[Layer] = (), end: str | None = None) -> Cut:
    """Divide `network` at the place called `name`; its modules are shared, not copied.

    network: in eval mode, its output the pooled features.
    name:    as `places.find` takes it.
    layers:  Keras's layers of the network, in Keras's order.
    end:     a place above, by any such name, where the tail ends; None: where the network does.

    Raises UnknownName if there is no such place, UsageError if it is not the single passage, or not below the end.
    """
    if end not in (None, WHOLE):
        return _up_to(trace(network), name, layers, str(end))
    graph = None if name in (WHOLE, NOTHING) else trace(network)
    path = name if graph is None else layer_names.find(graph, name, layers)
    if graph is None or path in (WHOLE, NOTHING):
        whole = path == WHOLE
        return Cut(path, network if whole else nn.Identity(), nn.Identity() if whole else network)
    node = graph.places[path][0]
    return Cut(_shortest(graph).get(node, path), _below(graph, node), _above(graph, node))


def _up_to(graph: Graph, name: str, layers: Sequence[Layer], end: str) -> Cut:
    """Divide a network that ends before its own end."""
    at = {NOTHING: next(iter(graph.graph.nodes)), WHOLE: graph.graph.output_node()}
    path, above = (layer_names.find(graph, place, layers) for place in (name, end))
    node, stop = (at[place] if place in at else graph.places[place][0] for place in (path, above))
    if graph.order[node] >= graph.order[stop]:
        raise UsageError(f"The cut {name!r} is not below the end {end!r}: nothing is left to train between them.")
    trunk = nn.Identity() if path == NOTHING else _below(graph, node)
    paths = _shortest(graph)
    return Cut(paths.get(node, path), trunk, _above(graph, node, stop), paths.get(stop, above))


def take_mean(tail: fx.GraphModule, axes: tuple[int, ...]) -> None:
    """Let a tail end with the mean over these axes of what it gave."""
    output = tail.graph.output_node()
    with tail.graph.inserting_before(output):
        output.args = (tail.graph.call_method("mean", (output.args[0], axes)),)
    tail.recompile()


def list_cuts(network: nn.Module) -> list[str]:
    """Return the paths at which `network` can be cut, from the input up; the shortest where several name one place."""
    return list(_shortest(trace(network)).values())


def named_cuts(backbone: Backbone) -> dict[str, dict[str, Any]]:
    """Return the cuts of a backbone by path, from the input up, each with its other names and what is above it.

    names:             what Keras calls the place, and its depth ("top-2-stages").
    layers:            how many of Keras's layers are frozen by it, or None.
    shape:             of the features there of one image of the backbone's own size.
    parameters_above:  the share of the parameters that are above it, in [0, 1].
    computation_above: the share of the multiplications that are done above it, in [0, 1].
    """
    with torch.device("meta"):  # nothing is computed, and no memory is taken for the weights
        graph = trace(catalog.build(backbone))
    costs = _Costs(graph, import_timm().models.get_pretrained_cfg(backbone.timm_name).input_size)
    at: dict[str, fx.Node] = {
        NOTHING: next(iter(graph.graph.nodes)),
        **{path: node for node, path in _shortest(graph).items()},
        WHOLE: graph.graph.output_node(),
    }
    names = _names(graph, backbone.layers, at)
    frozen = {path: count for count, path in sorted(layer_names.counts(graph, backbone.layers).items(), reverse=True)}
    exact = {layer.name: count for count, layer in enumerate(backbone.layers, start=1)}
    return {
        path: {
            "names": names[path],
            "layers": next((exact[name] for name in names[path] if name in exact), frozen.get(path)),
            **costs.above(node),
        }
        for path, node in at.items()
    }


def text(cuts: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the cuts of a backbone as aligned lines for the terminal."""
    lines = [["cut", "also", "Keras's layers", "features", "parameters above", "computation above"]]
    for path, row in cuts.items():
        shares = [f"{row[share]:.1%}" for share in ("parameters_above", "computation_above")]
        count = "" if row["layers"] is None else str(row["layers"])
        lines.append([path, ", ".join(row["names"]), count, "x".join(map(str, row["shape"])), *shares])
    return catalog.table(lines)


class _Costs(fx.Interpreter):  # type: ignore[misc, unused-ignore]
    """What each node of a graph gives and costs, for one image of no content."""

    def __init__(self, graph: Graph, shape: tuple[int, int, int]) -> None:
        super().__init__(fx.GraphModule(graph.network, graph.graph))
        self.traced = graph
        self.parameters = {n: p.numel() for n, p in graph.network.named_parameters(remove_duplicate=False)}
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}
        self.work: dict[fx.Node, int] = {}
        with torch.no_grad(), FlopCounterMode(display=False) as self.counter:
            self.run(torch.empty(1, *shape, device="meta"))

    def run_node(self, n: fx.Node) -> Any:
        """Run a node, and note the shape of its value and the multiplications that it took."""
        before = self.counter.get_total_flops()
        value = super().run_node(n)
        self.work[n] = self.counter.get_total_flops() - before
        self.shapes[n] = tuple(value.shape[1:]) if isinstance(value, torch.Tensor) else ()
        return value

    def above(self, node: fx.Node) -> dict[str, Any]:
        """Return the shape at a node, and the shares of parameters and of computation that are above it."""
        below, learned = ancestors([node]), self.traced.learned[node]
        return {
            "shape": list(self.shapes[node]),
            "parameters_above": 1 - sum(self.parameters[n] for n in learned) / sum(self.parameters.values()),
            "computation_above": 1 - sum(self.work[n] for n in below) / sum(self.work.values()),
        }


def _names(graph: Graph, layers: Sequence[Layer], at: Mapping[str, fx.Node]) -> dict[str, list[str]]:
    """Return for each cut the names that Keras has for it, and its depth."""
    paths = {node: path for path, node in at.items()}
    names: dict[str, list[str]] = {path: [] for path in at}
    for layer in layers:
        if layer_names.is_cut(graph, layer):
            place = layer.place if layer.place in at else paths[graph.places[layer.place][0]]
            names[place].append(layer.name)
    for count in range(len(layer_names.stages(graph)), 0, -1):
        place = layer_names.below_stages(graph, count)
        names[place if place in at else paths[graph.places[place][0]]].append(f"top-{count}-stage{'s' * (count > 1)}")
    return names


def _shortest(graph: Graph) -> dict[fx.Node, str]:
    """Return the nodes at which the network can be cut, from the input up, with the shortest path of each."""
    found: dict[fx.Node, str] = {}
    for path in sorted(graph.cuts, key=graph.position):
        node = graph.places[path][0]
        found[node] = min(found.get(node, path), path, key=len)
    # an identity, as timm leaves where a classifier was, ends where it begins: no place of its own
    return {n: path for n, path in found.items() if not isinstance(graph.network.get_submodule(path), nn.Identity)}


def _below(graph: Graph, node: fx.Node) -> fx.GraphModule:
    """Return the network up to `node`, with the shape checks that it makes on the way."""
    checks = [
        check for check in graph.graph.nodes if check.target is torch._assert and graph.order[check] < graph.order[node]
    ]
    keep = ancestors([node, *checks])
    half = fx.Graph()
    copies = _copy(half, [old for old in graph.graph.nodes if old in keep], {})
    half.output(copies[node])
    return _module(graph.network, half)


def _above(graph: Graph, node: fx.Node, end: fx.Node | None = None) -> fx.GraphModule:
    """Return the network from `node` on; it works on a copy, so that no caller's features are changed in place."""
    keep = ancestors([end or graph.graph.output_node()], without=node) - {node}
    half = fx.Graph()
    features = half.call_method("clone", (half.placeholder("features"),))
    copies = _copy(half, [old for old in graph.graph.nodes if old in keep], {node: features})
    if end:
        half.output(copies[end])
    return _module(graph.network, half)


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
