"""The cut: a network is divided at a named layer into a trunk below and a tail above.

A network enters, whose output is its pooled features (timm's `num_classes=0`);
two modules leave that share its weights, and `tail(trunk(x))` is `network(x)`,
bit for bit. A layer is where a module of the network ends (see `layer_names`);
it is a cut only if every path from the image to the output passes through it.
What is frozen or stored is left to `trunk`, what is trained to training/.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils.flop_counter import FlopCounterMode

from regraft.core.errors import UsageError, first_line
from regraft.core.text import table
from regraft.network import INPUT, POOLED, catalog, layer_names
from regraft.network.backbones import Backbone
from regraft.network.graph import Graph, ancestors, trace
from regraft.network.keras import names as keras_names
from regraft.network.keras.layers import Layer
from regraft.network.workaround_torchvision_nms import import_timm

__all__ = ["Cut", "find_cut", "first_line", "list_cuts", "named_cuts", "take_mean", "text"]


@dataclass(frozen=True)
class Cut:
    """A divided network: what is below the cut and what is above it."""

    name: str  # a module's path, "pooled" or "input"
    trunk: nn.Module
    tail: nn.Module
    end: str | None = None  # the path of the module that the tail ends with, if that is not the network's end


def find_cut(network: nn.Module, name: str, layers: Sequence[Layer] = (), end: str | None = None) -> Cut:
    """Divide `network` at the layer called `name`; its modules are shared, not copied.

    network: in eval mode, its output the pooled features.
    name:    as `layer_names.path_of` takes it.
    layers:  Keras's layers of the network, in Keras's order.
    end:     a layer above, by any such name, where the tail ends; None: where the network does.

    Raises UnknownName if there is no such layer, UsageError if the signal does not all pass through it, or if it is
    not below the end.
    """
    if end not in (None, POOLED):
        return _up_to(trace(network), name, layers, str(end))
    graph = None if name in (POOLED, INPUT) else trace(network)
    path = name if graph is None else layer_names.path_of(graph, name, layers)
    if path == POOLED:
        return Cut(path, network, nn.Identity())
    if graph is None or path == INPUT:
        return Cut(path, nn.Identity(), network)
    node = graph.node(path)
    return Cut(graph.shortest_paths.get(node, path), _below(graph, node), _above(graph, node))


def _up_to(graph: Graph, name: str, layers: Sequence[Layer], end: str) -> Cut:
    """Divide a network that ends before its own end."""
    path, end_path = (layer_names.path_of(graph, layer, layers) for layer in (name, end))
    node, last = graph.node(path), graph.node(end_path)
    if graph.order[node] >= graph.order[last]:
        raise UsageError(f"The cut {name!r} is not below the end {end!r}: nothing is left to train between them.")
    trunk = nn.Identity() if path == INPUT else _below(graph, node)
    paths = graph.shortest_paths
    return Cut(paths.get(node, path), trunk, _above(graph, node, last), paths.get(last, end_path))


def take_mean(tail: fx.GraphModule, axes: tuple[int, ...]) -> None:
    """Make a tail end with the mean of its output over these axes."""
    output = tail.graph.output_node()
    with tail.graph.inserting_before(output):
        output.args = (tail.graph.call_method("mean", (output.args[0], axes)),)
    tail.recompile()


def list_cuts(network: nn.Module) -> list[str]:
    """Return the paths at which `network` can be cut, from the input up; the shortest where several name one node."""
    return list(trace(network).shortest_paths.values())


def named_cuts(backbone: Backbone) -> dict[str, dict[str, Any]]:
    """Return the cuts of a backbone by path, from the input up, each with its other names and what is above it.

    names:             Keras's names of the layer, and its depth ("top-2-stages").
    layers:            how many of Keras's layers are frozen by it, or None.
    shape:             of the features there of one image of the backbone's own size.
    parameters_above:  the fraction of the parameters that is above it, in [0, 1].
    computation_above: the fraction of the multiplications that is above it, in [0, 1].
    """
    with torch.device("meta"):  # nothing is computed, and no memory is taken for the weights
        graph = trace(catalog.build(backbone))
    costs = _Costs(graph, import_timm().models.get_pretrained_cfg(backbone.timm_name).input_size)
    names = _names(graph, backbone.layers)
    frozen = {path: n for n, path in sorted(keras_names.paths_by_count(graph, backbone.layers).items(), reverse=True)}
    exact = {layer.name: count for count, layer in enumerate(backbone.layers, start=1)}
    return {
        path: {
            "names": names[path],
            "layers": next((exact[name] for name in names[path] if name in exact), frozen.get(path)),
            **costs.above(graph.node(path)),
        }
        for path in names
    }


def text(cuts: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the cuts of a backbone as aligned lines for the terminal."""
    lines = [["cut", "also", "Keras's layers", "features", "parameters above", "computation above"]]
    for path, row in cuts.items():
        fractions = [f"{row[name]:.1%}" for name in ("parameters_above", "computation_above")]
        count = "" if row["layers"] is None else str(row["layers"])
        lines.append([path, ", ".join(row["names"]), count, "x".join(map(str, row["shape"])), *fractions])
    return "\n".join(table(lines, left=len(lines[0])))


class _Costs(fx.Interpreter):  # type: ignore[misc, unused-ignore]
    """The shape of each node's value and its multiplications, for one image without content."""

    def __init__(self, graph: Graph, shape: tuple[int, int, int]) -> None:
        super().__init__(fx.GraphModule(graph.network, graph.graph))
        self.traced = graph
        self.parameters = {n: p.numel() for n, p in graph.network.named_parameters(remove_duplicate=False)}
        self.shapes: dict[fx.Node, tuple[int, ...]] = {}
        self.work: dict[fx.Node, int] = {}
        with torch.no_grad(), FlopCounterMode(display=False) as self.counter:
            self.run(torch.empty(1, *shape, device="meta"))

    def run_node(self, n: fx.Node) -> Any:
        """Run a node, and record the shape of its value and the multiplications that it took."""
        before = self.counter.get_total_flops()
        value = super().run_node(n)
        self.work[n] = self.counter.get_total_flops() - before
        self.shapes[n] = tuple(value.shape[1:]) if isinstance(value, torch.Tensor) else ()
        return value

    def above(self, node: fx.Node) -> dict[str, Any]:
        """Return the shape at a node, and the fractions of parameters and of computation that are above it."""
        below, parameters = ancestors([node]), self.traced.parameters_below[node]
        return {
            "shape": list(self.shapes[node]),
            "parameters_above": 1 - sum(self.parameters[n] for n in parameters) / sum(self.parameters.values()),
            "computation_above": 1 - sum(self.work[n] for n in below) / sum(self.work.values()),
        }


def _names(graph: Graph, layers: Sequence[Layer]) -> dict[str, list[str]]:
    """Return the paths of the cuts, from the input up, each with Keras's names of it and its depth."""
    names: dict[str, list[str]] = {path: [] for path in (INPUT, *graph.shortest_paths.values(), POOLED)}
    for layer in layers:
        if keras_names.is_cut(graph, layer):
            names[_shortest(graph, layer.path)].append(layer.name)
    for count in range(len(layer_names.stage_ends(graph)), 0, -1):
        path = _shortest(graph, layer_names.path_below_stages(graph, count))
        names[path].append(f"top-{count}-stage{'s' * (count > 1)}")
    return names


def _shortest(graph: Graph, path: str) -> str:
    """Return the shortest path that names the same node as a cut's path."""
    return graph.shortest_paths.get(graph.node(path), path)


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
