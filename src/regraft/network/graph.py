"""A network as a graph: what each module returns, and which nodes every path from the images to the output passes.

A network enters; a `Graph` leaves, traced by torch.fx with timm's own lists
of what to leave whole. Names of layers are left to `layer_names`, and dividing
the network to `cut`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import fx, nn

from regraft.core.errors import UsageError, first_line
from regraft.network import INPUT, POOLED
from regraft.network.workaround_torchvision_nms import import_timm


@dataclass(frozen=True)
class Graph:
    """A traced network: its graph, and for each module's path what its calls returned."""

    network: nn.Module
    graph: fx.Graph
    outputs: dict[str, list[Any]]

    @cached_property
    def order(self) -> dict[fx.Node, int]:
        """Each node's position in the order of computation."""
        return {node: position for position, node in enumerate(self.graph.nodes)}

    @cached_property
    def dominators(self) -> set[fx.Node]:
        """The nodes that every path from the images to the output passes through: the output's dominators.

        Among the nodes on such paths, in order of computation: those that no edge passes over.
        """
        between = self._from_the_images & self._to_the_output
        dominators, reach = set(), 0
        for node in (node for node in self.graph.nodes if node in between):
            if reach <= self.order[node]:
                dominators.add(node)
            reach = max([reach, *(self.order[user] for user in node.users if user in between)])
        return dominators

    @cached_property
    def _from_the_images(self) -> set[fx.Node]:
        reached: set[fx.Node] = set()
        for node in self.graph.nodes:
            if node.op == "placeholder" or any(source in reached for source in node.all_input_nodes):
                reached.add(node)
        return reached

    @cached_property
    def _to_the_output(self) -> set[fx.Node]:
        return ancestors([self.graph.output_node()])

    @cached_property
    def cuts(self) -> list[str]:
        """The paths of the modules at which the network can be cut."""
        return [path for path in self.outputs if self.reason_not_a_cut(path) is None]

    @cached_property
    def shortest_paths(self) -> dict[fx.Node, str]:
        """The nodes at which the network can be cut, from the input up, each with the shortest path that names it."""
        paths: dict[fx.Node, str] = {}
        for path in sorted(self.cuts, key=self.position):
            node = self.node(path)
            paths[node] = min(paths.get(node, path), path, key=len)
        # an identity, as timm leaves where a classifier was, changes nothing: it is no cut of its own
        return {n: path for n, path in paths.items() if not isinstance(self.network.get_submodule(path), nn.Identity)}

    def node(self, cut: str) -> fx.Node:
        """Return the node of a cut: "input", "pooled", or the path of one of `cuts`."""
        ends = {INPUT: next(iter(self.graph.nodes)), POOLED: self.graph.output_node()}
        node: fx.Node = ends[cut] if cut in ends else self.outputs[cut][0]
        return node

    @cached_property
    def tensors(self) -> frozenset[str]:
        """The names of the network's tensors."""
        return frozenset(self.network.state_dict())

    def is_cut(self, path: str) -> bool:
        """Whether the network can be cut at a path, or at its ends."""
        return path in (POOLED, INPUT) or (path in self.outputs and self.reason_not_a_cut(path) is None)

    @cached_property
    def parameters_below(self) -> dict[fx.Node, frozenset[str]]:
        """The names of the parameters that each node's value is computed with."""
        names: dict[fx.Node, frozenset[str]] = {}
        for node in self.graph.nodes:
            below = [names[source] for source in node.all_input_nodes]
            names[node] = frozenset(self._parameters(node)).union(*below)
        return names

    def _parameters(self, node: fx.Node) -> list[str]:
        if node.op == "get_attr":
            return [name for name, _ in self.network.named_parameters() if name == node.target]
        if node.op != "call_module":
            return []
        path = str(node.target)
        return [f"{path}.{name}" for name, _ in self.network.get_submodule(path).named_parameters()]

    def position(self, path: str) -> int:
        """Return where in the order of computation the module at `path` ends."""
        return max((self.order[node] for node in self.outputs[path] if isinstance(node, fx.Node)), default=0)

    def reason_not_a_cut(self, path: str) -> str | None:
        """Return in words why the network can't be cut where the module at `path` ends; None if it can."""
        outputs = self.outputs[path]
        if len(outputs) > 1:
            return f"runs {len(outputs)} times"
        if not isinstance(outputs[0], fx.Node):
            return "returns more than one tensor"
        if outputs[0] not in self._from_the_images:
            return "does not depend on the image"
        if outputs[0] not in self._to_the_output:
            return "is not used for the features"
        if outputs[0] not in self.dominators:
            return "is inside a branch or beside a residual connection: part of the signal goes round it"
        return None

    def refusal(self, cut: str, reason: str, nearest: str) -> UsageError:
        """Return the error for a cut at which the network can't be divided."""
        return UsageError(f"The cut {cut!r} {reason}. The nearest cut that works is {nearest!r}. {self.hint}")

    @property
    def hint(self) -> str:
        """Where the cuts are listed, or the highest of them for a network that the command line does not know."""
        if timm_name(self.network):
            return f"List them with `regraft backbones {timm_name(self.network)} --cuts`."
        return f"The highest are {', '.join([*self.shortest_paths.values(), POOLED][-8:])}."


class _Tracer(fx.Tracer):  # type: ignore[misc, unused-ignore]
    """Trace with timm's own lists of what to leave whole, and record what each module returns."""

    def __init__(self) -> None:
        import_timm()
        from timm.layers import DropPath
        from timm.models._features_fx import get_notrace_functions, get_notrace_modules
        from torch.nn.modules.batchnorm import _BatchNorm

        super().__init__(autowrap_functions=tuple(get_notrace_functions()))
        # what behaves otherwise in training must stay a module: tracing would fix it as it is in eval mode; and what
        # stands in for one of torch's own modules is left whole like it
        self.whole = (*get_notrace_modules(), _BatchNorm, DropPath, nn.Conv2d, nn.MaxPool2d)
        self.outputs: dict[str, list[Any]] = {}

    def create_args_for_root(self, root_fn: Callable[..., Any], *_: object) -> tuple[Callable[..., Any], list[Any]]:
        """Let the images alone vary: the forward's other arguments keep their defaults."""
        return root_fn, [self.root, self.create_proxy("placeholder", "images", (), {})]

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Leave whole what timm lists, and what fx itself leaves whole."""
        return isinstance(m, self.whole) or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Trace the module's call, and record what it returns under the module's path."""
        output = super().call_module(m, forward, args, kwargs)
        node = output.node if isinstance(output, fx.Proxy) else None
        self.outputs.setdefault(self.path_of_module(m), []).append(node)
        return output


def trace(network: nn.Module) -> Graph:
    """Return the graph of a network; raise UsageError if torch.fx can't trace it."""
    tracer = _Tracer()
    try:
        graph = tracer.trace(network)
    except Exception as error:  # a network may do anything while it is traced
        raise UsageError(
            f"{name_of(network)} can't be cut inside: torch.fx can't trace it ({first_line(error)}). "
            f"Cut it at {POOLED!r} or {INPUT!r}, or choose another backbone."
        ) from error
    return Graph(network, graph, tracer.outputs)


def ancestors(nodes: Iterable[fx.Node], without: fx.Node | None = None) -> set[fx.Node]:
    """Return `nodes` and all that they are computed from; the search does not go below `without`."""
    visited, waiting = set[fx.Node](), list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in visited:
            visited.add(node)
            waiting.extend([] if node is without else node.all_input_nodes)
    return visited


def timm_name(network: nn.Module) -> str:
    """Return timm's name of a network; "" if it is not one of timm's."""
    config = getattr(network, "pretrained_cfg", None)
    return str(config.get("architecture") or "") if isinstance(config, dict) else ""


def name_of(network: nn.Module) -> str:
    """Return timm's name of a network, or its class's."""
    return timm_name(network) or type(network).__name__
