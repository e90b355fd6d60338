"""A network as a graph: what each module gives, and through which places all that is seen of an image passes.

A network enters; a `Graph` leaves, traced by torch.fx with timm's own lists
of what to leave whole. Names for the places are left to `places`, and
dividing the network to `cut`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import fx, nn

from regraft.core.errors import UsageError
from regraft.network.keras.layers import NOTHING, WHOLE
from regraft.network.workaround_torchvision_nms import import_timm


@dataclass(frozen=True)
class Graph:
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

    @cached_property
    def tensors(self) -> frozenset[str]:
        """The names of the network's tensors."""
        return frozenset(self.network.state_dict())

    def is_cut(self, path: str) -> bool:
        """Whether the network can be cut at a path, or at its ends."""
        return path in (WHOLE, NOTHING) or (path in self.places and self.complaint(path) is None)

    @cached_property
    def learned(self) -> dict[fx.Node, frozenset[str]]:
        """The names of the parameters that each node's value is computed with."""
        found: dict[fx.Node, frozenset[str]] = {}
        for node in self.graph.nodes:
            below = [found[source] for source in node.all_input_nodes]
            found[node] = frozenset(self._own(node)).union(*below)
        return found

    def _own(self, node: fx.Node) -> list[str]:
        if node.op == "get_attr":
            return [name for name, _ in self.network.named_parameters() if name == node.target]
        if node.op != "call_module":
            return []
        path = str(node.target)
        return [f"{path}.{name}" for name, _ in self.network.get_submodule(path).named_parameters()]

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
        # what behaves otherwise in training must stay a module: tracing would fix it as it is in eval mode; and what
        # stands in for one of torch's own modules is left whole like it
        self.whole = (*get_notrace_modules(), _BatchNorm, DropPath, nn.Conv2d, nn.MaxPool2d)
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


def trace(network: nn.Module) -> Graph:
    """Return the graph of a network; raise UsageError if torch.fx does not follow it."""
    tracer = _Tracer()
    try:
        graph = tracer.trace(network)
    except Exception as error:  # a network may do anything while it is traced
        raise UsageError(
            f"{name_of(network)} can't be cut inside: torch.fx does not follow it ({first_line(error)}). "
            f"Cut it at {WHOLE!r} or {NOTHING!r}, or choose another backbone."
        ) from error
    return Graph(network, graph, tracer.places)


def ancestors(nodes: Iterable[fx.Node], without: fx.Node | None = None) -> set[fx.Node]:
    """Return `nodes` and all that they are computed from; the search does not go below `without`."""
    found, waiting = set[fx.Node](), list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend([] if node is without else node.all_input_nodes)
    return found


def name_of(network: nn.Module) -> str:
    """Return timm's name of a network."""
    return str(getattr(network, "pretrained_cfg", {}).get("architecture") or type(network).__name__)


def first_line(error: Exception) -> str:
    """Return the start of what a library says, or the kind of its error if it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
